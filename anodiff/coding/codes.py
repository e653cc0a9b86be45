"""The codes of a frozen codec, made once."""

from __future__ import annotations

import torch
from torch import Tensor

from anodiff.codec.feature import FeatureCodec
from anodiff.codec.latent import LatentCodec
from anodiff.data.dataset import ImageSet
from anodiff.told import Beside


class Codes:
    """Codes of pictures, made once by a frozen codec and kept as float16: rows for the trainer."""

    def __init__(self, z: Tensor, draws: int, beside: Tensor | None = None) -> None:
        self.z = z  # [pictures * draws, c, h, w], the draws of a picture side by side
        self.draws = draws
        self.beside = beside  # [pictures * draws, C', h, w]

    def __len__(self) -> int:
        return len(self.z) // self.draws

    def item(self, index: int, seed: int) -> Tensor:
        """The code of picture `index` in the draw `seed` chooses, [c, h, w]."""
        return self.z[index * self.draws + seed % self.draws].float()

    def image(self, index: int, seed: int) -> Tensor:
        """What stands beside that code, [C', h, w]."""
        assert self.beside is not None
        return self.beside[index * self.draws + seed % self.draws].float()


@torch.no_grad()
def codes(
    pictures: ImageSet,
    codec: FeatureCodec | LatentCodec,
    *,
    draws: int,
    beside: Beside | None,
    device: torch.device,
) -> Codes:
    """The codes of all pictures in `draws` draws each, and what stands beside them."""
    found, others = [], []
    for index in range(len(pictures)):
        image = torch.stack([pictures.item(index, draw) for draw in range(draws)]).to(device)
        found.append(codec.encode(image).cpu().half())
        if beside is not None:
            seeds = [index * draws + draw for draw in range(draws)]
            others.append(beside(image, seeds).cpu().half())
    return Codes(torch.cat(found), draws, torch.cat(others) if others else None)
