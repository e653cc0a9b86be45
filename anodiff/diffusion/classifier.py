"""A classifier of noisy inputs: what classifier guidance differentiates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anodiff.cond import Cond
from anodiff.diffusion.denoiser import Net, clock, to_unit
from anodiff.diffusion.levels import Levels, level
from anodiff.errors import ConfigError, RefusalError


class NoisyClassifier(nn.Module):
    """`p(c | y, sigma)` over K classes, from a network that is fed what a denoiser's network is fed.

    The network sees `x_t = y / sqrt(1 + sigma^2)` and the index of the table, or `ln(sigma) / 4` where the levels
    are continuous. `log_prob` is made for `Guide` and for `ancestral`.

    Args:
        net: the network, `(x_t [B, C, h, w], t [B], cond) -> logits [B, K]`.
        levels: the noise levels it is trained for; they must cover those of the denoiser it guides.

    Source: Dhariwal & Nichol 2021, arXiv:2105.05233 section 4.
    """

    def __init__(self, net: Net, levels: Levels) -> None:
        super().__init__()
        self.net = net
        self.levels = levels

    def forward(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        """The logits, [B, K].

        Args:
            y: [B, C, h, w] at noise level `sigma`.
            sigma: [B] or [], above 0; within the table where the levels have one.
            cond: the batch's conditions, for a network that reads any.

        Raises:
            RefusalError: if a sigma lies outside the table.
        """
        sigma = level(sigma)
        return self.net(to_unit(y, sigma), clock(self.levels, sigma, y), cond)

    def log_prob(self, y: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor:
        """`log p(cond.label | y, sigma)`, [B], in float32 at least; differentiable in `y`.

        Args:
            y: [B, C, h, w] at noise level `sigma`.
            sigma: [B] or [], within the levels.
            cond: its `label` [B] says which class each row is asked for.

        Raises:
            ConfigError: if the labels are not one class in 0..K-1 a row.
            RefusalError: if no labels came, or a sigma lies outside the levels.
        """
        if cond is None or cond.label is None:
            raise RefusalError(
                "a classifier guides towards a label, but the batch's conditions hold none; "
                "give it: Bind(Guide(...), Cond(label=...))"
            )
        self.levels.check(sigma)
        logits = self.forward(y, sigma, cond)  # [B, K]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # half precision loses small p
        label = checked(cond.label, rows=logits.shape[0], classes=logits.shape[1]).to(logits.device)
        return logits.log_softmax(1).gather(1, label[:, None]).squeeze(1)  # [B]


def checked(label: Tensor, *, rows: int, classes: int) -> Tensor:
    """The labels as int64 [rows], each found to be a class in 0..classes-1.

    Raises:
        ConfigError: with what came instead.
    """
    if label.shape != (rows,) or label.dtype.is_floating_point or label.dtype == torch.bool:
        raise ConfigError(
            f"expected one whole-number label a row, shape ({rows},), "
            f"got shape {tuple(label.shape)} of {str(label.dtype).removeprefix('torch.')}"
        )
    low, high = (int(v) for v in label.aminmax()) if rows else (0, 0)
    if low < 0 or high >= classes:
        raise ConfigError(
            f"the classifier knows the labels 0 to {classes - 1}, but got {low if low < 0 else high}; "
            "give labels in that range, or train a classifier of more classes"
        )
    return label.long()
