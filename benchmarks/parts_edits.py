"""Words weighed, masked and swapped: what that does to the parts of a picture, from the same noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch.nn.functional as F
from parts_models import BATCH, DEVICE, SHAPE, Model
from parts_seen import common, covered, seen

from anodiff.painting import Rows
from anodiff.tasks.asked import Asked
from anodiff.tasks.edited import Edit, edited

SCALE = 2.0  # of all that is weighed, masked and edited; not chosen by what came out
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
THRESHOLDS = (0.3, 0.6, 0.8, 0.9)  # of a blend; the first is the usual one
TOLERANCE = 2  # of 255: what a pixel may change and still count as the same


def weighing(model: Model, sampling: int, drawn: dict[str, Any]) -> dict[str, Any]:
    """How near a part's colour comes to a finish as its word is weighed, from the same noise."""
    result: dict[str, Any] = {"scale": SCALE, "samples": PAIRS, "words": {}}
    shown = {}
    for word in WEIGHED:
        rows, towards = [], []
        for gain in GAINS:
            made = model.told([f"a ({word}:{gain:g}) washer"] * PAIRS, scale=SCALE, steps=sampling, seed=3)
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
        values = np.array(towards, dtype=np.float64)  # [gains, samples]
        steps = values[1:] - values[:-1]
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
        made = model.told([text] * BATCH, scale=SCALE, steps=sampling, seed=4)
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
    for source, target, word in EDITS:
        ways = {"edit": Edit(target), f"edit, noise levels above {WINDOW[0]:g}": Edit(target, window=WINDOW)}
        ways |= {f"edit, blended from {t:g}": Edit(target, blend=word, threshold=t) for t in THRESHOLDS}
        pairs = {name: pair(model, source, edit, sampling) for name, edit in ways.items()}
        before, plain, _ = pairs["edit"]
        after = {name: (made, region) for name, (_, made, region) in pairs.items()}
        for name, seed in (("same noise, no edit", 5), ("other noise", 6)):
            made = model.told([target] * PAIRS, scale=SCALE, steps=sampling, seed=seed)
            after[name] = made, None
        rows = []
        for name, (made, region) in after.items():
            rows.append({"way": name} | kept(before, made, target.split()[1]))
            rows[-1] |= outside(before, made, plain, region)
        result["edits"][f"{source} -> {target}"] = {
            "source in its own finish": named(before, source.split()[1]),
            "rows": rows,
        }
        drawn.setdefault("editing", {source: list(before[:8])})
        if source in drawn["editing"]:
            drawn["editing"] |= {f"{target}:\n{name}": list(made[:8]) for name, (made, _) in after.items()}
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


def kept(before: np.ndarray, after: np.ndarray, finish: str) -> dict[str, float]:
    """Whether parts changed their finish and kept their shape."""
    shapes = [common(covered(a), covered(b)) for a, b in zip(before, after, strict=True)]
    return {"new finish": named(after, finish), "IoU of parts": round(float(np.mean(shapes)), 4)}


def outside(
    before: np.ndarray, after: np.ndarray, plain: np.ndarray, region: np.ndarray | None
) -> dict[str, float | None]:
    """The share of the picture that a blend left free, and how far pixels outside of it changed (of 255).

    `plain` is the same edit without a blend; None where there is no region, or nothing outside of it.
    """
    keys = ("region", f"within {TOLERANCE} outside", "change outside", "change outside, no blend")
    if region is None:
        return dict.fromkeys(keys)
    share = round(float(region.mean()), 3)
    if region.all():
        return dict.fromkeys(keys) | {"region": share}
    change, unblended = (
        np.abs(before.astype(int) - made.astype(int)).max(axis=3)[~region] for made in (after, plain)
    )
    values = (share, float((change <= TOLERANCE).mean()), float(change.mean()), float(unblended.mean()))
    return {key: round(value, 3) for key, value in zip(keys, values, strict=True)}
