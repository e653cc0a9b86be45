"""The cases of an evaluation as files, so that reports of several evaluations can be put together later."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from anodiff.cli.predictions import png
from anodiff.run import write_text

if TYPE_CHECKING:
    from anodiff.report.case import Case

WORDS = ("name", "score", "label", "defect", "p_value", "role")


def save(cases: Sequence[Case], folder: Path) -> None:
    """Write cases.json and, for each case, `NN_image.png`, `NN_map.tiff` and, where there are, mask and restoration.

    What an earlier evaluation left in the folder is gone.
    """
    import numpy as np
    import tifffile

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for place, case in enumerate(cases):
        png(folder / f"{place:02}_image.png", case.image)
        tifffile.imwrite(folder / f"{place:02}_map.tiff", case.heatmap)
        if case.mask is not None:
            png(folder / f"{place:02}_mask.png", case.mask.astype(np.uint8) * 255)
        if case.restored is not None:
            png(folder / f"{place:02}_restored.png", case.restored)
    about = [{word: getattr(case, word) for word in WORDS} for case in cases]
    write_text(folder / "cases.json", json.dumps(about, indent=1, ensure_ascii=False) + "\n")


def load(folder: Path) -> list[Case]:
    """The cases of a folder; none where there is no cases.json."""
    if not (folder / "cases.json").is_file():
        return []
    import tifffile

    from anodiff.cli.predictions import shown
    from anodiff.data.image import read_mask
    from anodiff.report.case import Case

    def case(place: int, words: dict) -> Case:
        mask, restored = folder / f"{place:02}_mask.png", folder / f"{place:02}_restored.png"
        return Case(
            image=shown(str(folder / f"{place:02}_image.png")),
            heatmap=tifffile.imread(folder / f"{place:02}_map.tiff"),
            mask=read_mask(mask) if mask.is_file() else None,
            restored=shown(str(restored)) if restored.is_file() else None,
            **words,
        )

    return [
        case(place, words)
        for place, words in enumerate(json.loads((folder / "cases.json").read_text("utf-8")))
    ]
