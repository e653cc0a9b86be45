"""The autoencoder of latent diffusion: pictures to small maps of codes, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anodiff.errors import ConfigError, DataError
from anodiff.nets.attention import AttentionBlock, Seam
from anodiff.nets.blocks import joined
from anodiff.nets.codebook import Codebook
from anodiff.nets.conv import Pointwise, enlarged
from anodiff.nets.norm import group_norm, silu
from anodiff.noise import NoiseSource

Form = Literal["kl", "vq"]
"""What keeps codes in bounds: a weak pull to N(0, 1), or a codebook."""

LOG_VARIANCE = (-30.0, 20.0)
"""Bounds of the logarithm of a code's variance: `exp` of it and its inverse stay finite."""


@dataclass(frozen=True, eq=False)
class Code:
    """What pictures became in training."""

    z: Tensor
    """[B, c, h, w] what the decoder is given, with gradient: a draw (KL), or the nearest codes, passed through (VQ)."""
    penalty: Tensor
    """[B] KL: the divergence of `N(mean, var)` from `N(0, I)` in nats, `1/2 sum (mean^2 + var - 1 - ln var)` over c, h
    and w; the paper's weight of 1e-6 is for this sum. VQ: the loss of `Codebook`, a mean over c, h and w."""
    index: Tensor | None = None
    """[B, h, w] int64 the codes that were chosen; None: KL."""


def norm(channels: int, *, groups: int, eps: float) -> nn.Module:
    """The group norm of so many channels, or nothing where `groups` is 0."""
    return group_norm(channels, groups=groups, eps=eps) if groups else nn.Identity()


def activated(norm: nn.Module, h: Tensor) -> Tensor:
    """`silu(norm(h))`, which leaves `h` as it is."""
    return F.silu(h) if isinstance(norm, nn.Identity) else silu(norm(h))  # `silu` may write over its input


class Block(nn.Module):
    """A residual block without a time: `skip(h) + conv(silu(gn(conv(silu(gn(h))))))`."""

    def __init__(self, inputs: int, outputs: int, *, groups: int, eps: float) -> None:
        super().__init__()
        self.norm = norm(inputs, groups=groups, eps=eps)
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = norm(outputs, groups=groups, eps=eps)
        self.last = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Identity() if inputs == outputs else Pointwise(inputs, outputs)

    def forward(self, h: Tensor) -> Tensor:
        """The map [B, outputs, H, W] of `h [B, inputs, H, W]`."""
        y = self.conv(activated(self.norm, h))
        y = self.last(activated(self.second, y))
        return joined(self.skip(h), y, rescale=False)


class Middle(nn.Module):
    """A block, attention of one head over all places where asked for, and a block."""

    def __init__(self, channels: int, *, attention: bool, groups: int, eps: float) -> None:
        super().__init__()
        self.first = Block(channels, channels, groups=groups, eps=eps)
        self.attention = (
            AttentionBlock(channels, heads=1, place="mid", groups=groups or 32, eps=eps)
            if attention
            else None
        )
        self.second = Block(channels, channels, groups=groups, eps=eps)

    def forward(self, h: Tensor) -> Tensor:
        """The map, shaped as `h [B, C, H, W]`."""
        h = self.first(h)
        if self.attention is not None:
            h = self.attention(h, Seam())
        return self.second(h)


@dataclass(frozen=True, kw_only=True)
class Levels:
    """What encoder and decoder share; `Autoencoder` tells what each means."""

    widths: Sequence[int]  # channels of each level, the finest first
    blocks: int
    attention: bool
    groups: int
    eps: float
    shortcuts: bool

    def block(self, inputs: int, outputs: int) -> Block:
        """A residual block."""
        return Block(inputs, outputs, groups=self.groups, eps=self.eps)

    def middle(self) -> Middle:
        """What stands at the coarsest level."""
        return Middle(self.widths[-1], attention=self.attention, groups=self.groups, eps=self.eps)

    def norm(self, channels: int) -> nn.Module:
        """The last norm of a network."""
        return norm(channels, groups=self.groups, eps=self.eps)


