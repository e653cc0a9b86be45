"""What a run depends on besides its pictures: every section, key, default and range."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from anodiff.config.codec import Codec, FeatureCodec, LatentCodec, PixelCodec
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
from anodiff.config.family import (
    CriticNet,
    DDGANFamily,
    DiscreteFamily,
    Family,
    KarrasFamily,
    Schedule,
)
from anodiff.config.head import Head, LearnedHead, NoHead
from anodiff.config.pose import AutoPose, KeepPose, Pose, UprightPose
from anodiff.config.score import (
    Bound,
    Detail,
    Distance,
    Flow,
    Inversion,
    OneStep,
    Opinion,
    PartialNoise,
    Repair,
    Sampler,
    Score,
)
from anodiff.config.section import NotNegative, Section, Share
from anodiff.config.selftest import SelfTest
from anodiff.config.tokens import (
    Beside,
    Layout,
    LowRes,
    Masked,
    NoBeside,
    NoTokens,
    Semantic,
    Text,
    Tokens,
)


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
    pose: Pose = KeepPose()  # how parts are brought to lie alike
    augment: Augment = Augment()
    draws: PositiveInt = (
        1  # augmented draws of each picture encoded once, when the codec is a frozen extractor
    )


class UNet(Section):
    """The network; widths are `width * multipliers`."""

    kind: Literal["unet"] = "unet"
    width: PositiveInt = 64
    multipliers: tuple[PositiveFloat, ...] = (1, 2)
    blocks: PositiveInt = 1
    attention: tuple[int, ...] = ()  # levels with attention, 0 the finest
    transformer: Annotated[int, Field(ge=0)] = 0  # blocks of a spatial transformer there; 0: attention alone
    positions: bool = False  # these are told where each position lies
    heads: PositiveInt | None = 4  # null: as many as leave head_channels to each
    head_channels: PositiveInt = 64
    resample: Literal["conv", "residual", "fir"] = (
        "conv"  # residual: BigGAN blocks; fir: those, filtered by [1, 3, 3, 1]
    )
    rescale: bool = False  # residual connections divided by sqrt(2)
    modulation: Literal["adagn", "add"] = "adagn"  # how time and label enter a block
    mid_attention: bool | None = None  # null: as the last level
    groups: PositiveInt = 32  # of a normalisation, at most; the largest divisor of the channels is taken
    eps: PositiveFloat = 1e-5  # of a normalisation
    frequency_shift: NotNegative = 0.0  # the sinusoids' exponents divide by half their number minus this
    pad: Literal["both", "after"] = "both"  # around a halving convolution; after: right and below alone
    patch: PositiveInt = 1
    edge: Literal[1, 3] = 3  # side of the first and last kernels
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


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
    condition_dropout: Annotated[float, Field(ge=0, lt=1)] = (
        0.1  # share of rows without their conditions, if any
    )
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
    codec: Codec = PixelCodec()
    net: UNet = UNet()
    family: Family = DiscreteFamily()
    labels: Labels = NoLabels()
    guidance: Guidance = NoGuidance()
    tokens: Tokens = NoTokens()
    beside: Beside = NoBeside()
    train: Train = Train()
    score: Score = PartialNoise()
    calibration: Calibration = Calibration()
    pool: Pool = Pool()
    threshold: Threshold = Threshold()
    selftest: SelfTest = SelfTest()

    @model_validator(mode="after")
    def _agrees(self) -> RunConfig:
        learned = isinstance(self.family, DiscreteFamily) and self.family.variance == "learned"
        asked = getattr(self.score, "variance", "small") == "learned"
        rules = (
            (
                self.guidance.kind == "classifier" and self.labels.kind == "none",
                "guidance: classifier leads towards a label, but the model has none; set labels.kind to "
                "category or cluster, or guidance.kind to none",
            ),
            (
                self.guidance.kind == "free" and not self.conditional,
                "guidance: free leads towards a condition, but the model has none; set labels.kind to "
                "category or cluster (or tokens.kind, beside.kind), or guidance.kind to none",
            ),
            (
                self.tokens.kind != "none" and not self.net.attention and not self.net.mid_attention,
                f"tokens: {self.tokens.kind} is read by attention, and the network has none; name levels in "
                "net.attention",
            ),
            (
                self.beside.kind != "none" and not self.codec_paints,
                f"beside: {self.beside.kind} belongs to models that paint; take codec.kind pixel or latent",
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
                bool(getattr(self.score, "opinion", 0)) and 0.0 in getattr(self.score, "sigmas", ()),
                "score.sigmas: 0 asks no model, and the discriminator has no opinion there; leave score.opinion out",
            ),
            (
                getattr(self.score, "stages", "together") == "apart" and self.codec_paints,
                "score.stages: apart weighs the stages of a network by themselves; take codec.kind feature, or set "
                "score.stages to together",
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
        for broken, sentence in (*self._drawing(), *rules):
            if broken:
                raise ValueError(sentence)
        return self

    @property
    def conditional(self) -> bool:
        """Whether the model is told anything that it can also go without."""
        return any(part.kind != "none" for part in (self.labels, self.tokens, self.beside))

    @property
    def codec_paints(self) -> bool:
        """Whether codes can be turned back into pictures."""
        return not isinstance(self.codec, FeatureCodec)

    def _drawing(self) -> tuple[tuple[bool, str], ...]:
        """What a family that draws x0 asks of the other sections, and they of it."""
        gan, score, train = isinstance(self.family, DDGANFamily), self.score, self.train
        fixed = getattr(score, "latent", "drawn") == "fixed"
        opinion = isinstance(score, Opinion) or bool(getattr(score, "opinion", 0))
        walks = isinstance(score, PartialNoise | Repair | Detail)
        restorations = getattr(score, "draws", 1) * len(getattr(score, "levels", (1,)))
        return (
            (
                gan and train.noise != "gaussian",
                f"train.noise: {train.noise} does not fit family.kind ddgan, whose steps back are Gaussian; set it to "
                "gaussian",
            ),
            (
                gan and (train.loss != "simple" or train.times != "table"),
                "family.kind ddgan is trained by its own game on every level of its table; leave train.loss and "
                "train.times out (simple, table)",
            ),
            (
                gan and train.precision == "16-mixed",
                "train.precision: 16-mixed is too narrow for the gradient penalty of ddgan; take 32-true or bf16-mixed",
            ),
            (
                gan and isinstance(score, Inversion | Bound | Flow),
                f"score.kind: {score.kind} needs the mean of x0, but ddgan draws x0 at random; take partial_noise, "
                "repair, detail, one_step or opinion",
            ),
            (
                gan and walks and getattr(score, "sampler", "") in ("heun", "dpmpp_2m"),
                f"score.sampler: {getattr(score, 'sampler', '')} follows an equation that needs the mean of x0, "
                "but ddgan draws x0 at random; take ddim or ddpm",
            ),
            (
                not gan and opinion,
                "an opinion is a discriminator's, and only family.kind ddgan has one; leave score.opinion out, or "
                "take another score.kind",
            ),
            (
                not gan and fixed,
                "score.latent: fixed holds the noise of a generator, and only family.kind ddgan has one; leave it out",
            ),
            (
                walks and "spread" in getattr(score, "distances", ()) and restorations < 2,
                "score.distances: spread compares several restorations; set score.draws to 2 or more",
            ),
        )


__all__ = [
    "AutoPose",
    "Beside",
    "Bound",
    "CategoryLabels",
    "ClassifierGuidance",
    "ClassifierNet",
    "ClusterLabels",
    "CriticNet",
    "DDGANFamily",
    "Detail",
    "DiscreteFamily",
    "Distance",
    "FeatureCodec",
    "Flow",
    "FreeGuidance",
    "Head",
    "Inversion",
    "KarrasFamily",
    "KeepPose",
    "LatentCodec",
    "Layout",
    "LearnedHead",
    "LowRes",
    "Masked",
    "NoBeside",
    "NoGuidance",
    "NoHead",
    "NoLabels",
    "NoTokens",
    "OneStep",
    "Opinion",
    "PartialNoise",
    "PixelCodec",
    "Pose",
    "Repair",
    "RunConfig",
    "Sampler",
    "Schedule",
    "SelfTest",
    "Semantic",
    "Text",
    "UprightPose",
]  # fmt: skip
