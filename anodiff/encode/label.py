"""Labels of pictures: those a table names, or, where it names none, clusters of their features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from anodiff.errors import ConfigError, DataError
from anodiff.learnt import Learnt


class Labeller(Learnt):
    """Which of `count` labels a picture shows, judged by a linear head over features of a frozen network.

    `argmax_k (w_k (f - mean) / deviation + b_k)`. Learnt from good pictures, it labels whatever comes later, defective
    parts too: features of a whole picture change little where a part of it does.

    Args:
        features: frozen, pictures [B, C, H, W] in [0, 1] -> [B, d].
        count: number of labels.
    """

    mean: Tensor  # [d]
    deviation: Tensor  # [d]
    weight: Tensor  # [count, d]
    bias: Tensor  # [count]

    def __init__(self, features: nn.Module, count: int) -> None:
        super().__init__()
        self.features = features
        self.count = count
        self.expect("mean", "deviation", "weight", "bias")

    def learn(self, rows: Tensor, labels: Sequence[int]) -> None:
        """Learn the head from features [n, d] and their labels: a logistic regression (scikit-learn).

        Raises:
            DataError: a label without a picture.
        """
        missing = sorted(set(range(self.count)) - set(labels))
        if missing:
            raise DataError(f"Expected good pictures of every label, got none of label {missing[0]}.")
        scaled = self._scaled(rows)
        head = LogisticRegression(C=1.0, max_iter=2000).fit(scaled, np.asarray(labels))
        weight, bias = head.coef_, head.intercept_
        if len(weight) == 1:  # two labels: scikit-learn keeps the second one's odds alone
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        self._keep(weight, bias)

    def cluster(self, rows: Tensor, *, seed: int) -> None:
        """Learn the head that divides features [n, d] into `count` clusters (k-means, scikit-learn).

        The nearest centre is `argmin |f - c_k|^2 = argmax (c_k f - |c_k|^2 / 2)`, a linear head. Clusters are numbered
        by size, the largest first.

        Raises:
            DataError: fewer pictures than clusters.
        """
        if len(rows) < self.count:
            raise DataError(
                f"Expected at least {self.count} pictures for {self.count} clusters, got {len(rows)}: "
                "set labels.count lower."
            )
        scaled = self._scaled(rows)
        found = KMeans(self.count, n_init=10, random_state=seed)  # pyright: ignore[reportArgumentType]
        sizes = np.bincount(found.fit_predict(scaled), minlength=self.count)
        centres = found.cluster_centers_[np.argsort(-sizes, kind="stable")]
        self._keep(centres, -(centres**2).sum(1) / 2)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """The label [B] int64 of each picture [B, C, H, W] in [0, 1]."""
        return self.of(self.features(image))

    def of(self, rows: Tensor) -> Tensor:
        """The label [B] int64 of each row of features [B, d]."""
        scaled = (rows - self.learnt("mean")) / self.learnt("deviation")
        return (scaled @ self.learnt("weight").T + self.learnt("bias")).argmax(dim=1)

    def _scaled(self, rows: Tensor) -> np.ndarray:
        self.store("mean", rows.mean(0))
        self.store("deviation", rows.std(0).clamp_min(1e-6))
        return ((rows - self.mean) / self.deviation).double().cpu().numpy()

    def _keep(self, weight: np.ndarray, bias: np.ndarray) -> None:
        self.store("weight", torch.from_numpy(weight))
        self.store("bias", torch.from_numpy(bias))


def number_of(name: str, names: Sequence[str]) -> int:
    """The label called `name`; ConfigError with what there is where there is none."""
    if name in names:
        return list(names).index(name)
    if name.isdecimal() and int(name) < len(names):
        return int(name)
    has = (
        f"its labels are {', '.join(f'{n} ({k})' for k, n in enumerate(names))}"
        if names
        else "it has no labels"
    )
    raise ConfigError(f"The model has no label {name!r}: {has}.")