class Down(nn.Module):
    """The encoder: each level's blocks, then a strided convolution that sees zeros on the right and below alone."""

    def __init__(self, inputs: int, outputs: int, levels: Levels) -> None:
        super().__init__()
        widths = levels.widths
        self.shortcuts = levels.shortcuts
        self.stem = nn.Conv2d(inputs, widths[0], 3, padding=1)
        self.levels = nn.ModuleList()
        self.shrink = nn.ModuleList()
        channels = widths[0]
        for i, width in enumerate(widths):
            level = nn.Sequential()
            for _ in range(levels.blocks):
                level.append(levels.block(channels, width))
                channels = width
            self.levels.append(level)
            if i < len(widths) - 1:
                self.shrink.append(nn.Conv2d(channels, channels, 3, stride=2))
        self.middle = levels.middle()
        self.norm = levels.norm(channels)
        self.last = nn.Conv2d(channels, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """The map [B, outputs, H / stride, W / stride] of `x [B, inputs, H, W]`."""
        h = self.stem(x)
        for i, level in enumerate(self.levels):
            h = level(h)
            if i < len(self.shrink):
                y = self.shrink[i](F.pad(h, (0, 1, 0, 1)))
                h = y + F.avg_pool2d(h, 2) if self.shortcuts else y
        return self.last(activated(self.norm, self.middle(h)))


class Up(nn.Module):
    """The decoder: the encoder's mirror, with one block more a level, and nearest neighbours then a convolution."""

    def __init__(self, inputs: int, outputs: int, levels: Levels) -> None:
        super().__init__()
        widths = levels.widths
        self.shortcuts = levels.shortcuts
        channels = widths[-1]
        self.stem = nn.Conv2d(inputs, channels, 3, padding=1)
        self.middle = levels.middle()
        self.levels = nn.ModuleList()
        self.grow = nn.ModuleList()
        for i, width in enumerate(reversed(widths)):
            level = nn.Sequential()
            for _ in range(levels.blocks + 1):
                level.append(levels.block(channels, width))
                channels = width
            self.levels.append(level)
            if i < len(widths) - 1:
                self.grow.append(nn.Conv2d(channels, channels, 3, padding=1))
        self.norm = levels.norm(channels)
        self.last = nn.Conv2d(channels, outputs, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """The map [B, outputs, h stride, w stride] of `z [B, inputs, h, w]`."""
        h = self.middle(self.stem(z))
        for i, level in enumerate(self.levels):
            h = level(h)
            if i < len(self.grow):
                conv = self.grow[i]
                assert isinstance(conv, nn.Conv2d)
                y = enlarged(h, conv, (2 * h.shape[-2], 2 * h.shape[-1]))
                h = y + F.interpolate(h, scale_factor=2.0, mode="nearest") if self.shortcuts else y
        return self.last(activated(self.norm, h))


class Bypass(nn.Module):
    """A linear path around both networks: the mean colour of a position to its codes, and the codes to a colour.

    It begins with channel k of the picture in channel k of the codes, and back, so that an untrained autoencoder
    paints the picture blurred; both maps are trained with the rest.
    """

    def __init__(self, image_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.to_code = Pointwise(image_channels, channels)
        self.to_image = Pointwise(channels, image_channels)
        for path in (self.to_code, self.to_image):
            nn.init.dirac_(path.weight)  # channel k to channel k
            assert path.bias is not None
            nn.init.zeros_(path.bias)

    def code(self, x: Tensor) -> Tensor:
        """What pictures [B, C, H, W] add to their codes, [B, c, H / stride, W / stride]."""
        return self.to_code(F.avg_pool2d(x, self.stride))

    def image(self, z: Tensor) -> Tensor:
        """What codes [B, c, h, w] add to their pictures, [B, C, h stride, w stride]."""
        scale = float(self.stride)
        return F.interpolate(self.to_image(z), scale_factor=scale, mode="bilinear", align_corners=False)


class Autoencoder(nn.Module):
    """Pictures to codes and back, as in Stable Diffusion, so that published weights fit (arXiv:2112.10752, app. G).

    Encoder, a 1 x 1 convolution, a normal distribution ("kl") or a codebook ("vq"), a 1 x 1 convolution, decoder. Level
    `i` has `round(width * multipliers[i])` channels at `1 / 2^i` of the side. Codes are as the network has them: scale
    and shift belong to the codec.

    With a codebook, what `encode` gives comes before it and what `decode` takes goes through it: the codebook belongs
    to the decoder, and a denoiser models a smooth quantity (section 3.1: "absorbed by the decoder").

    With `shortcuts` each halving adds the mean of the four positions that it joins, each doubling the position that it
    divides (residual autoencoding without parameters, arXiv:2410.10733 section 3.2), and colours have a linear path of
    their own (`Bypass`): what a short training otherwise loses last, a faint tint, is there from its first step.
    """

    def __init__(
        self,
        *,
        image_channels: int,
        channels: int,
        width: int,
        multipliers: Sequence[float],
        blocks: int = 1,
        attention: bool = False,
        form: Form = "kl",
        codes: int = 512,
        commitment: float = 0.25,
        groups: int = 32,
        eps: float = 1e-6,
        shortcuts: bool = False,
    ) -> None:
        """Build the layers.

        Args:
            image_channels: Of the pictures.
            channels: Of the codes.
            width: Channels of the first level.
            multipliers: One a level, the finest first; each level but the last halves the side.
            blocks: Residual blocks a level of the encoder; the decoder has one more.
            attention: Whether both middles have attention.
            form: "kl" or "vq".
            codes: Size of the codebook; read by "vq" alone.
            commitment: Of the codebook; read by "vq" alone.
            groups: Upper bound of the groups of a normalisation (the largest divisor below it is taken); 0: none
                outside attention, so that brightness passes, which a short training else never brings back.
            eps: Added to the variances of the group norms.
            shortcuts: Whether halvings, doublings and both networks have a path around them; published ones have none.

        Raises:
            ConfigError: these do not make an autoencoder.
        """
        super().__init__()
        if form not in ("kl", "vq"):
            raise ConfigError(f"form of an autoencoder must be kl or vq, got {form!r}")
        if min(image_channels, channels, width, blocks) < 1:
            raise ConfigError(
                "an autoencoder needs image_channels, channels, width and blocks of 1 or more, got "
                f"{image_channels}, {channels}, {width} and {blocks}"
            )
        if not multipliers or min(multipliers) <= 0:
            raise ConfigError(
                f"an autoencoder needs a multiplier above 0 for each level, got {list(multipliers)}"
            )
        self.image_channels = image_channels
        self.channels = channels
        self.form: Form = form
        self.stride = 2 ** (len(multipliers) - 1)
        widths = [max(1, round(width * m)) for m in multipliers]
        moments = channels if form == "vq" else 2 * channels  # mean and log-variance
        levels = Levels(
            widths=widths, blocks=blocks, attention=attention, groups=groups, eps=eps, shortcuts=shortcuts
        )
        self.encoder = Down(image_channels, moments, levels)
        self.quant = Pointwise(moments, moments)
        self.codebook = Codebook(codes, channels, commitment) if form == "vq" else None
        self.unquant = Pointwise(channels, channels)
        self.decoder = Up(channels, image_channels, levels)
        self.bypass = Bypass(image_channels, channels, self.stride) if shortcuts else None

    @property
    def last(self) -> nn.Parameter:
        """The last weight of the decoder, where a trainer measures how strongly each part of its loss pulls."""
        return cast("nn.Parameter", self.decoder.last.weight)

    def code(self, x: Tensor, noise: NoiseSource) -> Code:
        """What pictures become in training.

        KL: `z = mean + exp(ln var / 2) n`, with `ln var` held within [-30, 20]; VQ: the nearest codes, which are
        counted, and `noise` is not called.

        Args:
            x: pictures [B, C, H, W] in [-1, 1].
            noise: where `n` comes from.

        Raises:
            DataError: as `encode`.
        """
        h = self._moments(x)
        if self.codebook is not None:
            z, penalty, index = self.codebook(h)
            return Code(z, penalty, index)
        mean, log_var = h.chunk(2, dim=1)  # [B, c, h, w] each
        log_var = log_var.clamp(*LOG_VARIANCE)
        z = mean + (0.5 * log_var).exp() * noise(mean)
        mean, log_var = (v.to(torch.promote_types(v.dtype, torch.float32)) for v in (mean, log_var))
        divergence = 0.5 * (mean.square() + log_var.exp() - 1 - log_var)
        return Code(z, divergence.flatten(1).sum(dim=1))

    def encode(self, x: Tensor) -> Tensor:
        """The codes [B, c, H / stride, W / stride] without chance: the mean (KL), or what the codebook is given (VQ).

        Args:
            x: pictures [B, C, H, W] in [-1, 1], sides multiples of `stride`.

        Raises:
            DataError: other channels than promised, or a side that is no multiple of `stride`.
        """
        return self._moments(x)[:, : self.channels]

    def decode(self, z: Tensor) -> Tensor:
        """The pictures [B, C, h stride, w stride] of codes `z [B, c, h, w]`, nominally in [-1, 1]; VQ: of the nearest.

        With a codebook the gradient passes to `z` as if it had not been replaced.

        Raises:
            DataError: other channels than promised.
        """
        if z.ndim != 4 or z.shape[1] != self.channels:
            raise DataError(
                f"expected codes [B, {self.channels}, h, w], got {list(z.shape)}: these are of another autoencoder"
            )
        if self.codebook is not None:
            z = self.codebook.quantised(z)
        y = self.decoder(self.unquant(z))
        return y if self.bypass is None else y + self.bypass.image(z)

    def forward(self, x: Tensor) -> Tensor:
        """`decode(encode(x))`, [B, C, H, W] for pictures in [-1, 1]."""
        return self.decode(self.encode(x))

    def _moments(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.image_channels:
            raise DataError(
                f"expected pictures [B, {self.image_channels}, H, W], got {list(x.shape)}: "
                "convert them, or build the autoencoder for their number of channels"
            )
        height, width = x.shape[-2:]
        if height % self.stride or width % self.stride or not height or not width:
            raise DataError(
                f"expected sides that are multiples of {self.stride} pixels, got {height} x {width}: "
                "resize or pad the pictures to such a size, or take an autoencoder of a smaller stride"
            )
        h = self.quant(self.encoder(x))
        if self.bypass is None:
            return h
        code = self.bypass.code(x)
        return torch.cat([h[:, : self.channels] + code, h[:, self.channels :]], dim=1)
