"""The codec of features: what a frozen network sees, whitened; it scores but paints nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anodiff.codec.backbone import Backbone
from anodiff.codec.light import Light
from anodiff.codec.protocol import by_row, whole_cells
from anodiff.codec.whiten import ChannelMoments, Mode, Whiten
from anodiff.errors import ConfigError, DataError, RefusalError


class FeatureCodec(nn.Module):
    """Maps of a frozen backbone, averaged locally, brought to one stride, joined and whitened.

    The local mean and the joining of stages follow PatchCore (Roth et al., arXiv:2106.08265, section 3.1).
    With stages 2 and 3 of `tf_efficientnet_lite0` a picture of 256 x 256 becomes `[152, 32, 32]`.

    A code as fine as the finest stage says every number of the deep ones several times over. With `fold` = f the code
    is as coarse as `stride` says, and stages finer than that keep f x f positions of theirs in each of its own, as
    channels (space to depth): at stride 16 and fold 2 stages 2 and 3 become `[4 * 40 + 112, 16, 16]`.
    """

    paints = False
    bounded = False

    def __init__(
        self,
        backbone: Backbone,
        *,
        whitening: Mode = "full",
        floor: float = 1e-3,
        local: int = 3,
        stride: int | None = None,
        fold: int = 1,
        light: Light | None = None,
    ) -> None:
        """Store the parts.

        Args:
            backbone: The extractor; `fused(backbone(...))` is the fast one.
            whitening: "full" covariance, that of each "stage" or per "channel".
            floor: Smallest variance the whitening divides by, relative to the mean variance.
            local: Side of the window each feature is averaged over, in positions of its own map; odd; 1: none.
            stride: Pixels a side of one position of `z`; None: that of the finest map.
            fold: Positions a side that a stage keeps in one of `z`, at most; where it is finer still they are means.
            light: What brings pictures to the same light before the backbone sees them; it learns first. None: nothing.

        Raises:
            ConfigError: a fold that does not divide the stride, or beside the full covariance, which mixes stages.
        """
        super().__init__()
        self.backbone = backbone
        self.stride = stride or min(backbone.strides)
        if self.stride % fold or (fold > 1 and whitening == "full"):
            raise ConfigError(
                f"codec.fold: {fold} should divide the stride {self.stride}, and keeps stages apart, which asks for "
                f"codec.whitening: stage or channel, not {whitening}."
            )
        self.folds = tuple(min(fold, max(1, self.stride // s)) for s in backbone.strides)
        self.coarse = tuple(max(1, s // self.stride) for s in backbone.strides)
        self.groups = tuple(c * f * f for c, f in zip(backbone.channels, self.folds, strict=True))
        self.whiten = Whiten(mode=whitening, floor=floor, groups=backbone.channels)
        self.local = local
        self.light = light
        self.channels = sum(self.groups)

    def learn(self, images: Iterable[Tensor]) -> None:
        """Learn the whitening from good pictures, in one pass and in constant memory.

        Args:
            images: Batches `[B, C, H, W]` in [0, 1]; one picture is enough.

        Raises:
            DataError: there is none, or a feature is not finite.
        """
        moments: ChannelMoments | None = None
        with torch.no_grad():
            for image in images:
                seen = self._moments(image)
                moments = seen if moments is None else moments + seen
        if moments is None:
            raise DataError("expected at least one good picture to learn the whitening from, got none")
        self.whiten.settle(moments)

    def encode(self, image: Tensor) -> Tensor:
        """The code `z [B, channels, ceil(H / stride), ceil(W / stride)]`: on normals, mean 0 and covariance 1.

        Raises:
            ConfigError: the whitening is not learnt yet.
            DataError: other than 1 or 3 channels.
        """
        return by_row(image, self._code)

    def features(self, image: Tensor) -> Tensor:
        """The features before whitening, `[B, channels, ceil(H / stride), ceil(W / stride)]`."""
        return by_row(image, self._features)

    def decode(self, z: Tensor) -> NoReturn:
        """Nothing: features cannot be painted.

        Raises:
            RefusalError: always.
        """
        raise RefusalError(
            "a feature codec paints nothing (paints=False): compare codes, or take a codec of pixels to see a picture"
        )

    def shrink(self, mask: Tensor) -> Tensor:
        """The mask `[B, 1, h, w]` of the positions known whole, their local mean's neighbours too.

        A feature looks further than its own cell, though weakly; that reach is not counted, for it would leave
        nothing known.
        """
        return whole_cells(mask, self.stride, reach=self.local // 2)

    def _code(self, image: Tensor) -> Tensor:
        if self.whiten.mode == "full":
            return self.whiten(self._features(image))
        return self._joined(self.whiten.each(self._maps(image)), image)

    def _features(self, image: Tensor) -> Tensor:
        return self._joined(self._maps(image), image)

    def _moments(self, image: Tensor) -> ChannelMoments:
        """What a batch teaches the whitening; where positions are folded, each stage by itself and at its own size."""
        if max(self.folds) == 1:
            return ChannelMoments.of(self.features(image))
        rows = [self._maps(row) for row in image.split(1)]
        stages = [ChannelMoments.of(torch.cat(maps)) for maps in zip(*rows, strict=True)]
        return ChannelMoments.apart(stages, count=len(image))

    def _maps(self, image: Tensor) -> list[Tensor]:
        """The stages' maps at their own size, none finer than what is kept of it."""
        maps = self.backbone(image if self.light is None else self.light(image))
        if self.local > 1:
            # Positions beyond the border are left out of the mean; counting them as zeros would darken every edge.
            maps = [F.avg_pool2d(m, self.local, 1, self.local // 2, count_include_pad=False) for m in maps]
        sizes = self._sizes(image)
        return [at_size(m, s) if m.shape[-2] > s[0] else m for m, s in zip(maps, sizes, strict=True)]

    def _sizes(self, image: Tensor) -> list[tuple[int, int]]:
        height, width = (-(-side // self.stride) for side in image.shape[-2:])
        return [(height * f, width * f) for f in self.folds]

    def _joined(self, maps: Sequence[Tensor], image: Tensor) -> Tensor:
        sized = [at_size(m, size) for m, size in zip(maps, self._sizes(image), strict=True)]
        parts = [m if f == 1 else F.pixel_unshuffle(m, f) for m, f in zip(sized, self.folds, strict=True)]
        return torch.cat(parts, dim=1)  # [B, channels, ceil(H / stride), ceil(W / stride)]


def at_size(z: Tensor, size: tuple[int, int]) -> Tensor:
    """The map `z` at `size`: averaged where that is smaller, interpolated linearly where it is larger."""
    if tuple(z.shape[-2:]) == size:
        return z
    if z.shape[-2] >= size[0] and z.shape[-1] >= size[1]:
        return F.adaptive_avg_pool2d(z, size)
    return F.interpolate(z, size=size, mode="bilinear", align_corners=False)
