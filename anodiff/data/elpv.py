"""The ELPV set of solar cells, from the Python package that carries it."""

from __future__ import annotations

import hashlib
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from anodiff.data.manifest import write_manifest
from anodiff.data.table import GOOD, table_of
from anodiff.errors import DataError, MissingExtraError

UNSURE = "unsure"
"""The split of the cells that experts called defective with probability 1/3 or 2/3: neither trained nor tested on."""


def make_elpv(folder: str | os.PathLike[str], *, seed: int = 0, share: float = 0.8) -> Path:
    """The manifest CSV just written, beside the pictures: 2,624 cells of 300 x 300 px, grey, without masks.

    Good is probability 0: `share` of those are train, the rest test. Defective is probability 1: all test. The others
    get the split "unsure". Further columns: probability and cell (mono, poly). The good cells are divided by a hash of
    their name and the seed, so each kind of cell is on both sides in its own proportion only on average.

    Source: Deitsch et al., Solar Energy 185, 2019; Buerhop et al., EU PVSEC 2018; pictures CC BY-NC-SA 4.0.

    Args:
        folder: where to write `manifest.csv` and `images/`; made if needed.
        seed: another seed, another division of the good cells.
        share: of the good cells for training, in (0, 1).

    Raises:
        MissingExtraError: the package is not installed.
        DataError: its files are not as expected.
    """
    if not 0.0 < share < 1.0:
        raise DataError(f"Expected a share between 0 and 1 for training, got {share}.")
    source = _package_folder()
    labels = pd.read_csv(
        source / "labels.csv", sep=r"\s+", header=None, names=["image", "probability", "cell"]
    )
    if len(labels) == 0 or not set(labels["probability"].round(3)) <= {0.0, 0.333, 0.667, 1.0}:
        raise DataError(
            f"Expected cells with probabilities 0, 1/3, 2/3 and 1 in {source / 'labels.csv'}. Reinstall it."
        )
    root = Path(os.path.abspath(folder))
    (root / "images").mkdir(parents=True, exist_ok=True)
    train = _train_cells(
        [name for name, p in zip(labels["image"], labels["probability"], strict=True) if p == 0], seed, share
    )
    rows = []
    for name, probability, cell in zip(labels["image"], labels["probability"], labels["cell"], strict=True):
        target = root / "images" / os.path.basename(name)
        shutil.copyfile(source / name, target)
        rows.append(
            {
                "image": str(target),
                "category": "elpv",
                "split": "train" if name in train else "test" if probability in (0.0, 1.0) else UNSURE,
                "defect": GOOD if probability == 0 else "defect",
                "label": int(probability > 0),
                "probability": round(probability, 3),
                "cell": cell,
            }
        )
    return write_manifest(table_of(rows), root / "manifest.csv")


def _package_folder() -> Path:
    spec = find_spec("elpv_dataset")  # found without being imported: it would decode all pictures
    if spec is None or spec.origin is None:
        raise MissingExtraError("The ELPV data set", "elpv")
    folder = Path(spec.origin).parent / "data"
    if not (folder / "labels.csv").is_file():
        raise DataError(
            f"Expected labels.csv in {folder}, which is not there. Reinstall the package elpv-dataset."
        )
    return folder


def _train_cells(names: list[str], seed: int, share: float) -> set[str]:
    order = sorted(names, key=lambda name: hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest())
    return set(order[: round(share * len(order))])
