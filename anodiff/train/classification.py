"""What a classifier of noisy rows minimises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional

from anodiff.diffusion.classifier import checked
from anodiff.diffusion.levels import column
from anodiff.errors import ConfigError
from anodiff.noise import gaussian
from anodiff.train.objective import Times

if TYPE_CHECKING:
    from anodiff.cond import Cond
    from anodiff.noise import NoiseDraw
    from anodiff.train.plan import Plan


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """E over z, its label c, sigma ~ `times`, n ~ `draw` of -log p(c | z + sigma n, sigma), in nats.

    Trained on the noise of the denoiser it will guide, over all its levels. Source: arXiv:2105.05233 section 4.
    """

    times: Times
    draw: NoiseDraw = gaussian

    def loss(
        self, classifier: Callable, z: Tensor, sigma: Tensor, n: Tensor, cond: Cond | None = None
    ) -> Tensor:
        """The cross-entropy of each row, [B], nats, float32 at least.

        Args:
            classifier: `(y, sigma) -> logits` [B, K]; it is not shown the conditions, which hold the answer.
            z: clean rows in codec space, [B, c, h, w].
            sigma: noise levels above 0, [B].
            n: unit noise shaped like `z`.
            cond: its `label` [B] is what each row is; `keep` is not read.

        Raises:
            ConfigError: there are no labels, or (on a CPU) one is out of range.
        """
        if cond is None or cond.label is None:
            raise ConfigError(_NO_LABELS)
        logits = classifier(z + column(sigma, z) * n, sigma)  # [B, K]
        label = cond.label.to(logits.device)
        if label.device.type == "cpu":  # elsewhere a look at them would wait for the device
            label = checked(label, rows=logits.shape[0], classes=logits.shape[1])
        return functional.cross_entropy(
            logits.float() if logits.itemsize < 4 else logits, label, reduction="none"
        )

    def check(self, classifier: nn.Module, plan: Plan, labels: Sequence[int] | None) -> None:
        """Nothing, when there is something to learn.

        Raises:
            ConfigError: there are no labels, or they are to be dropped.
        """
        if labels is None:
            raise ConfigError(_NO_LABELS)
        if plan.condition_dropout:
            raise ConfigError(
                f"train.condition_dropout is {plan.condition_dropout}, but a classifier is not conditional: its "
                "labels are what it learns, so none may be dropped; set it to 0"
            )


_NO_LABELS = "a classifier learns the label of each row, but there are none; give labels, one a row"
