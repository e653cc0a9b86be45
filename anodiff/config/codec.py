"""What stands between a picture and the space in which diffusion happens: the codecs' sections."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from anodiff.config.section import NotNegative, Section


class PixelCodec(Section):
    """Pixels, scaled to [-1, 1] and folded into channels by `patch`."""

    kind: Literal["pixel"] = "pixel"
    patch: PositiveInt = 4


class FeatureCodec(Section):
    """A frozen extractor and a whitening learnt on normals; scores, paints nothing."""

    kind: Literal["feature"] = "feature"
    backbone: str = "tf_efficientnet_lite0"
    stages: tuple[int, ...] = (2, 3)
    stride: PositiveInt | None = None  # pixels a side of one position; null: that of the finest stage
    fold: PositiveInt = 1  # positions a side kept in one of the code, as channels; 1: their mean
    weights: str = "auto"
    whitening: Literal["channel", "stage", "full"] = "full"
    floor: PositiveFloat = 0.01  # least variance the whitening divides by, as a share of the mean variance
    local: PositiveInt = 1  # odd side of the local mean over features, in positions; 1: none
    light: Literal["keep", "equal", "auto"] = (
        "keep"  # whether pictures are brought to the same light; auto: found out
    )


class LatentCodec(Section):
    """An autoencoder trained on the good parts first, or a published one (arXiv:2112.10752, section 3.1)."""

    kind: Literal["latent"] = "latent"
    form: Literal["kl", "vq"] = "kl"
    stride: Literal[2, 4, 8, 16] = 4  # pixels a side of one position, f of the paper
    channels: PositiveInt = 4  # of a code
    width: PositiveInt = 32
    multipliers: tuple[PositiveFloat, ...] | None = None  # null: .5, 1, 2, 2, ..., one more than halvings
    blocks: PositiveInt = 1
    attention: bool = False  # in the middle
    groups: Annotated[int, Field(ge=0)] = (
        0  # of a normalisation, at most; 0: none, learns faster; 32 in the paper
    )
    shortcuts: bool = False  # means and colours travel around the networks; for codes of many channels
    codes: Annotated[int, Field(ge=2)] = 512  # vq: size of the codebook
    weights: str | None = None  # folder of an AutoencoderKL of diffusers; it is then not trained
    kl: NotNegative = 1e-6  # weight of the divergence, summed over a code
    perceptual: NotNegative = 1.0  # weight of the difference of features
    lpips: str | None = None  # file of LPIPS weights (VGG16); null: features of the usual backbone
    adversarial: NotNegative = 0.5  # weight of the patch discriminator, over an adaptive one
    start: Annotated[float, Field(ge=0, lt=1)] = 0.5  # share of the run after which that plays
    critic: PositiveInt = 32  # width of the discriminator
    steps: PositiveInt = 600
    batch: PositiveInt = 8
    learning_rate: PositiveFloat = 5e-4
    crop: PositiveInt | None = 64  # side of the squares trained on, px; null: whole pictures
    defect: PositiveInt = (
        16  # side of the defects that must be seen, px: what the autoencoder loses is held to it
    )

    @model_validator(mode="after")
    def _fits(self) -> LatentCodec:
        halvings = self.stride.bit_length() - 1
        if self.multipliers is not None and len(self.multipliers) != halvings + 1:
            raise ValueError(
                f"multipliers: stride {self.stride} halves {halvings} times, so {halvings + 1} levels are expected, "
                f"got {len(self.multipliers)}"
            )
        if self.crop is not None and self.crop % self.stride:
            raise ValueError(f"crop: {self.crop} should be a multiple of the stride {self.stride}")
        if self.weights is not None and self.form != "kl":
            raise ValueError("weights: published autoencoders are of form kl; leave form out")
        return self

    @property
    def levels(self) -> tuple[float, ...]:
        """The multipliers, the finest level first."""
        return self.multipliers or (0.5, 1.0, 2.0, 2.0, 2.0)[: self.stride.bit_length()]


Codec = Annotated[PixelCodec | FeatureCodec | LatentCodec, Field(discriminator="kind")]
