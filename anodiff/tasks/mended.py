"""Pictures finished by a model that paints: small ones enlarged, holes filled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import cv2
import numpy as np
import torch
from torch import Tensor

from anodiff.cond import Cond
from anodiff.config import RunConfig, schema
from anodiff.data.image import prepare
from anodiff.detect.predictor import Predictor
from anodiff.diffusion.guidance import Inpaint
from anodiff.encode.beside import LowRes, Masked
from anodiff.errors import DataError, RefusalError
from anodiff.painting import Rows

Pictures = Sequence[np.ndarray]
"""H x W or H x W x 3 in RGB, as `data.image.read` gives them."""


def enlarged(
    pictures: Pictures, config: RunConfig, shape: tuple[int, int], *, stride: int, device: torch.device
) -> Callable[[range], Rows]:
    """From numbers of samples to rows that enlarge the pictures, in turn, by the model's factor.

    The small picture, at `1 / factor` of the working shape, stands beside the code (arXiv:2112.10752, section 4.4).

    Raises:
        RefusalError: a model that was not trained to.
    """
    beside = config.beside
    if not isinstance(beside, schema.LowRes):
        raise RefusalError(
            "A picture to enlarge was given, but this model was not trained to: fit one with beside.kind=lowres."
        )
    low = LowRes(beside.factor, beside.noise)
    small = (max(1, shape[0] // beside.factor), max(1, shape[1] // beside.factor))
    ready = [prepare(picture, shape=small, channels=config.data.channels) for picture in pictures]
    size = (shape[0] // stride, shape[1] // stride)

    def of(numbers: range) -> Rows:
        image = torch.stack([ready[i % len(ready)] for i in numbers])  # [B, C, h0, w0]
        return Rows(numbers, Cond(image=low.from_small(image, size, list(numbers)).to(device)))

    return of


def filled(
    picture: np.ndarray,
    hidden: np.ndarray,
    predictor: Predictor,
    config: RunConfig,
    shape: tuple[int, int],
    *,
    device: torch.device,
) -> Callable[[range], Rows]:
    """From numbers of samples to rows that fill the hidden part of one picture.

    A model trained to (beside.kind masked) reads the picture with its hole (arXiv:2112.10752, section 4.5); any other
    is held to the known part at every step (`Inpaint`, arXiv:2201.09865).

    Args:
        picture: H x W or H x W x 3, RGB.
        hidden: H x W, True where it is to be filled.
        predictor: with a codec that paints.
        config: of the model.
        shape: working (height, width).
        device: where the predictor lives.

    Raises:
        DataError: a mask of another size, or one that hides nothing or all.
        RefusalError: a model of parts that are brought upright, which knows pictures of no other kind.
    """
    if not isinstance(config.data.pose, schema.KeepPose):
        raise RefusalError(
            "This model knows parts brought upright alone (data.pose), and a picture to fill shows them as they lie: "
            "fit one with data.pose.kind=keep."
        )
    known = _known(picture, hidden, shape).to(device)  # [1, 1, h, w]
    image = prepare(picture, shape=shape, channels=config.data.channels)[None].to(device)  # [1, C, h, w]
    codec = predictor.codec
    if isinstance(config.beside, schema.Masked):
        beside = Masked().make(codec, image, known)

        def told(numbers: range) -> Rows:
            return Rows(numbers, Cond(image=beside.expand(len(numbers), -1, -1, -1)))

        return told
    mean = (image * known).sum((2, 3), keepdim=True) / known.sum()  # [1, C, 1, 1]
    z = codec.encode(torch.where(known, image, mean))  # [1, c, h, w]
    mask = codec.shrink(known)

    def held(numbers: range) -> Rows:
        count = len(numbers)
        return Rows(
            numbers,
            begin=z.expand(count, -1, -1, -1),
            around=partial(Inpaint, known=z.expand(count, -1, -1, -1), mask=mask.expand(count, -1, -1, -1)),
        )

    return held


def pasted(made: np.ndarray, picture: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """The picture uint8 [H, W, C] with its hidden part from `made`; every known pixel is the picture's own.

    Args:
        made: uint8 [h, w, C], of any size.
        picture: H x W or H x W x 3, RGB, of any depth.
        hidden: H x W, True where `made` goes.
    """
    height, width = hidden.shape
    shrinks = made.shape[0] > height
    found = cv2.resize(
        made, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    ).reshape(height, width, -1)
    own = (prepare(picture, shape=(height, width), channels=found.shape[-1]) * 255).round().byte()
    return np.where(hidden[..., None], found, own.movedim(0, -1).numpy())


def _known(picture: np.ndarray, hidden: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """Which pixels of the working shape are known whole, bool [1, 1, h, w]."""
    if hidden.shape != picture.shape[:2]:
        raise DataError(
            f"The mask is {hidden.shape[0]} x {hidden.shape[1]}, the picture {picture.shape[0]} x {picture.shape[1]}: "
            "they should be of one size."
        )
    if hidden.all() or not hidden.any():
        raise DataError(
            f"The mask hides {'everything' if hidden.all() else 'nothing'}: it should be white where the picture is "
            "to be filled and black where it stays."
        )
    area = cv2.resize(hidden.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA)
    linear = cv2.resize(hidden.astype(np.float32), shape[::-1], interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(np.maximum(area, linear) == 0)[None, None]
