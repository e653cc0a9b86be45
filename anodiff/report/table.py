"""Numbers as text that says no more than was measured; tables as Markdown or HTML from the same rows."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

from markupsafe import Markup, escape

from anodiff.errors import DataError

MISSING = "–"


@dataclass(frozen=True)
class Meaning:
    """The title of a metric, what it says in plain words, and which direction is good."""

    title: str
    says: str
    higher: bool


MEANINGS: dict[str, Meaning] = {
    "image_auroc": Meaning(
        "Image AUROC", "chance that a defective picture scores above a good one; .5 is a coin", True
    ),
    "image_ap": Meaning("Image AP", "precision averaged over recall, pictures", True),
    "image_f1max": Meaning("Image F1-max", "best F1 of any threshold, chosen with the labels", True),
    "fpr95": Meaning("FPR at 95 % TPR", "good pictures rejected when 95 % of the defective are found", False),
    "overkill_at_zero_escapes": Meaning(
        "Overkill at zero escapes", "good pictures rejected when no defective one may pass", False
    ),
    "false_alarm_rate": Meaning("False alarms", "good pictures above the model's own threshold", False),
    "pixel_auroc": Meaning("Pixel AUROC", "chance that a defective pixel scores above a good one", True),
    "pixel_ap": Meaning("Pixel AP", "precision averaged over recall, pixels", True),
    "aupro_30": Meaning("AUPRO@0.3", "overlap averaged over defect regions, up to 30 % false pixels", True),
    "aupro_05": Meaning("AUPRO@0.05", "overlap averaged over defect regions, up to 5 % false pixels", True),
}


@dataclass(frozen=True)
class Table:
    """Rows of text under named columns.

    Attributes:
        columns: The heads.
        rows: One tuple a row, as long as `columns`.
        numeric: Indices of the columns that are set flush right.
        strong: (row, column) of the cells in bold.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[int, ...] = ()
    strong: frozenset[tuple[int, int]] = frozenset()


def number(value: float | None, *, digits: int = 3) -> str:
    """Return a share or metric as text without its leading zero, such as `.987`.

    A value that only rounding would make a perfect 0 or 1 is written `<.001` or `>.999`; what is not
    finite is written as a dash.

    Args:
        value: The number, None or NaN where there is none.
        digits: Digits after the point.
    """
    if value is None or not math.isfinite(value):
        return MISSING
    step = 10.0**-digits
    text = f"{value:.{digits}f}"
    if float(text) == 0 and value != 0:
        text = f"<{step:.{digits}f}" if value > 0 else f">-{step:.{digits}f}"
    elif float(text) == 1 and value < 1:
        text = f">{1 - step:.{digits}f}"
    sign = text.rstrip("0123456789.")
    body = text[len(sign) :]
    return sign + (body[1:] if body.startswith("0.") else body)


def quantity(value: float | None, *, significant: int = 3) -> str:
    """Return a number of any size with a fixed count of significant digits, such as `0.570` or `1,234`."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value != 0 and abs(value) < 1e-4:
        return f"{value:.{significant - 1}e}"
    if abs(value) >= 10**significant:
        return f"{value:,.0f}"
    return f"{value:#.{significant}g}".removesuffix(".")


def share(part: int, whole: int) -> str:
    """Return `58 of 60 (97 %)`; never 100 % or 0 % by rounding alone."""
    if whole == 0:
        return "0 of 0"
    return f"{part} of {whole} ({percent(part / whole)})"


def percent(part: float) -> str:
    """Return a share in [0, 1] as `97 %` that no line break parts; never 100 % or 0 % by rounding alone."""
    text = f"{100 * part:.0f}"
    if text == "100" and part < 1:
        text = ">99"
    elif text == "0" and part > 0:
        text = "<1"
    return f"{text}\N{NO-BREAK SPACE}%"


def bounds(entry: Mapping[str, Any], *, digits: int = 3) -> str:
    """Return `[.961, 1.000]`, or a dash where either bound is missing or NaN."""
    low, high = _float(entry.get("low")), _float(entry.get("high"))
    if not (math.isfinite(low) and math.isfinite(high)):
        return MISSING
    return f"[{number(low, digits=digits)}, {number(high, digits=digits)}]"


def interval(entry: Mapping[str, Any], *, digits: int = 3, count: bool = True) -> str:
    """Return a value with its interval and sample size: `.987 [.961, 1.000], n = 83`.

    Args:
        entry: Mapping with `value` and, where known, `low`, `high` and `n`.
        digits: Digits after the point.
        count: Whether to append `n`.
    """
    text = number(_float(entry.get("value")), digits=digits)
    between = bounds(entry, digits=digits)
    if between != MISSING:
        text = f"{text} {between}"
    if count and entry.get("n") is not None:
        text = f"{text}, n = {int(entry['n'])}"
    return text


def cell(value: object) -> str:
    """Return any plain value as the text of a table cell."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real):
        real = float(value)
        return f"{real:.5g}" if real == 0 or 1e-4 <= abs(real) < 1e5 else quantity(real)
    if isinstance(value, (list, tuple)):
        return ", ".join(cell(item) for item in value)
    return str(value)


