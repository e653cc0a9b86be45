"""What a run depends on besides its pictures: every section, key, default and range."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from anodiff.config.conditions import (
    CategoryLabels,
    ClassifierGuidance,
    ClassifierNet,
    ClusterLabels,
    FreeGuidance,
    Guidance,
    Labels,
    NoGuidance,
    NoLabels,
)
from anodiff.config.section import NotNegative, Section, Share

Distance = Literal["l1", "l2", "ssim", "ms_ssim", "gradient", "lab", "feature", "latent"]
Sampler = Literal["ddim", "ddpm", "heun", "dpmpp_2m"]


class Augment(Section):
    """Random changes a good part may show; 0 or false switches one off."""

    flip_h: bool = False
    flip_v: bool = False
    rotate90: bool = False
    rotate: NotNegative = 0.0  # degrees, either way
    translate: NotNegative = 0.0  # share of the side
    scale: NotNegative = 0.0  # share, either way
    brightness: NotNegative = 0.0  # share, either way
    contrast: NotNegative = 0.0  # share, either way


class Data(Section):
    """How pictures are read: one resize, to one working shape."""

    size: Annotated[int, Field(ge=16, le=4096)] = 256  # side of the square of equal area, px
    aspect: Literal["keep", "square"] = "keep"  # keep: the median aspect of the training pictures
    channels: Literal[1, 3] = 3
    holdout: Share = 0.2  # share of the good parts kept for calibration
    augment: Augment = Augment()
    draws: PositiveInt = (
        1  # augmented draws of each picture encoded once, when the codec is a frozen extractor
    )


class PixelCodec(Section):
    """Pixels, scaled to [-1, 1] and folded into channels by `patch`."""

    kind: Literal["pixel"] = "pixel"
    patch: PositiveInt = 4


class FeatureCodec(Section):
    """A frozen extractor and a whitening learnt on normals; scores, paints nothing."""

    kind: Literal["feature"] = "feature"
    backbone: str = "tf_efficientnet_lite0"
    stages: tuple[int, ...] = (2, 3)
    weights: str = "auto"
    whitening: Literal["channel", "full"] = "full"
    floor: PositiveFloat = 0.01  # least variance the whitening divides by, as a share of the mean variance
    local: PositiveInt = 1  # odd side of the local mean over features, in positions; 1: none


class UNet(Section):
    """The network; widths are `width * multipliers`."""

    kind: Literal["unet"] = "unet"
    width: PositiveInt = 64
    multipliers: tuple[PositiveFloat, ...] = (1, 2)
    blocks: PositiveInt = 1
    attention: tuple[int, ...] = ()  # levels with attention, 0 the finest
    heads: PositiveInt | None = 4  # null: as many as leave head_channels to each
    head_channels: PositiveInt = 64
    resample: Literal["conv", "residual"] = "conv"  # residual: BigGAN blocks
    rescale: bool = False  # residual connections divided by sqrt(2)
    modulation: Literal["adagn", "add"] = "adagn"  # how time and label enter a block
    mid_attention: bool | None = None  # null: as the last level
    groups: PositiveInt = 32  # of a normalisation, at most; the largest divisor of the channels is taken
    eps: PositiveFloat = 1e-5  # of a normalisation
    frequency_shift: NotNegative = 0.0  # the sinusoids' exponents divide by half their number minus this
    pad: Literal["both", "after"] = "both"  # around a halving convolution; after: right and below alone
    patch: PositiveInt = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Schedule(Section):
    """A table of noise levels."""

    name: Literal["linear", "quadratic", "cosine", "sigmoid", "scaled_linear", "scaled_linear_ldm", "vp"] = (
        "linear"
    )
    steps: Annotated[int, Field(ge=2)] = 1000  # levels of the table
    zero_terminal_snr: bool = False


class DiscreteFamily(Section):
    """A network that predicts eps, v or x0 on a table of levels (DDPM, arXiv:2006.11239)."""

    kind: Literal["eps", "v", "x0"] = "eps"
    schedule: Schedule = Schedule()
    variance: Literal["fixed", "learned"] = "fixed"  # learned: per pixel, between beta-tilde and beta

    @model_validator(mode="after")
    def _terminal(self) -> DiscreteFamily:
        if self.schedule.zero_terminal_snr and self.kind == "eps":
            raise ValueError(
                "eps is undefined where the signal is zero; use kind v or x0 with zero_terminal_snr"
            )
        return self


class KarrasFamily(Section):
    """A network with the preconditioning of EDM (arXiv:2206.00364) on a continuous range of levels."""

    kind: Literal["karras"] = "karras"
    std: PositiveFloat = 1.0  # deviation of the data in codec space
    low: PositiveFloat = 0.002
    high: PositiveFloat = 80.0


class Train(Section):
    """The training run."""

    steps: PositiveInt = 1000
    batch: PositiveInt = 16
    learning_rate: PositiveFloat = 1e-3
    warmup: Annotated[int, Field(ge=0)] = 20
    decay: Literal["cosine", "constant"] = "cosine"
    weight_decay: NotNegative = 0.01
    clip: PositiveFloat = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    loss: Literal["simple", "hybrid", "vlb"] = (
        "simple"  # hybrid: simple + .001 of the bound (arXiv:2102.09672)
    )
    weight: Literal["eps", "v", "x0", "edm", "min_snr"] = "eps"  # of simple and hybrid
    min_snr: PositiveFloat = 5.0
    times: Literal["table", "log_uniform", "log_normal", "second_moment"] = "table"
    time_range: tuple[float, float] | None = (
        None  # log_uniform: low, high; log_normal: mean, deviation of ln sigma
    )
    condition_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1  # share of rows without their label, if any
    noise: Literal["gaussian", "simplex", "pyramid"] = "gaussian"  # the restorer uses the same
    checkpoint_every: PositiveInt = 100
    max_time: PositiveFloat | None = None  # seconds
    workers: Annotated[int, Field(ge=0)] = 0  # processes that read pictures ahead
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"

    @model_validator(mode="after")
    def _range(self) -> Train:
        if self.times in ("log_uniform", "log_normal") and self.time_range is None:
            raise ValueError(f"times: {self.times} needs time_range, two numbers")
        return self


class OneStep(Section):
    """The error of the clean estimate after one denoising step at each level."""

    kind: Literal["one_step"] = "one_step"
    sigmas: tuple[PositiveFloat, ...] = (1.0,)
    draws: PositiveInt = 1
    residual: Literal["plain", "channel", "covariance"] = "covariance"
    floor: PositiveFloat = 0.05


class PartialNoise(Section):
    """Noise to a level, restore, compare (AnoDDPM)."""

    kind: Literal["partial_noise"] = "partial_noise"
    levels: tuple[PositiveFloat, ...] = (0.95,)  # sigma; linear DDPM: t = 249 of 1000 is .95
    steps: PositiveInt = 10  # from the level down to 0
    sampler: Sampler = "ddim"
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0  # of ddim
    variance: Literal["small", "large", "learned"] = (
        "small"  # of the fresh noise of ddpm, and of ddim with eta
    )
    draws: PositiveInt = 1
    pull: NotNegative = 0.0  # towards the picture itself at every step (DDAD, arXiv:2305.15956)
    distances: dict[Distance, PositiveFloat] = Field(default_factory=lambda: {"l1": 1.0})


class Inversion(Section):
    """DDIM inversion to a level and back, compared with the picture."""

    kind: Literal["inversion"] = "inversion"
    level: PositiveFloat = 0.95
    steps: PositiveInt = 10
    distances: dict[Distance, PositiveFloat] = Field(default_factory=lambda: {"l1": 1.0})


class Bound(Section):
    """Per-position terms of the variational bound below a level (arXiv:2006.11239, equation 5)."""

    kind: Literal["bound"] = "bound"
    level: PositiveFloat = 1.0
    steps: PositiveInt = 4  # levels from there down
    variance: Literal["small", "large", "learned"] = "small"


class Flow(Section):
    """Per-position terms of the probability flow's log-likelihood (arXiv:2011.13456, equation 39)."""

    kind: Literal["flow"] = "flow"
    low: PositiveFloat = 0.1  # the density is that of pictures with so much noise
    high: PositiveFloat = 5.0
    steps: PositiveInt = 6
    probes: PositiveInt = 1


