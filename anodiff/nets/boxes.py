"""Boxes with classes as tokens: the layout encoder that is trained with the model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anodiff.errors import ConfigError
from anodiff.nets.embed import OCTAVES, fourier
from anodiff.nets.place import REST
from anodiff.nets.sequence import SequenceEncoder


class BoxEncoder(nn.Module):
    """The boxes of a picture as tokens for cross-attention, one a box, and one for the ground between them.

    `tokens = encoder(class[c] + mlp(fourier(left, top, right, bottom)), ground)`. Boxes have no order, and the encoder
    is told none: other orders give the same tokens in that order. The ground is a learned vector, the last token. What
    a position attends to sums to one: without a ground, a position outside of a picture's only box would have nothing
    else to look at than that box, and be told the same as one inside.

    The paper (arXiv:2112.10752, section 4.3.1, after arXiv:2002.11886) rounds a box's corners to a grid and learns a
    vector for each of its positions. Sinusoids are taken in their place, as in arXiv:2301.07093, eq. 3: boxes of few
    pictures would leave most positions of such a grid unlearnt, near corners get near vectors, and none is rounded.
    """

    def __init__(self, classes: int, channels: int, depth: int = 1, heads: int = 4) -> None:
        """Build the layers.

        Args:
            classes: Number of classes.
            channels: Of a token.
            depth: Layers of the transformer.
            heads: Of each; they divide the channels.

        Raises:
            ConfigError: a number is too small, or the heads do not divide the channels.
        """
        super().__init__()
        if classes < 1:
            raise ConfigError(f"a box encoder needs a class, got classes={classes}: give at least 1")
        self.classes = classes
        self.channels = channels
        self.kind = nn.Embedding(classes, channels)
        self.mlp = nn.Sequential(
            nn.Linear(4 * 2 * OCTAVES, channels), nn.SiLU(), nn.Linear(channels, channels)
        )
        self.ground = nn.Parameter(torch.randn(1, 1, channels))
        self.encoder = SequenceEncoder(channels, depth=depth, heads=heads)

    def forward(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens `[B, N + 1, channels]` and the mask `[B, N + 1]`, True where a box is; the last where any is.

        A row's tokens depend on its own boxes alone, however many empty places stand beside them.

        Args:
            boxes: `[B, N, 5]` class, left, top, right, bottom, the last four in [0, 1] of the picture's sides; class
                -1 = no box there, whatever the other numbers are.

        Raises:
            ConfigError: the shape is another, or (on the CPU, where looking is free) a class or a side is out of its
                range.
        """
        self._check(boxes)
        boxes = boxes.to(self.kind.weight.device)
        mask = boxes[..., 0] >= 0  # [B, N]
        index = boxes[..., 0].long().clamp(min=0)  # [B, N]
        sides = boxes[..., 1:].masked_fill(~mask[..., None], 0.0)  # an empty place may hold what is no number
        waves = fourier(sides).flatten(-2).to(self.kind.weight.dtype)  # [B, N, 4 * 2 * OCTAVES]
        told = torch.cat([self.kind(index) + self.mlp(waves), self.ground.expand(len(boxes), 1, -1)], dim=1)
        mask = torch.cat([mask, mask.any(dim=1, keepdim=True)], dim=1)
        return self.encoder(told, mask), mask

    def places(self, boxes: Tensor) -> Tensor:
        """Where each token belongs, `[B, N + 1, 4]`: the sides of the boxes, and last `REST`."""
        sides = boxes[..., 1:].to(self.kind.weight.device)
        return torch.cat([sides, sides.new_tensor(REST).expand(len(sides), 1, -1)], dim=1)

    def _check(self, boxes: Tensor) -> None:
        if boxes.ndim != 3 or boxes.shape[-1] != 5:
            raise ConfigError(
                f"expected boxes of shape [B, N, 5] (class, left, top, right, bottom), got {list(boxes.shape)}"
            )
        if boxes.device.type != "cpu":
            return
        kind = boxes[..., 0]
        known = (kind == -1) | ((kind >= 0) & (kind < self.classes) & (kind == kind.floor()))
        if bad := kind[~known].tolist():
            raise ConfigError(
                f"this box encoder knows the classes 0 to {self.classes - 1}, and -1 for no box, got {bad[0]:g}"
            )
        sides = boxes[kind >= 0][:, 1:]
        if bad := sides[~((sides >= 0) & (sides <= 1))].tolist():
            raise ConfigError(
                f"expected the sides of a box in [0, 1], as shares of the picture's, got {bad[0]:g}: "
                "divide left and right by the width, top and bottom by the height"
            )
