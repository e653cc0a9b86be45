"""The classifier: a tensor and a time in, one number a class out."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from anodiff.cond import Cond
from anodiff.errors import ConfigError
from anodiff.nets.attention import Seam, heads_for
from anodiff.nets.blocks import halved
from anodiff.nets.embed import TimeEmbedding
from anodiff.nets.encoder import Encoder
from anodiff.nets.fold import folded
from anodiff.nets.layout import Layout, Resample
from anodiff.nets.pool import AdaptivePool, AttentionPool, Pooling, SpatialPool


class Classifier(nn.Module):
    """The down half of a U-Net with a pooling on top, which tells classes apart at any time `t`.

    Source: Dhariwal & Nichol, arXiv:2105.05233, section 4; appendix I has the published sizes (width 128, attention
    at 32, 16 and 8, residual downsampling, attention pooling).
    """

    reads: frozenset[str] = frozenset()
    """The fields of `Cond` it reads: none, for the label is what it is asked for."""

    def __init__(
        self,
        *,
        in_channels: int,
        classes: int,
        width: int,
        multipliers: Sequence[float],
        blocks: int,
        attention: Sequence[int],
        heads: int | None = None,
        head_channels: int = 64,
        resample: Resample = "residual",
        pool: Pooling = "attention",
        size: tuple[int, int],
        patch: int = 1,
        groups: int = 32,
        dropout: float = 0.0,
    ) -> None:
        """Build the layers.

        Args:
            in_channels: Of `x`.
            classes: Number of labels, at least 2.
            width: Channels of the first level.
            multipliers: One a level; level `i` has `round(width * multipliers[i])` channels at `1 / (patch * 2^i)`
                of the input's size.
            blocks: Residual blocks a level.
            attention: Indices of the levels with attention, 0 the finest; the middle follows the last level.
            heads: Attention heads; None: as many as leave `head_channels` to each.
            head_channels: Channels a head, where `heads` is None.
            resample: What changes the size, see `UNet`.
            pool: "attention", one query over the last map; "adaptive", its mean; "spatial", the means of all maps.
            size: Height and width of `x`. Attention pooling knows positions and takes no other.
            patch: Side of the squares folded into channels at the input.
            groups: Upper bound of the groups of a normalisation (the largest divisor below it is taken).
            dropout: Share of the activations dropped before the last convolution of a block.

        Raises:
            ConfigError: these do not make a network.
        """
        super().__init__()
        if classes < 2:
            raise ConfigError(f"a classifier tells at least 2 classes apart, got classes={classes}")
        if min(size) < 1:
            raise ConfigError(f"size must be the height and width of what comes in, got {size}")
        layout = Layout(
            width=width,
            multipliers=tuple(multipliers),
            blocks=blocks,
            attention=tuple(attention),
            heads=heads,
            head_channels=head_channels,
            dropout=dropout,
            groups=groups,
            resample=resample,
        )
        self.in_channels = in_channels
        self.classes = classes
        self.size = (size[0], size[1])
        self.patch = patch
        self.levels = layout.levels
        self.time = TimeEmbedding(width, layout.embed)
        self.encoder = Encoder(in_channels * patch**2, layout)
        channels = self.encoder.channels
        match pool:
            case "attention":
                n = heads_for(channels, heads=heads, head_channels=head_channels)
                if channels % n:
                    raise ConfigError(
                        f"heads={n} must divide the {channels} channels of the pooling: change either"
                    )
                self.pool = AttentionPool(channels, classes, size=self._deepest(), heads=n, groups=groups)
            case "adaptive":
                self.pool = AdaptivePool(channels, classes, groups=groups)
            case "spatial":
                self.pool = SpatialPool((*self.encoder.widths, channels), classes)
            case _:
                raise ConfigError(f"pool must be one of attention, adaptive, spatial, got {pool!r}")

    @property
    def stride(self) -> int:
        """The side of the input that one position of the deepest level stands for, `patch * 2^(levels - 1)`."""
        return self.patch * 2 ** (self.levels - 1)

    def forward(self, x: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
        """The logits `[B, classes]`.

        Args:
            x: `[B, in_channels, H, W]`.
            t: `[B]` times, or one for all.
            cond: Not read: the label is what the classifier is asked for.

        Raises:
            ConfigError: the channels of `x` do not fit, or its size where the pooling knows positions.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ConfigError(
                f"expected x of shape [B, {self.in_channels}, H, W], got {list(x.shape)}: "
                "the classifier and the codec must have the same number of channels"
            )
        if isinstance(self.pool, AttentionPool) and x.shape[-2:] != self.size:
            raise ConfigError(
                f"this classifier was built for rows of {self.size[0]} x {self.size[1]}, got "
                f"{x.shape[-2]} x {x.shape[-1]}: attention pooling knows positions; bring the input to that size, "
                "or build it with pool='adaptive' or 'spatial'"
            )
        t = t.to(x.device).expand(x.shape[0])
        embed = F.silu(self.time(t))  # every block needs it so
        h, maps = self.encoder(folded(x, self.patch), embed, Seam(t=t))
        return self.pool([*maps, h])

    def _deepest(self) -> tuple[int, int]:
        size = -(-self.size[0] // self.patch), -(-self.size[1] // self.patch)
        for _ in range(self.levels - 1):
            size = halved(size)
        return size