def title_of(name: str) -> str:
    """Return the printed title of a metric, its own name where it is not one of ours."""
    return MEANINGS[name].title if name in MEANINGS else name


def checked(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the metrics as mappings, our own first and in a fixed order.

    Args:
        metrics: Name to a mapping or a dataclass with `value`, `low`, `high`, `n`.

    Raises:
        DataError: An entry has no `value`.
    """
    found = {name: _mapping(entry) for name, entry in metrics.items()}
    for name, entry in found.items():
        if entry is None:
            raise DataError(
                f"metric {name!r}: expected {{'value', 'low', 'high', 'n'}}, found {metrics[name]!r}; "
                "put what is not a metric into `facts` (see `parted`)"
            )
    ours = [name for name in MEANINGS if name in found]
    others = [name for name in found if name not in MEANINGS]
    return {name: entry for name in [*ours, *others] if (entry := found[name]) is not None}


def parted(record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the metrics and the facts of a metrics.json, which holds both side by side."""
    metrics = {name: entry for name, entry in record.items() if _mapping(entry) is not None}
    return metrics, {name: entry for name, entry in record.items() if name not in metrics}


def metric_table(metrics: Mapping[str, Any]) -> Table:
    """Return one row a metric: title with its good direction, value, interval, n, meaning."""
    rows = []
    for name, entry in checked(metrics).items():
        meaning = MEANINGS.get(name)
        arrow = (
            "" if meaning is None else ("\N{NO-BREAK SPACE}↑" if meaning.higher else "\N{NO-BREAK SPACE}↓")
        )
        n = entry.get("n")
        rows.append(
            (
                title_of(name) + arrow,
                number(_float(entry["value"])),
                bounds(entry),
                MISSING if n is None else str(int(n)),
                "" if meaning is None else meaning.says,
            )
        )
    return Table(("Metric", "Value", "95 % interval", "n", "What it says"), tuple(rows), numeric=(1, 2, 3))


def comparison_table(named: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    """Return one row a model or category and one column a metric, `.987 [.961, 1.000]` in the cells.

    Args:
        named: (name, metrics) of every row; a metric that one row lacks is a dash there.
    """
    found = [(title, checked(metrics)) for title, metrics in named]
    names = list(checked({name: entry for _, metrics in found for name, entry in metrics.items()}))
    rows = tuple(
        (title, *(interval(row[name], count=False) if name in row else MISSING for name in names))
        for title, row in found
    )
    return Table(("", *map(title_of, names)), rows, numeric=tuple(range(1, len(names) + 1)))


def pairs_table(values: Mapping[str, Any], *, columns: tuple[str, str] = ("Name", "Value")) -> Table:
    """Return two columns from a mapping; nested mappings become dotted names."""
    return Table(columns, tuple(_flat(values, "")))


def markdown(table: Table) -> str:
    """Return the table in GitHub's Markdown; bars, markup and line breaks in cells are made harmless."""
    rules = ("---:" if index in table.numeric else "---" for index in range(len(table.columns)))
    lines = [_line(map(_plain, table.columns)), _line(rules)]
    for place, row in enumerate(table.rows):
        cells = (
            f"**{_plain(text)}**" if (place, index) in table.strong else _plain(text)
            for index, text in enumerate(row)
        )
        lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def html(table: Table) -> Markup:
    """Return the table as an escaped HTML `<table>` inside a box that scrolls when it is too wide."""

    def kind(index: int) -> str:
        return ' class="num"' if index in table.numeric else ""

    heads = "".join(
        f'<th scope="col"{kind(index)}>{escape(head)}</th>' for index, head in enumerate(table.columns)
    )
    body = []
    for place, row in enumerate(table.rows):
        cells = "".join(
            f'<th scope="row">{escape(text)}</th>'
            if index == 0
            else f"<td{kind(index)}>{_ranged(text, strong=(place, index) in table.strong)}</td>"
            for index, text in enumerate(row)
        )
        body.append(f"<tr>{cells}</tr>")
    return Markup(  # every cell was escaped above
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _mapping(entry: object) -> Mapping[str, Any] | None:
    if is_dataclass(entry) and not isinstance(entry, type):
        entry = vars(entry)
    return entry if isinstance(entry, Mapping) and "value" in entry else None


def _float(value: object) -> float:
    return float(value) if isinstance(value, numbers.Real) else math.nan


def _flat(values: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", cell(value)))
    return rows


def _ranged(text: str, *, strong: bool) -> str:
    """Return the escaped text, its interval marked so that a narrow cell breaks before it, the rest perhaps bold."""
    figure, gap, between = re.fullmatch(r"(.*?)(?:( )(\[[^\]]*\]))?", str(escape(text)), re.DOTALL).groups("")  # type: ignore[union-attr]
    figure = f"<b>{figure}</b>" if strong else figure
    return f'{figure} <span class="range">{between}</span>' if gap and figure else figure + gap + between


def _plain(text: str) -> str:
    for mark, harmless in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|")):
        text = text.replace(mark, harmless)
    return " ".join(text.split())


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"
