"""A U-Net with its encoder of words or boxes: one network that reads them as they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anodiff.cond import Cond
from anodiff.errors import ConfigError
from anodiff.nets.boxes import BoxEncoder
from anodiff.nets.text import TextEncoder
from anodiff.nets.unet import UNet


class Reader(nn.Module):
    """`net(x, t, cond)` with `cond.tokens` made from `cond.words` or `cond.boxes` by an encoder.

    Called like the U-Net, and tells what the U-Net tells. The encoder learns through the U-Net's loss
    (arXiv:2112.10752, eq. 3: one objective for both).
    """

    def __init__(
        self, net: UNet, encoder: TextEncoder | BoxEncoder, field: Literal["words", "boxes"]
    ) -> None:
        """Store the two.

        Args:
            net: The U-Net, with the encoder's channels as its `token_channels`.
            encoder: What makes tokens and their mask of the field.
            field: The field of `Cond` it reads.

        Raises:
            ConfigError: the channels of the two differ, or there is no such field.
        """
        super().__init__()
        if field not in ("words", "boxes"):
            raise ConfigError(f"a reader reads words or boxes, got {field!r}")
        if net.token_channels != encoder.channels:
            raise ConfigError(
                f"the encoder makes tokens of {encoder.channels} channels, but the network reads such of "
                f"{net.token_channels}: build it with token_channels={encoder.channels}"
            )
        self.net = net
        self.encoder = encoder
        self.field = field

    @property
    def reads(self) -> frozenset[str]:
        """The fields of `Cond` that the U-Net was built for, with the encoder's in place of "tokens"."""
        return self.net.reads - {"tokens"} | {self.field}

    @property
    def classes(self) -> int | None:
        """The number of labels; None: labels are not read."""
        return self.net.classes

    @property
    def in_channels(self) -> int:
        """Channels of `x`, without those of `Cond.image`."""
        return self.net.in_channels

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return self.net.out_channels

    @property
    def cond_channels(self) -> int:
        """Channels of `Cond.image`; 0: it is not read."""
        return self.net.cond_channels

    @property
    def token_channels(self) -> int:
        """Channels of a token."""
        return self.net.token_channels

    @property
    def patch(self) -> int:
        """The side of the squares folded into channels."""
        return self.net.patch

    @property
    def stride(self) -> int:
        """The side of the input that one position of the deepest level stands for."""
        return self.net.stride

    @property
    def levels(self) -> int:
        """The U-Net's number of levels."""
        return self.net.levels

    @property
    def blocks(self) -> int:
        """The residual blocks a level on the way down."""
        return self.net.blocks

    @property
    def embed(self) -> int:
        """The length of the embedding of time and label, and of a style."""
        return self.net.embed

    @property
    def places(self) -> tuple[str, ...]:
        """The names of the U-Net's attention layers, in the order they run; an edit is told one of them."""
        return self.net.places

    @property
    def last(self) -> nn.Conv2d:
        """The U-Net's output convolution."""
        return self.net.last

    def read(self, cond: Cond) -> Cond:
        """`cond` with its tokens and their mask; as it is where it has tokens already, or nothing to read.

        A walk over many noise levels reads once and hands on what comes back. A `token_mask` that `cond` brings
        without tokens takes words or boxes out: they are encoded, and then not looked at. Gains, edits and `keep`
        stay; a token of the encoder's own, after those told, has no gain, and is real as long as another is.

        Raises:
            ConfigError: the encoder does not know what it was given.
        """
        found = getattr(cond, self.field)
        if cond.tokens is not None or found is None:
            return cond
        tokens, mask = self.encoder(found)  # [B, L, token_channels], [B, L]
        told, own = found.shape[1], tokens.shape[1] - found.shape[1]
        if cond.token_mask is not None:
            kept = mask[:, :told] & cond.token_mask.to(mask.device)
            mask = torch.cat([kept, mask[:, told:] & kept.any(dim=1, keepdim=True)], dim=1)
        gain = cond.token_gain
        if gain is not None and own:
            gain = F.pad(gain, (0, own), value=1.0)
        boxes = self.encoder.places(found) if isinstance(self.encoder, BoxEncoder) else None
        return replace(cond, tokens=tokens, token_mask=mask, token_gain=gain, token_boxes=boxes)

    def forward(
        self, x: Tensor, t: Tensor, cond: Cond | None = None, *, style: Tensor | None = None
    ) -> Tensor:
        """The prediction `[B, out_channels, H, W]`.

        Args:
            x: `[B, in_channels, H, W]`.
            t: `[B]` times, or one for all.
            cond: The conditions; without tokens and without the encoder's field, and in a row that has `keep` False
                or no word or box at all, the U-Net's learned null stands for the tokens.
            style: As the U-Net takes it.

        Raises:
            ConfigError: what the encoder or the U-Net is given does not fit.
        """
        return self.net(x, t, None if cond is None else self.read(cond), style=style)
