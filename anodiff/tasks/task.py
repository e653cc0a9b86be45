"""What a sample is to be: painted anew, enlarged, filled in or edited, as a caller words it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from anodiff.cond import Cond
from anodiff.config import RunConfig
from anodiff.data.image import read, read_mask
from anodiff.detect.predictor import Predictor
from anodiff.errors import ConfigError
from anodiff.painting import Rows
from anodiff.tasks.asked import Asked, conditions
from anodiff.tasks.edited import Edit, edited
from anodiff.tasks.mended import enlarged, filled, pasted


@dataclass(frozen=True, eq=False)
class Task:
    """How pictures come about; `paint` takes `cond_of` or `rows_of`."""

    count: int | None = None  # of pictures where nobody says; None: as usual
    cond_of: Callable[[range], Cond] | None = None
    rows_of: Callable[[range], Rows] | None = None
    finish: Callable[[np.ndarray], np.ndarray] = lambda made: made
    together: int = 1  # pictures that come of one number, such as a picture and its edit

    def rows(self, numbers: range) -> Rows:
        """All that the pictures of these numbers are painted from."""
        if self.rows_of is not None:
            return self.rows_of(numbers)
        return Rows(numbers) if self.cond_of is None else Rows(numbers, self.cond_of(numbers))


def task(
    predictor: Predictor,
    config: RunConfig,
    shape: tuple[int, int],
    *,
    asked: Asked,
    edit: Edit | None = None,
    superres: Sequence[Path] = (),
    inpaint: Path | None = None,
    mask: Path | None = None,
    device: torch.device,
) -> Task:
    """The task that the words describe.

    Args:
        predictor: that paints.
        config: of the model.
        shape: working (height, width).
        asked: label, text or layout.
        edit: of the asked text (prompt-to-prompt).
        superres: small pictures to enlarge.
        inpaint: a picture to fill in.
        mask: white where it is to be filled.
        device: where the predictor lives.

    Raises:
        ConfigError: tasks that exclude each other, or a picture without its mask.
        RefusalError, DataError: as `conditions`, `edited`, `enlarged` and `filled`.
    """
    chosen = [name for name, given in (("edit", edit), ("superres", superres), ("inpaint", inpaint)) if given]
    if len(chosen) > 1:
        raise ConfigError(f"Choose one of {' and '.join('--' + name for name in chosen)}.")
    if (inpaint is None) != (mask is None):
        raise ConfigError(
            "Filling in takes a picture and a mask of its size: give both --inpaint and --mask."
        )
    if edit is not None:
        return Task(rows_of=edited(predictor, config, shape, asked, edit, device=device), together=2)
    cond_of = conditions(config, asked, device)
    stride = predictor.codec.stride
    if superres:
        pictures = [read(str(path)) for path in superres]
        rows_of = enlarged(pictures, config, shape, stride=stride, device=device)
        return Task(count=len(pictures), rows_of=_with(rows_of, cond_of))
    if inpaint is not None and mask is not None:
        picture = read(str(inpaint))
        hidden = read_mask(mask)
        rows_of = filled(picture, hidden, predictor, config, shape, device=device)
        return Task(
            count=1,
            rows_of=_with(rows_of, cond_of),
            finish=partial(pasted, picture=picture, hidden=hidden),
        )
    return Task(cond_of=cond_of)


def _with(
    rows_of: Callable[[range], Rows], cond_of: Callable[[range], Cond] | None
) -> Callable[[range], Rows]:
    """The rows with the asked conditions beside their own picture."""
    if cond_of is None:
        return rows_of

    def of(numbers: range) -> Rows:
        rows = rows_of(numbers)
        return replace(rows, cond=replace(cond_of(numbers), image=rows.cond.image))

    return of
