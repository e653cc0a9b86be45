"""A codebook: vectors of which each place of a map takes the nearest."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anodiff.errors import ConfigError

ENTRIES = 2**22
"""Distances that are held at once, 16 MiB of float32: more places than fit are looked up one part after the other."""

SPREAD = 0.25
"""Deviation of the first vectors, that of a fresh encoder's outputs: all of them have something near."""


class Codebook(nn.Module):
    """`codes` vectors of `channels` numbers and how often each was chosen (VQ-VAE, arXiv:1711.00937).

    Attributes:
        vectors: [K, c] the codes e_k.
        count: [K] int64, how many places chose each since the last look, which is the last `revive`.
    """

    count: Tensor  # [K]

    def __init__(self, codes: int, channels: int, commitment: float = 0.25) -> None:
        """Draw the codes.

        Args:
            codes: K, 2 or more.
            channels: c of a code.
            commitment: beta, how strongly the map is held to its codes.

        Raises:
            ConfigError: a number out of its range.
        """
        super().__init__()
        if codes < 2 or channels < 1 or not commitment >= 0:
            raise ConfigError(
                f"a codebook needs 2 codes or more of 1 channel or more and a commitment of 0 or above, got "
                f"codes={codes}, channels={channels}, commitment={commitment}"
            )
        self.codes = codes
        self.channels = channels
        self.commitment = commitment
        self.vectors = nn.Parameter(SPREAD * torch.randn(codes, channels))
        self.register_buffer("count", torch.zeros(codes, dtype=torch.int64))

    def index(self, h: Tensor) -> Tensor:
        """The number of each place's nearest code, `argmin_k |h - e_k|^2`, int64 [B, h, w] for `h [B, c, h, w]`."""
        rows = h.detach().movedim(1, -1)  # [B, h, w, c]
        return self._nearest(rows.flatten(0, -2)).view(rows.shape[:-1])

    def look_up(self, index: Tensor) -> Tensor:
        """The codes of numbers [B, h, w] as a map [B, c, h, w], with gradient to the codebook."""
        return self.vectors[index].movedim(-1, 1)

    def quantised(self, h: Tensor) -> Tensor:
        """Each place of `h [B, c, h, w]` replaced by its nearest code, exactly; the gradient passes to `h` as it is.

        The straight-through estimator of arXiv:1711.00937, section 3.2: the codebook gets no gradient here.
        """
        return _through(h, self.look_up(self.index(h)))

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`quantised(h)`, the loss of each row, and the numbers of the codes; counts them in training mode.

        The loss is `|sg(h) - e|^2 + commitment |h - sg(e)|^2` with sg the stopped gradient, a mean over c, h, w
        (arXiv:1711.00937, eq. 3, the last two terms). At least float32.

        Args:
            h: [B, c, h, w].

        Returns:
            [B, c, h, w], [B] and int64 [B, h, w].
        """
        index = self.index(h)
        if self.training:
            self.count += torch.bincount(index.flatten(), minlength=len(self.count))
        e = self.look_up(index)
        wide = h.to(torch.promote_types(h.dtype, torch.float32))
        pull = (wide.detach() - e).square() + self.commitment * (wide - e.detach()).square()
        return _through(h, e), pull.flatten(1).mean(dim=1), index

    @property
    def used(self) -> Tensor:
        """The share of codes that were chosen since the last look, []; 0 where nothing was looked up."""
        return (self.count > 0).float().mean()

    @property
    def perplexity(self) -> Tensor:
        """`exp(-sum p ln p)` over the shares p of choices since the last look, []: K where all are chosen alike.

        1 where one code is all that is chosen, 0 where nothing was looked up.
        """
        if not self.count.any():
            return self.count.new_zeros((), dtype=torch.float32)
        share = self.count.double() / self.count.sum()
        return torch.special.entr(share).sum().exp().float()

    @torch.no_grad()
    def revive(self, rows: Tensor, seed: int) -> int:
        """How many codes, unused since the last look, now stand on rows drawn at random; the counts begin anew.

        The random restart of Jukebox (Dhariwal et al., arXiv:2005.00341, section 3.1). No row is taken twice while
        there are enough. What happens is a function of the counts, `rows` and `seed` alone. Nothing happens where
        nothing was chosen since the last look: then no code is more dead than another.

        Args:
            rows: [N, c] outputs of the encoder, one a place; none: nothing happens.
            seed: of the draw.
        """
        dead = (self.count == 0).nonzero()[:, 0]  # [D]
        if len(dead) == len(self.count) or not len(rows):
            return 0
        self.count.zero_()
        draw = torch.Generator().manual_seed(seed)
        if len(dead) <= len(rows):
            chosen = torch.randperm(len(rows), generator=draw)[: len(dead)]
        else:
            chosen = torch.randint(len(rows), (len(dead),), generator=draw)
        self.vectors[dead] = rows[chosen.to(rows.device)].to(self.vectors)
        return len(dead)

    def _nearest(self, rows: Tensor) -> Tensor:
        """The number [N] of the code nearest to each of `rows` [N, c].

        `|h - e|^2 / 2 = |e|^2 / 2 - h . e + |h|^2 / 2`, of which the last is the same for all codes; both sides are
        seen from the mean of the codes, so that no digits go to what they have in common.
        """
        with torch.autocast(rows.device.type, enabled=False):
            codes = self.vectors.detach()
            origin = codes.mean(dim=0)  # [c]
            codes = codes - origin  # [K, c]
            half = codes.square().sum(dim=1) / 2  # [K]
            parts = rows.to(codes.dtype).split(max(1, ENTRIES // len(codes)))
            return torch.cat(
                [torch.addmm(half, part - origin, codes.T, alpha=-1).argmin(dim=1) for part in parts]
            )


def _through(h: Tensor, e: Tensor) -> Tensor:
    """The value of `e`, to the bit, with the gradient of `h`."""
    return e.detach().to(h.dtype) + (h - h.detach())
