"""Words: is what a caption names there, and how much do samples of one caption differ?"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from parts_edits import TWO, editing, masking, weighing
from parts_models import Model, Models, images
from parts_seen import Judge, Seen, mean_distance, seen
from parts_shown import broken, sheet, table

from anodiff.data.caption import captions
from anodiff.data.parts import Part, caption

SCALES = (1.0, 2.0, 4.0, 8.0)
SINGLE, SAMPLES = 24, 4  # captions of one part, and samples of each
SEVERAL = 32  # captions of two parts, one sample of each


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


def agreement(
    model: Model, models: Models, judge: Judge, sampling: int, drawn: dict[str, Any]
) -> dict[str, Any]:
    """What captions of another seed name, and what is there."""
    fresh, trained = captions(models.fresh), set(captions(models.table))
    each = list(dict.fromkeys(text for text in fresh if sum(told_of(text).values()) == 1))[:SINGLE]
    two = list(dict.fromkeys(text for text in fresh if sum(told_of(text).values()) == 2))[:SEVERAL]
    texts = [text for text in each for _ in range(SAMPLES)]
    known = {text: [] for text in each}
    for source in (models.table, models.fresh):
        for text, path in zip(captions(source), source["image"], strict=True):
            if text in known:
                known[text].append(path)
    several = [paths for paths in known.values() if len(paths) > 1]
    real = float(np.mean([mean_distance(judge.features(images(paths))) for paths in several]))
    own = [paths[0] for paths in known.values()]
    pairs_told = [text for text in fresh if text in two]
    pairs_true = images(
        [path for text, path in zip(fresh, models.fresh["image"], strict=True) if text in two]
    )
    rows: list[dict[str, Any]] = [
        {"scale": name} | one_part(one, each, judge) | several_parts(pair, pairs_told) | {"diversity": None}
        for name, one, pair in (
            ("true pictures", images(own), pairs_true),
            ("through the autoencoder", model.through(images(own)), model.through(pairs_true)),
        )
    ]
    shown: dict[str, list[np.ndarray]] = {}
    for scale in SCALES:
        made = model.told(texts, scale=scale, steps=sampling, seed=1)
        pairs = model.told(two, scale=scale, steps=sampling, seed=2)
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


def draw(drawn: dict[str, Any], folder: Path) -> None:
    """One picture of each part."""
    rows, titles = drawn["agreement"]
    sheet(rows, folder / "parts_words.png", titles=[broken(title) for title in titles], left=0.07)
    sheet(drawn["weighing"], folder / "parts_weighing.png", left=0.1)
    sheet(drawn["masking"], folder / "parts_masking.png", left=0.16)
    sheet(drawn["editing"], folder / "parts_editing.png", left=0.2)


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
