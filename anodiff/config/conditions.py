"""What a model is conditional on, and how a restoration or a sample is guided by it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from anodiff.config.section import NotNegative, Section


class NoLabels(Section):
    """One kind of part: the model is not conditional."""

    kind: Literal["none"] = "none"

    @property
    def classes(self) -> tuple[str, ...]:
        """No names."""
        return ()


class CategoryLabels(Section):
    """Several kinds of parts in one model, named by a column of the pictures' table.

    Thresholds, calibration and the law of residuals are learnt for each kind by itself.
    """

    kind: Literal["category"] = "category"
    column: str = "category"
    names: tuple[str, ...] = ()  # in the order of the labels' numbers; found by the fit

    @property
    def classes(self) -> tuple[str, ...]:
        """The names, label 0 first."""
        return self.names


class ClusterLabels(Section):
    """Labels without labels: good parts are clustered by their features (arXiv:2105.05233, section 7)."""

    kind: Literal["cluster"] = "cluster"
    count: Annotated[int, Field(ge=2, le=100)] = 4

    @property
    def classes(self) -> tuple[str, ...]:
        """`cluster 0`, `cluster 1`, ..."""
        return tuple(f"cluster {number}" for number in range(self.count))


class NoGuidance(Section):
    """The model as it is; a conditional one is given the part's own label."""

    kind: Literal["none"] = "none"


class FreeGuidance(Section):
    """Classifier-free (arXiv:2207.12598): away from the model without a label, or from a negative label."""

    kind: Literal["free"] = "free"
    scale: NotNegative = 2.0  # 0 = without the label, 1 = with it
    negative: str | None = None  # name of a label; null: the model without one


class ClassifierNet(Section):
    """Half a U-Net that tells the label of a noisy picture (arXiv:2105.05233, section 4.1)."""

    width: PositiveInt = 32
    multipliers: tuple[PositiveFloat, ...] = (1, 2, 2)
    blocks: PositiveInt = 1
    attention: tuple[int, ...] = (2,)
    head_channels: PositiveInt = 32
    pool: Literal["attention", "adaptive", "spatial"] = "attention"
    resample: Literal["conv", "residual"] = "residual"
    patch: PositiveInt = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    steps: PositiveInt = 300  # of its training
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NotNegative = 0.05


class ClassifierGuidance(Section):
    """A classifier of noisy pictures leads towards the label (arXiv:2105.05233, section 4)."""

    kind: Literal["classifier"] = "classifier"
    scale: NotNegative = 1.0
    form: Literal["score", "mean"] = (
        "score"  # score: algorithm 2, any sampler; mean: algorithm 1, sampler ddpm
    )
    net: ClassifierNet = ClassifierNet()


Labels = Annotated[NoLabels | CategoryLabels | ClusterLabels, Field(discriminator="kind")]
Guidance = Annotated[NoGuidance | FreeGuidance | ClassifierGuidance, Field(discriminator="kind")]
