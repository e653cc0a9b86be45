"""What belongs to a batch and not to the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
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
    words: Tensor | None = (
        None  # [B, L] int64 numbers of a text's tokens, 0 = padding; a text encoder reads them
    )
    boxes: Tensor | None = None  # [B, N, 5] class, left, top, right, bottom in [0, 1]; class -1 = none there
    tokens: Tensor | None = None  # [B, L, D] text or layout
    token_mask: Tensor | None = None  # [B, L] True where a token is real
    token_gain: Tensor | None = None  # [B, L] factor on cross-attention weights
    token_boxes: Tensor | None = (
        None  # [B, L, 4] left, top, right, bottom in [0, 1] of the place a token speaks of; right < left: the rest
    )
    image: Tensor | None = None  # [B, C', h, w] concatenated channels
    keep: Tensor | None = None  # [B] False = the learned null condition
    noise: NoiseSource | None = None  # for denoisers that draw
    edit: AttentionEdit | None = None

    def to(self, device: torch.device) -> Cond:
        """The same batch with its tensors on `device`."""
        moved = {part.name: getattr(self, part.name) for part in fields(self)}
        return replace(self, **{k: v.to(device) for k, v in moved.items() if isinstance(v, Tensor)})

    def edited(self, edit: AttentionEdit) -> Cond:
        """The same batch with its attention under `edit`."""
        return replace(self, edit=edit)

    def null(self) -> Cond:
        """The same batch with every row's condition replaced by the learned null (Ho & Salimans, arXiv:2207.12598).

        Edits and gains of attention go with the words they are for.
        """
        told = (self.label, self.words, self.boxes, self.tokens, self.image, self.keep)
        row = next((value for value in told if value is not None), None)
        if row is None:
            return self
        keep = torch.zeros(row.shape[0], dtype=torch.bool, device=row.device)
        return replace(self, keep=keep, token_gain=None, edit=None)
