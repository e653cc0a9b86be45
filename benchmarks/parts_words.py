"""Words: what a caption names, weighed and masked words, and prompt-to-prompt edits, measured on drawn parts."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from parts_models import BATCH, DEVICE, SHAPE, Model, Models, images
from parts_seen import Judge, Seen, common, covered, mean_distance, seen, sheet

from anodiff.data.caption import captions
from anodiff.data.parts import Part, caption
from anodiff.painting import Rows
from anodiff.tasks.asked import Asked, worded
from anodiff.tasks.edited import Edit, edited

SCALES = (1.0, 2.0, 4.0, 8.0)
SCALE = 2.0  # of all that is weighed, masked and edited; not chosen by what came out
SINGLE, SAMPLES = 24, 4  # captions of one part, and samples of each
SEVERAL = 32  # captions of two parts, one sample of each
GAINS = (0.0, 0.5, 1.0, 2.0, 4.0)
WEIGHED = ("brass", "blue")
PAIRS = 24  # samples of an edit
EDITS = (
    ("a brass washer", "a copper washer", "washer"),
    ("a steel gear", "a blue gear", "gear"),
)
TWO = "a brass washer and a steel bolt"
MASKED = {
    "as it is": TWO,
    "(bolt:0)": "a brass washer and a steel (bolt:0)",
    "(steel:0) (bolt:0)": "a brass washer and a (steel:0) (bolt:0)",
    "never said": "a brass washer",
}
WINDOW = (1.0, float("inf"))
TOLERANCE = 2  # of 255: what a pixel may change and still count as the same


def measured(
    models: Models,
    found: dict[str, Any],
    keep: Callable[[str], None],
    *,
    sampling: int,
    images: Path | None,
) -> None:
    """Fill `found`, part by part, and keep it after each."""
    model = models.model("text")
    found |= model.about
    judge = Judge()
    found["names of real parts right"] = round(judge.learn(models.table), 4)
    drawn: dict[str, Any] = {}
    for name, part in (
        ("agreement", lambda: agreement(model, models, judge, sampling, drawn)),
        ("weighing", lambda: weighing(model, sampling, drawn)),
        ("masking", lambda: masking(model, sampling, drawn)),
        ("editing", lambda: editing(model, sampling, drawn)),
    ):
        start = time.perf_counter()
        found[name] = part() | {"seconds": round(time.perf_counter() - start)}
        print(name, found[name], flush=True)
        keep(markdown(found))
    if images is not None:
        draw(drawn, images)


def told_of(caption: str) -> Counter[tuple[str, str]]:
    """How many parts of each finish and class a caption names."""
    numbers = {"a": 1, "two": 2, "three": 3, "four": 4}
    named = re.findall(r"\b(a|two|three|four) (steel|brass|copper|blue) (\w+?)s?\b", caption)
    told: Counter[tuple[str, str]] = Counter()
    for number, finish, kind in named:
        told[finish, kind] += numbers[number]
    return told


def of_texts(model: Model, texts: Sequence[str], **options: Any) -> np.ndarray:
    """A picture a text."""
    return model.painted(
        len(texts), cond_of=lambda rows: worded(model.config, [texts[k] for k in rows], DEVICE), **options
    )


def agreement(
    model: Model, models: Models, judge: Judge, sampling: int, drawn: dict[str, Any]
) -> dict[str, Any]:
    """What captions of another seed name, and what is there."""
    fresh, trained = captions(models.fresh), set(captions(models.table))
    each = list(dict.fromkeys(text for text in fresh if sum(told_of(text).values()) == 1))[:SINGLE]
    two = list(dict.fromkeys(text for text in fresh if sum(told_of(text).values()) == 2))[:SEVERAL]
    texts = [text for text in each for _ in range(SAMPLES)]
    known = {text: [] for text in each}
    for table in (models.table, models.fresh):
        for text, path in zip(captions(table), table["image"], strict=True):
            if text in known:
                known[text].append(path)
    several = [paths for paths in known.values() if len(paths) > 1]
    real = float(np.mean([mean_distance(judge.features(images(paths))) for paths in several]))
    own = [paths[0] for paths in known.values()]
    rows: list[dict[str, Any]] = [
        {"scale": "true pictures"}
        | one_part(images(own), each, judge)
        | several_parts(
            images([path for text, path in zip(fresh, models.fresh["image"], strict=True) if text in two]),
            [text for text in fresh if text in two],
        )
        | {"diversity": 1.0}
    ]
    shown: dict[str, list[np.ndarray]] = {}
    for scale in SCALES:
        made = of_texts(model, texts, scale=scale, steps=sampling, seed=1)
        pairs = of_texts(model, two, scale=scale, steps=sampling, seed=2)
        features = judge.features(list(made)).reshape(len(each), SAMPLES, -1)
        rows.append(
            {"scale": scale}
            | one_part(made, texts, judge)
            | several_parts(pairs, two)
            | {"diversity": round(float(np.mean([mean_distance(row) for row in features])) / real, 3)}
        )
        shown[f"scale {scale:g}"] = [*made[: 5 * SAMPLES : SAMPLES], *pairs[:4]]
        print(rows[-1], flush=True)
    drawn["agreement"] = (shown, [*each[:5], *two[:4]])
    return {
        "captions": {"one part": len(each), "samples of each": SAMPLES, "two parts": len(two)},
        "of them never trained on": {
            "one part": sum(text not in trained for text in each),
            "two parts": sum(text not in trained for text in two),
        },
        "real pictures for diversity": sum(map(len, several)),
        "rows": rows,
    }


def one_part(made: np.ndarray, texts: Sequence[str], judge: Judge) -> dict[str, float]:
    """Shares of pictures in which one part is found, the largest of the finish, class and place that were told."""
    parts = [seen(picture) for picture in made]
    largest = [row[0] if row else None for row in parts]
    kinds = judge.names(list(made), largest)
    told = [next(iter(told_of(text))) for text in texts]
    right = {
        "one part": [len(row) == 1 for row in parts],
        "finish": [p is not None and p.finish == t[0] for p, t in zip(largest, told, strict=True)],
        "class": [kind == t[1] for kind, t in zip(kinds, told, strict=True)],
        "place": [
            p is not None and place(p) == text.split(" ", 3)[3]
            for p, text in zip(largest, texts, strict=True)
        ],
    }
    return {name: round(float(np.mean(values)), 4) for name, values in right.items()}


def place(part: Seen) -> str:
    """Where a part lies, as a caption of one part says it."""
    told = caption([Part(kind="nut", finish=part.finish, box=("nut", *part.sides))])
    return told.split(" ", 3)[3]


def several_parts(made: np.ndarray, texts: Sequence[str]) -> dict[str, float]:
    """Shares of pictures with as many parts as told, and with parts of the finishes told."""
    number, finishes = [], []
    for picture, text in zip(made, texts, strict=True):
        told: Counter[str] = Counter()
        for (finish, _), count in told_of(text).items():
            told[finish] += count
        parts = seen(picture)
        number.append(len(parts) == sum(told.values()))
        finishes.append(Counter(part.finish for part in parts) == told)
    return {
        "two parts": round(float(np.mean(number)), 4),
        "both finishes": round(float(np.mean(finishes)), 4),
    }


def weighing(model: Model, sampling: int, drawn: dict[str, Any]) -> dict[str, Any]:
    """How near a part's colour comes to a finish as its word is weighed, from the same noise."""
    result: dict[str, Any] = {"scale": SCALE, "samples": PAIRS, "words": {}}
    shown = {}
    for word in WEIGHED:
        rows, towards = [], []
        for gain in GAINS:
            made = of_texts(
                model, [f"a ({word}:{gain:g}) washer"] * PAIRS, scale=SCALE, steps=sampling, seed=3
            )
            parts = [seen(picture) for picture in made]
            towards.append([row[0].towards(word) if row else np.nan for row in parts])
            rows.append(
                {
                    "gain": gain,
                    "towards the colour": round(float(np.nanmean(towards[-1])), 3),
                    "named so": round(float(np.mean([bool(r) and r[0].finish == word for r in parts])), 4),
                    "nothing found": sum(not row for row in parts),
                }
            )
            shown[f"{word}: {gain:g}"] = list(made[:8])
        steps = np.diff(np.array(towards), axis=0)
        means = [row["towards the colour"] for row in rows]
        result["words"][word] = {
            "rows": rows,
            "mean rises with every gain": bool(np.all(np.diff(means) > 0)),
            "samples that rise with every gain": round(float(np.mean(np.all(steps > 0, axis=0))), 4),
            "single steps that rise": round(float(np.mean(steps[np.isfinite(steps)] > 0)), 4),
        }
    drawn["weighing"] = shown
    return result


