"""What a head minimises that marks painted defects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anodiff.errors import ConfigError

if TYPE_CHECKING:
    from anodiff.train.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Marked:
    """The error of a head's marks on evidence of pictures whose painted defects are known, by place.

        loss = focal + dice * overlap
        focal = mean over each kind of place of (1 - q)^focus (-ln q), then over the kinds    q: of what is there
        overlap = 1 - (2 sum p y + 1) / (sum p + sum y + 1)                                  over the picture

    with p the probability of a defect at a place and y = 1 where one was painted. A place is `covered` where at least
    that share of it was painted, and at least half of the picture's most covered place, so that a hair thinner than a
    place still has some. Places that are painted less than that are neither and count nowhere.

    Sources: focal loss arXiv:1708.02002 eq. 4, here over each kind of place by itself, for a defect may be one place of
    a thousand; overlap arXiv:1606.04797 section 3, with sums in place of squares and 1 added to both.
    """

    course: ClassVar[str] = "marking"

    focus: float = 2.0
    dice: float = 1.0
    covered: float = 0.25

    def loss(self, head: Callable, evidence: Tensor, share: Tensor) -> Tensor:
        """The loss of each row, [B], float32 at least.

        Args:
            head: evidence -> logits [B, 1, h, w].
            evidence: [B, c, h, w].
            share: how much of each place was painted, [B, 1, h, w] in [0, 1].
        """
        logit = head(evidence)
        logit = (logit.float() if logit.itemsize < 4 else logit).flatten(1)  # [B, h w]
        defect, good = (kind.flatten(1).to(logit) for kind in self.kinds(share))
        p = logit.sigmoid()
        wrong = defect * (1 - p) + good * p  # 1 - q
        each = wrong**self.focus * F.softplus(torch.where(defect > 0, -logit, logit))
        focal = [(each * kind).sum(1) / kind.sum(1).clamp_min(1) for kind in (defect, good)]
        hit = (p * defect).sum(1)
        overlap = 1 - (2 * hit + 1) / ((p * (defect + good)).sum(1) + defect.sum(1) + 1)
        return (focal[0] + focal[1]) / 2 + self.dice * overlap

    def kinds(self, share: Tensor) -> tuple[Tensor, Tensor]:
        """Where a defect is and where none is, [B, 1, h, w] bool both; in neither: places that are painted in part."""
        least = (share.amax(dim=(1, 2, 3), keepdim=True) / 2).clamp(max=self.covered)
        return (share >= least) & (share > 0), share == 0

    def check(self, head: nn.Module, plan: Plan, labels: Sequence[int] | None) -> None:
        """Nothing, when the numbers make sense.

        Raises:
            ConfigError: a number out of its range, or conditions to be dropped, which here hold the answer.
        """
        rules = (
            ("focus", self.focus >= 0, "0 or above", self.focus),
            ("dice", self.dice >= 0, "0 or above", self.dice),
            ("covered", 0 < self.covered <= 1, "above 0, up to 1", self.covered),
            ("condition_dropout", plan.condition_dropout == 0, "0", plan.condition_dropout),
        )
        for name, holds, wanted, found in rules:
            if not holds:
                raise ConfigError(f"{name} of a head's training must be {wanted}, got {found}")
