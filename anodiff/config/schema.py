"""What a run depends on besides its pictures: every section, key, default and range."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

Share = Annotated[float, Field(gt=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]
Distance = Literal["l1", "l2", "ssim", "ms_ssim", "gradient", "lab", "feature", "latent"]


class Section(BaseModel):
    """A part of the configuration; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


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
    attention: tuple[int, ...] = ()
    heads: PositiveInt = 4
    patch: PositiveInt = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Schedule(Section):
    """A table of noise levels."""

    name: Literal["linear", "quadratic", "cosine", "sigmoid", "scaled_linear", "scaled_linear_ldm", "vp"] = (
        "linear"
    )
    steps: PositiveInt = 10  # from the level down to 0
    zero_terminal_snr: bool = False


class DiscreteFamily(Section):
    """A network that predicts eps, v or x0 on a table of levels (DDPM, arXiv:2006.11239)."""

    kind: Literal["eps", "v", "x0"] = "eps"
    schedule: Schedule = Schedule()

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
    weight: Literal["eps", "v", "x0", "edm", "min_snr"] = "eps"
    min_snr: PositiveFloat = 5.0
    times: Literal["table", "log_uniform", "log_normal"] = "table"
    time_range: tuple[float, float] | None = (
        None  # log_uniform: low, high; log_normal: mean, deviation of ln sigma
    )
    noise: Literal["gaussian", "simplex", "pyramid"] = "gaussian"  # the restorer uses the same
    checkpoint_every: PositiveInt = 100
    max_time: PositiveFloat | None = None  # seconds
    workers: Annotated[int, Field(ge=0)] = 0  # processes that read pictures ahead
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"

    @model_validator(mode="after")
    def _range(self) -> Train:
        if self.times != "table" and self.time_range is None:
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
    steps: PositiveInt = (
        10  # denoiser evaluations from the highest level of the family to 0, those below `levels` run
    )
    sampler: Literal["ddim", "heun", "dpmpp_2m"] = "ddim"
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    draws: PositiveInt = 1
    distances: dict[Distance, PositiveFloat] = {"l1": 1.0}


class Inversion(Section):
    """DDIM inversion to a level and back, compared with the picture."""

    kind: Literal["inversion"] = "inversion"
    level: PositiveFloat = 0.95
    steps: PositiveInt = 10
    distances: dict[Distance, PositiveFloat] = {"l1": 1.0}


class Bound(Section):
    """Per-position terms of the variational bound below a level (arXiv:2006.11239, equation 5)."""

    kind: Literal["bound"] = "bound"
    level: PositiveFloat = 1.0
    steps: PositiveInt = 4  # levels from there down
    variance: Literal["small", "large"] = "small"


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
    train: Train = Train()
    score: Annotated[OneStep | PartialNoise | Inversion | Bound, Field(discriminator="kind")] = PartialNoise()
    calibration: Calibration = Calibration()
    pool: Pool = Pool()
    threshold: Threshold = Threshold()
