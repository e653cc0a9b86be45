"""How much the rows of a batch differ, told to each of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anodiff.nets.norm import groups_for


class Spread(nn.Module):
    """One more channel, constant in a row: the standard deviation over a group of rows, averaged over all features.

    `s = mean_{c,i,j} sqrt(var_group(h_{cij}) + 1e-8)`, by which a discriminator sees that fakes are too much alike.
    A batch is cut into groups of neighbouring rows, all of one size: the largest that divides the batch and is at
    most `rows`. Source: Karras et al., arXiv:1710.10196, section 3.

    In evaluation a row must not depend on its company, and gets the moving average of `s` over training instead. So
    does a batch in training that only groups of one divide (one row, or a prime number above `rows`): a lone row's
    deviation of 0 would read as a collapse. The average takes in every batch that is grouped in training, real and
    fake alike: near the balance of the game they are, and one number must serve both, or it would tell them apart.

    Attributes:
        usual: [] the moving average; the first value as it is, then .99 of the old and .01 of the new.
        seen: [] bool, whether there was a value; until then `usual` is 0.
    """

    usual: Tensor
    seen: Tensor

    def __init__(self, rows: int = 4) -> None:
        super().__init__()
        self.rows = rows
        self.register_buffer("usual", torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))

    def forward(self, h: Tensor) -> Tensor:
        """The map with the spread as its last channel, `[B, C + 1, H, W]`, for `h [B, C, H, W]`."""
        b, _, height, width = h.shape
        n = groups_for(b, self.rows) if self.training else 1
        if n > 1:
            # At least in float32: squares of small differences vanish in half precision.
            rows = h.to(torch.promote_types(h.dtype, torch.float32)).unflatten(0, (b // n, n))
            s = (rows.var(dim=1, correction=0) + 1e-8).sqrt().mean(dim=(1, 2, 3))  # [B / n]
            self._remember(s.detach().mean())
            s = s.repeat_interleave(n)  # [B]
        else:
            s = self.usual.expand(b)
        plane = s.to(h.dtype).view(b, 1, 1, 1).expand(b, 1, height, width)
        return torch.cat([h, plane], dim=1)

    def _remember(self, s: Tensor) -> None:
        old = torch.where(self.seen, self.usual, s.to(self.usual.dtype))
        self.usual.copy_(torch.lerp(s.to(old.dtype), old, 0.99))
        self.seen.fill_(True)
