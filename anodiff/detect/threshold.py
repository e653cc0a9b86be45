"""From scores of held-out normals to a decision and the false-alarm rate it stands for."""

from __future__ import annotations

from math import ceil, floor

import torch
from torch import Tensor

from anodiff.detect.moments import finite
from anodiff.errors import ConfigError, DataError
from anodiff.learnt import Learnt


def least_rate(count: int) -> float:
    """The smallest false-alarm rate that `count` held-out normals can support: 1 / (count + 1)."""
    return 1 / (count + 1)


def normals_needed(rate: float) -> int:
    """How many held-out normals a false-alarm rate needs: the least n with 1 / (n + 1) <= rate."""
    return ceil(1 / rate - 1e-9) - 1


def check_rate(rate: float, count: int) -> None:
    """Nothing, where `count` held-out normals support a false-alarm rate; ConfigError with the number needed."""
    if not 0 < rate < 1:
        raise ConfigError(f"The target false-alarm rate must lie between 0 and 1, got {rate}.")
    if rate < least_rate(count) - 1e-12:
        raise ConfigError(
            f"A false-alarm rate of {rate:g} needs at least {normals_needed(rate)} held-out normals and there are "
            f"{count}, which support {least_rate(count):.3g} at best: hold more good pictures out, or ask for a higher "
            "rate."
        )


class Threshold(Learnt):
    """The sorted scores of held-out normals; a score above `value` is anomalous."""

    def __init__(self) -> None:
        super().__init__()
        self.expect("normals")

    def learn(self, scores: Tensor) -> None:
        """Learn from the scores [n] of normal pictures that nothing else was learnt from."""
        if not scores.numel():
            raise DataError(
                "Expected scores of held-out normal pictures, got none: hold some good pictures out."
            )
        self.store("normals", finite(scores, "the scores").flatten().sort().values)

    def add(self, scores: Tensor) -> None:
        """Take the scores [m] of further normals in: what follows rests on n + m, learnt from alike.

        Where the further normals are those that scored above `value` (false alarms), `Conformal.value` never falls.
        """
        held = self.learnt("normals").cpu()
        self.learn(torch.cat([held, finite(scores, "the scores").flatten().to(held)]))

    @property
    def held(self) -> Tensor:
        """The scores of the held-out normals, ascending [n], on the CPU."""
        return self.learnt("normals").cpu()

    @property
    def count(self) -> int:
        """How many held-out normals there are."""
        return len(self.learnt("normals"))

    @property
    def counts(self) -> dict[str, int]:
        """The same as `ThresholdByLabel.counts` gives it: for all labels together, under no name."""
        return {"": self.count}

    @property
    def value(self) -> float:
        """The threshold itself, in the units of the score."""
        raise NotImplementedError

    def p_value(self, scores: Tensor) -> Tensor:
        """Conformal p-values [B] of scores [B]: `(1 + #{s_i >= s}) / (n + 1)`, NaN for a score of NaN.

        For a normal picture exchangeable with the n held-out ones, P(p <= a) <= a for every a (Vovk et al.
        2005; Bates et al. 2023, arXiv:2104.08279, eq. 2). Never below 1 / (n + 1).
        """
        held = self.learnt("normals")
        below = torch.searchsorted(held, scores.to(held).contiguous(), side="left")  # [B] how many s_i < s
        p = (1 + len(held) - below).to(torch.float32) / (len(held) + 1)
        return torch.where(scores.isnan(), torch.full_like(p, torch.nan), p)


class Quantile(Threshold):
    """The `q`-quantile of the normals' scores, q in [0, 1]: a rule of thumb, without a guarantee."""

    def __init__(self, q: float = 0.99) -> None:
        super().__init__()
        self.q = q

    @property
    def value(self) -> float:
        """The linearly interpolated quantile."""
        return float(torch.quantile(self.learnt("normals").double(), self.q))


class Conformal(Threshold):
    """The split-conformal threshold: at most `target_fpr` of normal pictures score above it.

    `score > value` is the same decision as `p_value <= target_fpr`. The rate holds on average over sets of
    held-out normals, for pictures exchangeable with them; ties only lower it. n normals cannot support a
    rate below 1 / (n + 1): even the lowest p-value would then pass, so `learn` refuses.
    """

    def __init__(self, target_fpr: float = 0.05) -> None:
        super().__init__()
        self.target_fpr = target_fpr

    def learn(self, scores: Tensor) -> None:
        """Learn from the scores [n] of held-out normals; ConfigError where n is too small for the rate."""
        if scores.numel():
            check_rate(self.target_fpr, scores.numel())
        super().learn(scores)

    @property
    def value(self) -> float:
        """The highest normal score that still counts as usual."""
        held = self.learnt("normals")
        check_rate(self.target_fpr, len(held))  # the rate may have been changed since
        # How many normals may score as high as a picture that is flagged.
        allowed = floor(self.target_fpr * (len(held) + 1) + 1e-9) - 1
        return float(held[len(held) - 1 - min(allowed, len(held) - 1)])