def masking(model: Model, sampling: int, drawn: dict[str, Any]) -> dict[str, Any]:
    """How many parts are found when a word of a caption of two parts is masked, from the same noise."""
    counts, shown, rows = {}, {}, []
    for name, text in MASKED.items():
        made = of_texts(model, [text] * BATCH, scale=SCALE, steps=sampling, seed=4)
        parts = [seen(picture) for picture in made]
        counts[name] = [len(row) for row in parts]
        rows.append(
            {
                "words": name,
                "none": counts[name].count(0),
                "one": counts[name].count(1),
                "two": counts[name].count(2),
                "more": sum(count > 2 for count in counts[name]),
                "a steel part": sum(any(part.finish == "steel" for part in row) for row in parts),
                "a brass part": sum(any(part.finish == "brass" for part in row) for row in parts),
            }
        )
        shown[name] = list(made[:8])
    whole = [k for k, count in enumerate(counts["as it is"]) if count == 2]
    fall = {name: f"{sum(counts[name][k] == 1 for k in whole)} of {len(whole)}" for name in list(MASKED)[1:]}
    drawn["masking"] = shown
    return {"text": TWO, "scale": SCALE, "samples": BATCH, "rows": rows, "from two parts to one": fall}


def editing(model: Model, sampling: int, drawn: dict[str, Any]) -> dict[str, Any]:
    """How much of a part's shape and of its surroundings an edit keeps, beside painting the new text anew."""
    result: dict[str, Any] = {"scale": SCALE, "pairs": PAIRS, "edits": {}}
    shown: dict[str, list[np.ndarray]] = {}
    for source, target, word in EDITS:
        ways = {
            "edit": Edit(target),
            f"edit, noise levels above {WINDOW[0]:g}": Edit(target, window=WINDOW),
            "edit, blended": Edit(target, blend=word),
        }
        pairs = {name: pair(model, source, edit, sampling) for name, edit in ways.items()}
        before = pairs["edit"][0]
        region = pairs["edit, blended"][2]
        assert region is not None
        after = {name: both[1] for name, both in pairs.items()}
        after["same noise, no edit"] = of_texts(model, [target] * PAIRS, scale=SCALE, steps=sampling, seed=5)
        after["other noise"] = of_texts(model, [target] * PAIRS, scale=SCALE, steps=sampling, seed=6)
        finish = target.split()[1]
        result["edits"][f"{source} -> {target}"] = {
            "source in its own finish": named(before, source.split()[1]),
            "blend region, share of the picture": round(float(region.mean()), 3),
            "rows": [{"way": name} | kept(before, made, region, finish) for name, made in after.items()],
        }
        shown[source] = list(before[:8])
        shown |= {f"{target}:\n{name}": list(made[:8]) for name, made in after.items()}
    drawn["editing"] = shown
    return result


