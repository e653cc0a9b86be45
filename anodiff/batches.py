"""Good pictures as predictors and codecs take them: in order, in batches, with what is known of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from anodiff import compose
from anodiff.config import RunConfig
from anodiff.data.dataset import ImageSet, Picture
from anodiff.detect.content import digest


def plain(pictures: Sequence[Picture], shape: tuple[int, int], config: RunConfig) -> ImageSet:
    """The pictures at the working (height, width), without augmentation."""
    return ImageSet(pictures, shape=shape, channels=config.data.channels, upright=compose.upright(config))


def batches(
    pictures: Sequence[Picture],
    shape: tuple[int, int],
    config: RunConfig,
    device: torch.device,
    *,
    size: int = 8,
) -> Iterator[Tensor]:
    """The pictures in order, [B, C, H, W] in [0, 1] on `device`, without augmentation."""
    rows = plain(pictures, shape, config)
    for first in range(0, len(rows), size):
        yield torch.stack([rows[k] for k in range(first, min(first + size, len(rows)))]).to(device)


def with_labels(
    images: Iterable[Tensor], labels: Sequence[int] | None
) -> Iterator[Tensor | tuple[Tensor, Tensor]]:
    """The batches, each with the labels [B] of its pictures where they are known."""
    first = 0
    for image in images:
        if labels is None:
            yield image
        else:
            yield image, torch.tensor(labels[first : first + len(image)], device=image.device)
        first += len(image)


def digests(pictures: Sequence[Picture], shape: tuple[int, int], config: RunConfig) -> tuple[str, ...]:
    """What each picture shows at the working shape, in sixteen hexadecimal digits."""
    found = batches(pictures, shape, config, torch.device("cpu"))
    return tuple(digest(row) for batch in found for row in batch)