class Calibration(Section):
    """Maps are compared with the held-out normals': everywhere alike, per position, or not at all."""

    kind: Literal["none", "global", "position"] = "position"
    smooth: NotNegative = 1.0  # deviation of the Gaussian over the map, in map cells


class Pool(Section):
    """How a map becomes one number."""

    kind: Literal["maximum", "top_share"] = "top_share"
    share: Share = 0.01


class Threshold(Section):
    """Where a part is called defective, from normals only."""

    kind: Literal["quantile", "conformal"] = "conformal"
    target_fpr: Share | None = None  # None: .05, or the smallest rate the held-out normals support


class RunConfig(Section):
    """Everything a run depends on besides its pictures."""

    seed: int = 0
    data: Data = Data()
    codec: Annotated[PixelCodec | FeatureCodec, Field(discriminator="kind")] = PixelCodec()
    net: UNet = UNet()
    family: Annotated[DiscreteFamily | KarrasFamily, Field(discriminator="kind")] = DiscreteFamily()
    labels: Labels = NoLabels()
    guidance: Guidance = NoGuidance()
    train: Train = Train()
    score: Annotated[OneStep | PartialNoise | Inversion | Bound | Flow, Field(discriminator="kind")] = (
        PartialNoise()
    )
    calibration: Calibration = Calibration()
    pool: Pool = Pool()
    threshold: Threshold = Threshold()

    @model_validator(mode="after")
    def _agrees(self) -> RunConfig:
        learned = isinstance(self.family, DiscreteFamily) and self.family.variance == "learned"
        asked = getattr(self.score, "variance", "small") == "learned"
        rules = (
            (
                self.guidance.kind != "none" and self.labels.kind == "none",
                f"guidance: {self.guidance.kind} leads towards a label, but the model has none; set labels.kind to "
                "category or cluster, or guidance.kind to none",
            ),
            (
                self.guidance.kind == "free" and not self.train.condition_dropout,
                "guidance: free compares the model with and without a label, which it learns from "
                "train.condition_dropout above 0 (such as .1)",
            ),
            (
                self.train.loss != "simple" and not isinstance(self.family, DiscreteFamily),
                f"train.loss: {self.train.loss} needs a table of levels (family.kind eps, v or x0)",
            ),
            (
                learned and self.train.loss == "simple",
                "family.variance: learned is taught by the bound alone; set train.loss to hybrid or vlb",
            ),
            (
                self.train.loss == "hybrid" and not learned,
                "train.loss: hybrid teaches a variance beside the simple loss; set family.variance to learned, or "
                "train.loss to simple",
            ),
            (
                self.train.times == "second_moment" and not isinstance(self.family, DiscreteFamily),
                "train.times: second_moment needs a table of levels (family.kind eps, v or x0)",
            ),
            (
                asked and not learned,
                "score.variance: learned needs a model that learned one; set family.variance to learned",
            ),
            (
                isinstance(self.guidance, ClassifierGuidance)
                and self.guidance.form == "mean"
                and not (isinstance(self.score, PartialNoise) and self.score.sampler == "ddpm"),
                "guidance.form: mean shifts the mean of a ddpm step; set score to partial_noise with sampler ddpm, or "
                "guidance.form to score",
            ),
            (
                isinstance(self.guidance, FreeGuidance)
                and self.guidance.negative is not None
                and bool(self.labels.classes)
                and self.guidance.negative not in self.labels.classes,
                f"guidance.negative: {getattr(self.guidance, 'negative', None)} is no label; labels: "
                f"{', '.join(self.labels.classes)}",
            ),
        )
        for broken, sentence in rules:
            if broken:
                raise ValueError(sentence)
        return self


__all__ = [
    "CategoryLabels", "ClassifierGuidance", "ClassifierNet", "ClusterLabels", "FreeGuidance", "NoGuidance", "NoLabels",
    "RunConfig",
]  # fmt: skip