def pair(
    model: Model, source: str, edit: Edit, sampling: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Pictures of the source, their edits, and where a blend let them differ, bool [n, h, w]."""
    of = edited(model.predictor, model.config, SHAPE, Asked(prompt=source), edit, device=DEVICE)
    given: list[Rows] = []

    def rows_of(numbers: range) -> Rows:
        given.append(of(numbers))
        return given[-1]

    made = model.painted(PAIRS, rows_of=rows_of, scale=SCALE, steps=sampling, seed=5, batch=PAIRS)
    region = None
    if edit.blend is not None:
        small = given[0].around(model.predictor.denoiser).region().float()  # type: ignore[attr-defined]
        region = F.interpolate(small, SHAPE, mode="nearest")[:, 0].bool().numpy()
    return made[:PAIRS], made[PAIRS:], region


def named(made: np.ndarray, finish: str) -> float:
    """The share of pictures whose largest part has the finish."""
    parts = [seen(picture) for picture in made]
    return round(float(np.mean([bool(row) and row[0].finish == finish for row in parts])), 4)


def kept(before: np.ndarray, after: np.ndarray, region: np.ndarray, finish: str) -> dict[str, float]:
    """What changed as it should, and what stayed: pixels of parts in both, and pixels outside of the region."""
    change = np.abs(before.astype(int) - after.astype(int)).max(axis=3)  # [n, h, w]
    return {
        "new finish": named(after, finish),
        "IoU of parts": round(
            float(np.mean([common(covered(a), covered(b)) for a, b in zip(before, after, strict=True)])), 4
        ),
        "equal outside": round(float((change[~region] == 0).mean()), 4),
        f"within {TOLERANCE} outside": round(float((change[~region] <= TOLERANCE).mean()), 4),
        "mean change outside": round(float(change[~region].mean()), 2),
        "mean change inside": round(float(change[region].mean()), 2),
    }


def draw(drawn: dict[str, Any], folder: Path) -> None:
    """One picture of each part."""
    rows, titles = drawn["agreement"]
    sheet(rows, folder / "parts_words.png", titles=[broken(title) for title in titles], left=0.07)
    sheet(drawn["weighing"], folder / "parts_weighing.png", left=0.1)
    sheet(drawn["masking"], folder / "parts_masking.png", left=0.16)
    sheet(drawn["editing"], folder / "parts_editing.png", left=0.24)


def broken(text: str) -> str:
    """A caption on several lines."""
    return re.sub(r" (at|on|in|and) ", r"\n\1 ", text)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table, a line a row."""
    keys = list(rows[0])
    lines = [f"| {' | '.join(keys)} |", "|---" * len(keys) + "|"]
    lines += [f"| {' | '.join(cell(row[key]) for key in keys)} |" for row in rows]
    return "\n".join(lines) + "\n"


def cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def markdown(found: dict[str, Any]) -> str:
    """All tables that are there."""
    parts = []
    if "agreement" in found:
        parts.append(table(found["agreement"]["rows"]))
    for word, told in found.get("weighing", {}).get("words", {}).items():
        parts.append(f'"a ({word}:g) washer"\n\n' + table(told["rows"]))
    if "masking" in found:
        parts.append(f'"{TWO}"\n\n' + table(found["masking"]["rows"]))
    for name, told in found.get("editing", {}).get("edits", {}).items():
        parts.append(f"{name}\n\n" + table(told["rows"]))
    return "\n".join(parts)
