"""Boxes, small pictures and pictures with holes: what models that read them make of drawn parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import generation
import numpy as np
import torch
from parts_models import DEVICE, SHAPE, SIDE, Model, Models, images
from parts_seen import Judge, matched, seen
from parts_shown import sheet, table

from anodiff.cond import Cond
from anodiff.config import schema
from anodiff.data.boxes import Box, boxes
from anodiff.diffusion.guidance import Inpaint
from anodiff.encode.boxes import Classes
from anodiff.encode.holes import random_mask
from anodiff.metrics.generation import frechet, named
from anodiff.painting import Rows
from anodiff.tasks.mended import enlarged, filled, pasted

LAYOUTS = 64
SCALES = (1.0, 2.0, 4.0)
PICTURES = 128
FACTOR = 4
FD = named("FD", generation.EXTRACTOR)
GOOD = 0.5  # overlap from which on a box counts as filled


def layout(
    models: Models, found: dict[str, Any], keep: Callable[[str], None], *, sampling: int, images: Path | None
) -> None:
    """Fill `found`: parts in samples against the boxes that were told, and against those of another sample."""
    model = models.model("layout")
    found |= model.about
    judge = Judge()
    found["names of real parts right"] = round(judge.learn(models.table), 4)
    told = boxes(models.fresh)[:LAYOUTS]
    true = originals(models.fresh["image"][:LAYOUTS])
    again = model.through(true)
    found |= {"layouts": len(told), "boxes": sum(map(len, told))}
    found["rows"] = [
        {"pictures": "true ones"} | filled_boxes(true, told, judge),
        {"pictures": "true ones, through the autoencoder"} | filled_boxes(again, told, judge),
    ]
    tokens = model.config.tokens
    assert isinstance(tokens, schema.Layout)
    rows = Classes(tokens.classes, tokens.most).rows(told)
    shown = {
        "told": [drawn(np.full_like(true[0], 255), row) for row in told[:10]],
        "true": true[:10],
        "autoencoder": again[:10],
    }
    for scale in SCALES:
        start = time.perf_counter()
        made = model.painted(
            len(told),
            cond_of=lambda numbers: Cond(boxes=rows[list(numbers)]),
            scale=scale,
            steps=sampling,
            seed=7,
        )
        seconds = round(time.perf_counter() - start)
        found["rows"] += [
            {"pictures": f"scale {scale:g}"} | filled_boxes(made, told, judge),
            {"pictures": f"scale {scale:g}, boxes of the next"}
            | filled_boxes(made, [*told[1:], told[0]], judge),
        ]
        found[f"seconds, scale {scale:g}"] = seconds
        shown[f"scale {scale:g}"] = [drawn(p, row) for p, row in zip(made[:10], told[:10], strict=True)]
        print(found["rows"][-2:], flush=True)
        keep(table(found["rows"]))
    if images is not None:
        sheet(shown, images / "parts_layout.png", left=0.09)


def filled_boxes(made: np.ndarray, told: Sequence[Sequence[Box]], judge: Judge) -> dict[str, float | None]:
    """Mean overlap of boxes with the parts assigned to them, shares of boxes filled and of those named right."""
    overlaps, classes, pictures, parts, counts = [], [], [], [], []
    for picture, row in zip(made, told, strict=True):
        there = seen(picture)
        counts.append(len(there) == len(row))
        for box, (share, part) in zip(row, matched([b[1:] for b in row], there), strict=True):
            overlaps.append(share)
            classes.append(box[0])
            pictures.append(picture)
            parts.append(part if share >= GOOD else None)
    kinds = judge.names(pictures, parts)
    right = [kind == name for kind, name in zip(kinds, classes, strict=True) if kind is not None]
    return {
        "mean IoU": round(float(np.mean(overlaps)), 4),
        f"IoU >= {GOOD:g}": round(float(np.mean(np.array(overlaps) >= GOOD)), 4),
        "class of those": round(float(np.mean(right)), 4) if right else None,
        "as many parts": round(float(np.mean(counts)), 4),
    }


def superres(
    models: Models, found: dict[str, Any], keep: Callable[[str], None], *, sampling: int, images: Path | None
) -> None:
    """Fill `found`: test pictures reduced and enlarged again, by the model and by bicubic interpolation."""
    model = models.model("superres")
    judge = Judge()
    true = originals(models.test["image"][:PICTURES])
    small = np.stack([cv2.resize(p, (SIDE // FACTOR,) * 2, interpolation=cv2.INTER_AREA) for p in true])
    wanted = judge.features(list(true))
    start = time.perf_counter()
    rows_of = enlarged(list(small), model.config, SHAPE, stride=model.predictor.codec.stride, device=DEVICE)
    made = model.painted(len(small), rows_of=rows_of, steps=sampling, seed=8)
    found |= model.about | {"pictures": len(true), "seconds of sampling": round(time.perf_counter() - start)}
    cubic = np.stack([cv2.resize(p, SHAPE, interpolation=cv2.INTER_CUBIC) for p in small])
    ways = {
        "bicubic": cubic,
        "model": made,
        "true pictures through the autoencoder": model.through(true),
    }
    found["rows"] = [
        {"way": name}
        | {
            FD: round(frechet(wanted, judge.features(list(pictures))), 2),
            "PSNR": psnr(true, pictures),
            "PSNR of the small picture": psnr(
                small,
                np.stack(
                    [cv2.resize(p, (SIDE // FACTOR,) * 2, interpolation=cv2.INTER_AREA) for p in pictures]
                ),
            ),
        }
        for name, pictures in ways.items()
    ]
    other = originals(models.fresh["image"][:PICTURES])
    found[f"{FD} of other true pictures"] = round(frechet(wanted, judge.features(list(other))), 2)
    keep(table(found["rows"]))
    print(found["rows"], flush=True)
    if images is not None:
        big = np.stack([p.repeat(FACTOR, 0).repeat(FACTOR, 1) for p in small])
        again = ways["true pictures through the autoencoder"]
        shown = {
            "small": big[:10],
            "bicubic": cubic[:10],
            "model": made[:10],
            "autoencoder": again[:10],
            "true": true[:10],
        }
        sheet(shown, images / "parts_superres.png", left=0.09)


def inpaint(
    models: Models, found: dict[str, Any], keep: Callable[[str], None], *, sampling: int, images: Path | None
) -> None:
    """Fill `found`: test pictures with holes, filled by two models, by grey and by cv2.inpaint."""
    judge = Judge()
    true = originals(models.test["image"][:PICTURES])
    hidden = np.stack([~random_mask(10_000 + k, SHAPE)[0].numpy() for k in range(len(true))])  # [n, h, w]
    wanted = judge.features(list(true))
    grey = np.where(hidden[..., None], np.uint8(128), true)
    telea = np.stack(
        [cv2.inpaint(p, m.astype(np.uint8), 3, cv2.INPAINT_TELEA) for p, m in zip(true, hidden, strict=True)]
    )
    found |= {"pictures": len(true), "hidden share": round(float(hidden.mean()), 3), "rows": []}
    shown = {"hidden": grey[:10], "Telea": telea[:10]}

    def add(name: str, made: np.ndarray, **more: Any) -> None:
        whole = np.stack([pasted(m, p, h) for m, p, h in zip(made, true, hidden, strict=True)])
        off = int((whole != true)[~hidden].any(axis=-1).sum())
        gap = (whole.astype(float) - true)[hidden] / 255
        found["rows"].append(
            {
                "way": name,
                FD: round(frechet(wanted, judge.features(list(whole))), 2),
                "PSNR in the hole": round(float(-10 * np.log10((gap**2).mean())), 2),
                "known pixels": int((~hidden).sum()),
                "of them changed": off,
            }
        )
        found["rows"][-1] |= more
        print(found["rows"][-1], flush=True)
        keep(table([{k: v for k, v in row.items() if k != "seconds"} for row in found["rows"]]))
        shown[name] = whole[:10]

    add("grey", grey)
    add("cv2.inpaint, Telea", telea)
    del shown["grey"], shown["cv2.inpaint, Telea"]
    ready = {
        "model told the hole": models.model("inpaint", "data.draws=4"),
        "model of words, held": models.at_hand("text"),
    }
    for name, model in ready.items():
        if model is None:
            continue
        found[name] = model.about
        start = time.perf_counter()
        made = model.painted(len(true), rows_of=holes(model, true, hidden), steps=sampling, seed=9)
        add(name, made, seconds=round(time.perf_counter() - start))
    if images is not None:
        sheet(shown | {"true": true[:10]}, images / "parts_inpaint.png", left=0.16)


def holes(model: Model, pictures: np.ndarray, hidden: np.ndarray) -> Callable[[range], Rows]:
    """From numbers to rows that fill one picture each; a model that reads words is told none."""
    each = [
        filled(picture, hole, model.predictor, model.config, SHAPE, device=DEVICE)(range(k, k + 1))
        for k, (picture, hole) in enumerate(zip(pictures, hidden, strict=True))
    ]

    def of(numbers: range) -> Rows:
        rows = [each[k] for k in numbers]
        if rows[0].begin is None:
            return Rows(numbers, Cond(image=torch.cat([row.cond.image for row in rows])))  # type: ignore[misc]
        held: list[dict[str, Any]] = [row.around.keywords for row in rows]  # type: ignore[attr-defined]
        z, mask = (torch.cat([one[name] for one in held]) for name in ("known", "mask"))
        return Rows(numbers, begin=z, around=partial(Inpaint, known=z, mask=mask))

    return of


def originals(paths: Any) -> np.ndarray:
    """Pictures uint8 [n, h, w, 3]."""
    return images(paths)


def psnr(true: np.ndarray, made: np.ndarray) -> float:
    """Mean over pictures of the PSNR in dB."""
    error = ((true.astype(float) - made) / 255) ** 2
    return round(float(-10 * np.log10(error.mean(axis=(1, 2, 3)).clip(1e-10)).mean()), 2)


def drawn(picture: np.ndarray, row: Sequence[Box]) -> np.ndarray:
    """The picture with thin boxes in it, one colour a class."""
    colours = {"bolt": (255, 60, 60), "bracket": (60, 220, 60), "gear": (255, 0, 255), "nut": (0, 200, 220)}
    found = picture.copy()
    for name, *sides in row:
        left, top, right, bottom = (round(side * SIDE) for side in sides)
        cv2.rectangle(found, (left, top), (right - 1, bottom - 1), colours.get(name, (240, 180, 0)), 1)
    return found
