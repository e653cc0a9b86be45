"""The U-Net: a tensor and a time in, a tensor of the same size out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anodiff.cond import Cond
from anodiff.errors import ConfigError
from anodiff.nets.attention import Attention, Seam
from anodiff.nets.blocks import Modulation, Pad
from anodiff.nets.embed import LabelEmbedding, TimeEmbedding, or_null
from anodiff.nets.encoder import Encoder
from anodiff.nets.fold import folded, unfolded
from anodiff.nets.layout import Layout, Resample
from anodiff.nets.norm import group_norm, silu


class UNet(nn.Module):
    """A convolutional U-Net with residual blocks and attention at chosen levels, each change of ADM's a switch.

    Any height and width: odd sides are halved upwards and restored to the size of the map they are joined with, and
    with a space-to-depth stem the input is extended by its own edge to a multiple of `patch` and the output cropped.
    The output convolution starts at zero. Works in either memory format; `channels_last` is the faster on a CPU.
    Sources: Ho et al., arXiv:2006.11239, appendix B; Dhariwal & Nichol, arXiv:2105.05233, section 3.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        width: int,
        multipliers: Sequence[float] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (),
        heads: int | None = None,
        head_channels: int = 64,
        classes: int | None = None,
        cond_channels: int = 0,
        token_channels: int = 0,
        dropout: float = 0.0,
        patch: int = 1,
        groups: int = 32,
        modulation: Modulation = "adagn",
        resample: Resample = "conv",
        rescale: bool = False,
        mid_attention: bool | None = None,
        eps: float = 1e-5,
        frequency_shift: float = 0.0,
        pad: Pad = "both",
        transformer: int = 0,
        positions: bool = False,
        edge: int = 3,
    ) -> None:
        """Build the layers.

        Args:
            in_channels: Of `x`, without those of `Cond.image`.
            out_channels: Of the output.
            width: Channels of the first level.
            multipliers: One a level; level `i` has `round(width * multipliers[i])` channels at `1 / (patch * 2^i)`
                of the input's size.
            blocks: Residual blocks a level on the way down; one more on the way up.
            attention: Indices of the levels with attention, 0 the finest.
            heads: Attention heads; None: as many as leave `head_channels` to each.
            head_channels: Channels a head, where `heads` is None.
            classes: Number of labels; None: labels are not read.
            cond_channels: Channels of `Cond.image`, concatenated to `x`; 0: not read.
            token_channels: Channels of `Cond.tokens`, read by cross-attention where there is attention; 0: not read.
            dropout: Share of the activations dropped before the last convolution of a block.
            patch: Side of the squares folded into channels at the input and unfolded at the output.
            groups: Upper bound of the groups of a normalisation (the largest divisor below it is taken).
            modulation: How time and label enter a block: "adagn" scales and shifts its second norm, "add" is added
                before it (DDPM).
            resample: What changes the size: "conv", a convolution (strided, or after nearest neighbours);
                "residual", a residual block with a mean or nearest neighbours in both branches (BigGAN); or "fir",
                such a block with the filter [1, 3, 3, 1] in their place (StyleGAN2).
            rescale: Whether what a residual connection adds up is divided by `sqrt(2)`.
            mid_attention: Whether the middle has attention; None: where the last level has.
            eps: Added to the variances of the group norms.
            frequency_shift: Of the sinusoids of the time, see `sinusoidal`.
            pad: Where the strided convolutions see zeros: "both" sides, or "after", right and below alone, as
                networks that came from TensorFlow do.
            transformer: Blocks of the `SpatialTransformer` that stands where there is attention (arXiv:2112.10752);
                0: attention alone.
            positions: Whether these are told where each position of their map lies.
            edge: Side of the kernels of the first and the last convolution, 3 or 1; they take most of the time where
                codes have many channels.

        Raises:
            ConfigError: these do not make a network.
        """
        super().__init__()
        layout = Layout(
            width=width,
            multipliers=tuple(multipliers),
            blocks=blocks,
            attention=tuple(attention),
            heads=heads,
            head_channels=head_channels,
            token_channels=token_channels,
            dropout=dropout,
            groups=groups,
            eps=eps,
            modulation=modulation,
            resample=resample,
            rescale=rescale,
            mid_attention=mid_attention,
            pad=pad,
            transformer=transformer,
            positions=positions,
            edge=edge,
        )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.classes = classes or None
        self.cond_channels = cond_channels
        self.token_channels = token_channels
        self.patch = patch
        self.levels = layout.levels
        self.blocks = blocks
        self.embed = layout.embed  # the length of the embedding of time and label, and of a style

        self.time = TimeEmbedding(width, layout.embed, shift=frequency_shift)
        self.label = LabelEmbedding(classes, layout.embed) if classes else None
        self.null_image = nn.Parameter(torch.zeros(1, cond_channels, 1, 1)) if cond_channels else None
        self.null_token = nn.Parameter(torch.randn(1, 1, token_channels)) if token_channels else None
        self.encoder = Encoder((in_channels + cond_channels) * patch**2, layout)
        self.up = nn.ModuleList()
        self.grow = nn.ModuleList()
        channels = self.encoder.channels
        skips = list(self.encoder.widths)
        for i, outputs in reversed(list(enumerate(layout.widths))):
            for j in range(blocks + 1):
                self.up.append(layout.stage(channels + skips.pop(), outputs, i, f"up.{i}.{j}"))
                channels = outputs
            if i:
                self.grow.append(layout.larger(channels))
        self.norm = group_norm(channels, groups=groups, eps=eps)
        self.last = nn.Conv2d(channels, out_channels * patch**2, edge, padding=edge // 2)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # pyright: ignore[reportArgumentType]

    @property
    def stride(self) -> int:
        """The side of the input that one position of the deepest level stands for, `patch * 2^(levels - 1)`."""
        return self.patch * 2 ** (self.levels - 1)

    @property
    def reads(self) -> frozenset[str]:
        """The fields of `Cond` it was built for, of "label", "tokens" and "image"."""
        built = {"label": self.label, "tokens": self.null_token, "image": self.null_image}
        return frozenset(name for name, part in built.items() if part is not None)

    @property
    def places(self) -> tuple[str, ...]:
        """The names of the attention layers, in the order they run; an edit is told one of them."""
        return tuple(m.place for m in self.modules() if isinstance(m, Attention))

    def forward(
        self, x: Tensor, t: Tensor, cond: Cond | None = None, *, style: Tensor | None = None
    ) -> Tensor:
        """The prediction `[B, out_channels, H, W]`.

        Args:
            x: `[B, in_channels, H, W]`.
            t: `[B]` times, or one for all.
            cond: The conditions; those the network was not built for are ignored, those it was built for and that
                are absent, or whose row has `keep` False, are the learned null.
            style: `[B, embed]`, added to the embedding of time and label before its SiLU; None: nothing is.

        Raises:
            ConfigError: the channels of `x` or `Cond.image`, the size of the latter, the labels, or the shape of
                `style`, the tokens, their mask or their gain do not fit.
        """
        cond = cond or Cond()
        h = folded(self._joined(x, cond), self.patch)  # [B, c, ceil(H / patch), ceil(W / patch)]
        b, _, height, width = x.shape
        t = t.to(x.device).expand(b)
        embed = self.time(t)
        if self.label is not None:
            embed = embed + self.label(cond.label, cond.keep, batch=b)
        if style is not None:
            if style.shape != embed.shape:
                raise ConfigError(
                    f"expected a style of shape {list(embed.shape)}, got {list(style.shape)}: "
                    "one vector a row, as long as the network's embedding"
                )
            embed = embed + style
        embed = F.silu(embed)  # every block needs it so
        seam = self._seam(t, cond)

        h, skips = self.encoder(h, embed, seam)
        for i in range(self.levels):
            for j in range(self.blocks + 1):
                h = self.up[i * (self.blocks + 1) + j](torch.cat([h, skips.pop()], dim=1), embed, seam)
            if i < self.levels - 1:
                h = self.grow[i](h, embed, (skips[-1].shape[-2], skips[-1].shape[-1]))
        h = self.last(silu(self.norm(h)))
        return unfolded(h, self.patch, (height, width))

    def _joined(self, x: Tensor, cond: Cond) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ConfigError(
                f"expected x of shape [B, {self.in_channels}, H, W], got {list(x.shape)}: "
                "the network and the codec must have the same number of channels"
            )
        if self.null_image is None:
            return x
        shape = (x.shape[0], self.cond_channels, *x.shape[-2:])
        if cond.image is None:
            image = self.null_image.expand(shape)
        else:
            if cond.image.shape != shape:
                raise ConfigError(
                    f"expected Cond.image of shape {list(shape)}, got {list(cond.image.shape)}: "
                    "bring it to the size of x, and build the network with its number of channels"
                )
            image = or_null(cond.image.to(x.dtype), self.null_image, cond.keep)
        return torch.cat([x, image], dim=1)  # [B, in_channels + cond_channels, H, W]

    def _seam(self, t: Tensor, cond: Cond) -> Seam:
        if self.null_token is None:
            return Seam(edit=cond.edit, t=t)
        if cond.tokens is not None:
            self._check_tokens(cond.tokens, cond, t.shape[0])
        if cond.tokens is None or not cond.tokens.shape[1]:
            return Seam(tokens=self.null_token.expand(t.shape[0], -1, -1), edit=cond.edit, t=t)
        # A row without any real token has no condition either, and a softmax over nothing is not a number.
        keep, mask, gain = cond.keep, cond.token_mask, cond.token_gain
        if mask is not None:
            some = mask.any(dim=1)  # [B]
            keep = some if keep is None else keep & some
            mask = or_null(mask, mask.new_ones(1, 1), keep)
        if gain is not None:
            gain = or_null(
                gain, gain.new_ones(1, 1), keep
            )  # words that are not looked at have no weight to change
        tokens = or_null(cond.tokens.to(self.null_token.dtype), self.null_token, keep)  # [B, L, D]
        return Seam(
            tokens=tokens,
            token_mask=mask,
            token_gain=gain,
            token_boxes=cond.token_boxes,
            edit=cond.edit,
            t=t,
        )

    def _check_tokens(self, tokens: Tensor, cond: Cond, batch: int) -> None:
        if tokens.ndim != 3 or (tokens.shape[0], tokens.shape[2]) != (batch, self.token_channels):
            raise ConfigError(
                f"expected Cond.tokens of shape [{batch}, L, {self.token_channels}], got {list(tokens.shape)}: "
                "encode the text or layout of each row with the encoder that the network was trained with"
            )
        for name, value in (("token_mask", cond.token_mask), ("token_gain", cond.token_gain)):
            if value is not None and value.shape != tokens.shape[:2]:
                raise ConfigError(
                    f"expected Cond.{name} of shape {list(tokens.shape[:2])}, one number a token, "
                    f"got {list(value.shape)}"
                )
