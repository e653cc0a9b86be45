"""The down half of a U-Net."""

from __future__ import annotations

from torch import Tensor, nn

from anodiff.nets.attention import Seam
from anodiff.nets.blocks import halved
from anodiff.nets.layout import Layout


class Encoder(nn.Module):
    """Stem, stages, changes of size and middle: what a U-Net and a classifier of noisy inputs share.

    Source: Dhariwal & Nichol, arXiv:2105.05233, section 4: the classifier is the downsampling trunk of the U-Net.
    """

    def __init__(self, inputs: int, layout: Layout) -> None:
        """Build the layers.

        Args:
            inputs: Channels of the map that comes in.
            layout: Which blocks stand on which level.
        """
        super().__init__()
        self.levels = layout.levels
        self.blocks = layout.blocks
        self.stem = nn.Conv2d(inputs, layout.widths[0], layout.edge, padding=layout.edge // 2)
        self.down = nn.ModuleList()
        self.shrink = nn.ModuleList()
        channels = layout.widths[0]
        widths = [channels]
        for i, outputs in enumerate(layout.widths):
            for j in range(layout.blocks):
                self.down.append(layout.stage(channels, outputs, i, f"down.{i}.{j}"))
                channels = outputs
                widths.append(channels)
            if i < layout.levels - 1:
                self.shrink.append(layout.smaller(channels))
                widths.append(channels)
        self.mid_in = layout.middle(channels)
        self.mid_out = layout.block(channels, channels)
        self.channels = channels
        self.widths = tuple(widths)

    def forward(self, h: Tensor, embed: Tensor, seam: Seam) -> tuple[Tensor, list[Tensor]]:
        """The map of the middle, and those on the way to it, in their order.

        Args:
            h: `[B, inputs, H, W]`.
            embed: `[B, E]`, the embedding of time and label, already through its SiLU.
            seam: What attention reads.

        Returns:
            The map `[B, channels, h, w]` at the last level's size, and the outputs of the stem and of each stage and
            change of size before the middle, their channels being `widths`.
        """
        h = self.stem(h)
        maps = [h]
        for i in range(self.levels):
            for j in range(self.blocks):
                h = self.down[i * self.blocks + j](h, embed, seam)
                maps.append(h)
            if i < self.levels - 1:
                h = self.shrink[i](h, embed, halved((h.shape[-2], h.shape[-1])))
                maps.append(h)
        return self.mid_out(self.mid_in(h, embed, seam), embed), maps
