"""What belongs to a batch and not to the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from anodiff.noise import NoiseSource

AttentionEdit = Callable[[Tensor, str, Tensor], Tensor]
"""(probs [B, heads, N, L], place, sigma [B]) -> probs; `place` names the attention layer."""


@dataclass(frozen=True, kw_only=True)
class Cond:
    """The conditions of one batch; every field is optional and a network reads those it was built for."""

    label: Tensor | None = None  # [B] class index
    tokens: Tensor | None = None  # [B, L, D] text or layout
    token_mask: Tensor | None = None  # [B, L] True where a token is real
    token_gain: Tensor | None = None  # [B, L] factor on cross-attention weights
    image: Tensor | None = None  # [B, C', h, w] concatenated channels
    keep: Tensor | None = None  # [B] False = the learned null condition
    noise: NoiseSource | None = None  # for denoisers that draw
    edit: AttentionEdit | None = None

    def null(self) -> Cond:
        """The same batch with every row's condition replaced by the learned null (Ho & Salimans, arXiv:2207.12598)."""
        row = next((v for v in (self.label, self.tokens, self.image, self.keep) if v is not None), None)
        if row is None:
            return self
        return replace(self, keep=torch.zeros(row.shape[0], dtype=torch.bool, device=row.device))
