"""A picture as one vector of features: what clustering, labels and distances between sets of pictures work on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anodiff.codec.backbone import Backbone


class Pooled(nn.Module):
    """The mean over positions of a frozen network's maps, one row a picture.

    Pictures of any size are brought to `size` x `size` first (bilinear, antialiased), so that rows of different sets
    compare. Grey pictures are shown as grey colour pictures.
    """

    def __init__(self, backbone: Backbone, *, size: int = 128) -> None:
        super().__init__()
        self.backbone = backbone
        self.size = size

    @property
    def features(self) -> int:
        """Length of a row."""
        return sum(self.backbone.channels)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """The features [B, d] of pictures [B, 1 or 3, H, W] in [0, 1]."""
        side = (self.size, self.size)
        if image.shape[-2:] != side:
            image = F.interpolate(image, size=side, mode="bilinear", align_corners=False, antialias=True)
        return torch.cat([m.mean(dim=(2, 3)) for m in self.backbone(image)], dim=1)  # [B, d]
