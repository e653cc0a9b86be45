"""Folders of pictures and what their names mean."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from anodiff.data.table import GOOD, natural
from anodiff.errors import DataError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm", ".pnm")
GOOD_NAMES = frozenset({"good", "ok", "normal"})
BAD_NAMES = frozenset(
    {"bad", "ng", "nok", "ko", "defect", "defects", "defective", "anomaly", "anomalous", "abnormal"}
)
MASK_NAMES = frozenset({"ground_truth", "masks", "mask"})
_NOT_A_CATEGORY = GOOD_NAMES | {"train", "test", "images"}
_JUDGING = BAD_NAMES | MASK_NAMES | {"train", "test"}

Row = dict[str, Any]


def pictures(folder: Path) -> list[Path]:
    """Every picture below the folder, in natural order; hidden files and other endings are passed over."""
    found = []
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(where, name) for name in files if is_picture(name)]
    return sorted(found, key=natural)


def is_picture(name: str) -> bool:
    """True where the ending is one of a picture and the file is not hidden."""
    base = os.path.basename(name)
    return base.lower().endswith(ENDINGS) and not base.startswith(".")


def rows_of(folder: Path) -> list[Row]:
    """One row a picture of a folder, whichever of the four layouts it has.

    1. one part in MVTec layout: `train/good`, `test/<good|defect>`, `ground_truth/<defect>/<stem>_mask.png`,
       `<stem>.png` or a folder `<stem>` of masks whose union counts;
    2. a folder of such parts; a folder `validation` in one gets the split "val", which nothing trains or tests on;
    3. `good/` beside folders of defective pictures (`bad/`, or one folder a defect): everything is `test`,
       because good pictures that a model was trained on must not be counted again in its evaluation;
    4. anything else with pictures in it: all of them good, for training.

    Raises:
        DataError: when the folder is missing, has no picture, or has defective pictures only.
    """
    if not folder.exists():
        near = sorted(p.name for p in folder.parent.iterdir())[:8] if folder.parent.is_dir() else []
        beside = f" Beside it there are: {', '.join(near)}." if near else ""
        raise DataError(
            f"Expected a folder of pictures at {folder}, but nothing is there.{beside} Check the path."
        )
    if _is_part(folder):
        rows = list(_part(folder))
    elif parts := [child for child in _folders(folder) if _is_part(child)]:
        rows = [row for part in parts for row in _part(part)]
    elif sides := _sides(folder):
        rows = list(_judged(folder, sides, split="test"))
    else:
        rows = [_row(path, _category(folder), "train", GOOD, None) for path in _plain(folder)]
    if not rows:
        raise DataError(_nothing_in(folder))
    return rows


def plain_rows(paths: Iterable[Path]) -> list[Row]:
    """One row a path, all of them good and for training."""
    return [_row(path, _category(path.parent), "train", GOOD, None) for path in paths]


def _is_part(folder: Path) -> bool:
    return (folder / "test").is_dir() or (folder / "train").is_dir()


def _part(folder: Path) -> Iterator[Row]:
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        side = folder / name
        if not side.is_dir():
            continue
        loose = _loose(side)
        if loose and split == "test":
            raise DataError(
                f"Expected folders named good or after a defect in {side}, but {loose[0].name} lies beside "
                "them: it is not known whether it is good. Move it into one of them."
            )
        for path in loose:  # train/*.png without a folder `good`: training pictures are good by definition
            yield _row(path, folder.name, split, GOOD, None)
        yield from _judged(folder, [child for child in _folders(side) if pictures(child)], split=split)


def _judged(folder: Path, sides: list[Path], *, split: str) -> Iterator[Row]:
    category = folder.name
    for side in sides:
        defect = GOOD if side.name.lower() in GOOD_NAMES else side.name
        masks = {} if defect == GOOD else _masks(folder, side)
        for path in pictures(side):
            yield _row(path, category, split, defect, masks.get(_inside(path, side)))


def _masks(folder: Path, side: Path) -> dict[str, Path]:
    """Masks by the name of their picture; pairing by order would shift at a missing or unpadded number."""
    found: dict[str, Path] = {}
    for home in (folder / name / side.name for name in sorted(MASK_NAMES)):
        for path in pictures(home):
            found.setdefault(_inside(path, home), path)
            if path.parent != home:  # <stem>/000.png, ...: the folder is the mask
                found.setdefault(_inside(path.parent, home), path.parent)
    for home in (folder / name for name in sorted(MASK_NAMES)):  # masks of all defects in one folder
        for path in _loose(home):
            found.setdefault(_inside(path, home), path)
    # <stem>_mask wins over <stem>: a picture may itself be named after another one's mask
    named = {key.removesuffix("_mask"): path for key, path in found.items() if key.endswith("_mask")}
    return found | named


def _inside(path: Path, home: Path) -> str:
    return path.relative_to(home).with_suffix("").as_posix()


def _sides(folder: Path) -> list[Path]:
    children = [
        child for child in _folders(folder) if child.name.lower() not in MASK_NAMES and pictures(child)
    ]
    good = [child for child in children if child.name.lower() in GOOD_NAMES]
    bad = [child for child in children if child.name.lower() in BAD_NAMES]
    if bad and not good:
        raise DataError(
            f"Expected a folder `good` beside `{bad[0].name}` in {folder}, but there is none. "
            "Add it, or name the folder of good pictures itself."
        )
    return children if good and len(children) > 1 else []


def _plain(folder: Path) -> list[Path]:
    """Pictures of a plain folder; one that hides a judged layout is refused: defects would pass as good."""
    found = pictures(folder)
    for path in found:
        told = {part.lower() for part in path.relative_to(folder).parts[:-1]} & _JUDGING
        if told:
            raise DataError(
                f"Expected good pictures in {folder}, but {path.relative_to(folder)} lies in a folder "
                f"`{min(told)}`. Name the folder of the part, or the folder of good pictures itself."
            )
    return found


def _loose(folder: Path) -> list[Path]:
    return [child for child in pictures(folder) if child.parent == folder]


def _folders(folder: Path) -> list[Path]:
    return sorted((c for c in folder.iterdir() if c.is_dir() and not c.name.startswith(".")), key=natural)


def _category(folder: Path) -> str:
    names = [name for name in reversed(folder.parts) if name.lower() not in _NOT_A_CATEGORY]
    return names[0].strip("/\\") or GOOD if names else GOOD


def _row(path: Path, category: str, split: str, defect: str, mask: Path | None) -> Row:
    return {
        "image": str(path),
        "mask": None if mask is None else str(mask),
        "category": category,
        "split": split,
        "defect": defect,
        "label": int(defect != GOOD),
        "group": None,
    }


def _nothing_in(folder: Path) -> str:
    others = [p.name for p in sorted(folder.rglob("*")) if p.is_file()][:5]
    came = f"found only {', '.join(others)}" if others else "the folder is empty"
    return (
        f"Expected pictures ({', '.join(ENDINGS)}) in {folder}, but {came}. Check the path or convert them."
    )
