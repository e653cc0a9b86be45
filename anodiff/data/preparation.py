"""The way of a picture to the tensor a model sees: to the working shape, and upright where the model asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from anodiff.data.foreground import foreground
from anodiff.data.image import channelled, prepare, tensor, to_unit
from anodiff.data.pose import Upright, warped

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Placed:
    """A picture as a model sees it, and where its pixels went."""

    image: Tensor  # [C, h, w] in [0, 1]
    matrix: (
        np.ndarray | None
    )  # [2, 3] from pixels of the picture to those of `image`; None: resized as a whole


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Prepares pictures for one model, those it learns from and those it judges alike.

    Attributes:
        shape: the working (height, width).
        channels: 1 or 3.
        upright: the pose that parts are brought to; None leaves pictures as they are.
    """

    shape: tuple[int, int]
    channels: int = 3
    upright: Upright | None = None

    def __call__(self, array: np.ndarray) -> Tensor:
        """The picture H x W or H x W x C as a float32 tensor [C, h, w] in [0, 1]."""
        return self.placed(array).image

    def placed(self, array: np.ndarray) -> Placed:
        """The picture with the map that its pixels followed.

        A picture without a clear part, or one whose part reaches out of the canvas, is resized as a whole
        (`image.prepare`): a part that is missing, doubled or far too large shall be seen, not cut.
        """
        matrix = None
        if self.upright is not None:
            unit = to_unit(array)
            found = foreground(unit)
            matrix = None if found is None else self.upright.matrix(found, self.shape)
            if matrix is not None:
                return Placed(tensor(warped(channelled(unit, self.channels), matrix, self.shape)), matrix)
        return Placed(prepare(array, shape=self.shape, channels=self.channels), matrix)
