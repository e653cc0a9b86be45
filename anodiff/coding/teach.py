"""The codec of a fit, taught by good pictures: an autoencoder trained, a whitening learnt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anodiff import compose
from anodiff.codec.feature import FeatureCodec
from anodiff.codec.latent import LatentCodec
from anodiff.codec.light import Exposures
from anodiff.coding.floor import Floor, floor
from anodiff.compose.codec import Codec
from anodiff.config import RunConfig
from anodiff.config.schema import LatentCodec as Section
from anodiff.data.crop import Crops
from anodiff.data.dataset import ImageSet
from anodiff.train.checkpoint import found
from anodiff.train.fit import fit
from anodiff.train.plan import TINY, Plan
from anodiff.train.progress import Progress

LOOKED_AT = 64
"""Pictures at most, evenly chosen, on which is measured what an autoencoder loses."""


@dataclass(frozen=True, eq=False)
class Taught:
    """What teaching a codec brought to light."""

    floor: Floor | None = None  # what an autoencoder loses
    light: Exposures | None = None  # what light does to good pictures, where that was looked at
    alarms: tuple[str, ...] = ()  # what looked wrong at the end of its training
    seconds: float = 0.0  # of its training

    @property
    def about(self) -> dict[str, Any]:
        """The figures, for provenance."""
        told: dict[str, Any] = {}
        if self.floor is not None:
            told |= {"codec_psnr": round(self.floor.psnr, 2), "codec_ssim": round(self.floor.ssim, 4)}
        if self.light is not None:
            told |= {"light": "equal" if self.light.equal else "keep"}
        return told

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong, a sentence each."""
        return self.alarms if self.floor is None else (*self.floor.warnings, *self.alarms)


def teach(
    codec: Codec,
    config: RunConfig,
    pictures: ImageSet,
    held: Iterable[Tensor],
    plain: Callable[[], Iterable[Tensor]],
    *,
    plan: Plan,
    folder: Path | None,
    resume: str | None,
    identity: Mapping[str, str],
    device: torch.device,
    progress: Progress | None,
    say: Callable[[str], None],
) -> Taught:
    """What became of `codec`, which has learnt from good pictures; pixels have nothing to learn.

    Args:
        codec: of `config`, trained in place.
        config: tells how.
        pictures: to train on, with their augmentation.
        held: batches [B, C, H, W] of pictures that train nothing, on which is measured what an autoencoder loses.
        plain: the pictures to train on in batches, without augmentation.
        plan: tells the machine, and how long an autoencoder may train.
        folder: of the run; an autoencoder keeps its checkpoints below it.
        resume: as of the run.
        identity: what a resumed run must share.
        device: where it is trained.
        progress: shows the course.
        say: is told what is being done.
    """
    if isinstance(codec, FeatureCodec):
        light = None
        if codec.light is not None:
            light = codec.light.learn(plain())
            say(light.sentence)
        say(f"learning the whitening of {codec.channels} features from {len(pictures)} pictures")
        codec.learn(plain())
        return Taught(light=light)
    if not isinstance(codec, LatentCodec):
        return Taught()
    section = config.codec
    assert isinstance(section, Section)
    alarms: tuple[str, ...] = ()
    seconds = 0.0
    if section.weights is None:
        if resume is not None and folder is not None and found(folder / "checkpoints"):
            # The denoiser has begun on codes of this autoencoder: with more time it may go on, and this one may not.
            plan = replace(plan, max_time=TINY)
        say(f"training the autoencoder (stride {codec.stride}, {codec.channels} channels)")
        outcome = fit(
            compose.criticised(config, codec.net).to(device),  # type: ignore[arg-type]
            Crops(pictures, section.crop),
            compose.codec_plan(config, plan),
            objective=compose.autoencoding(config),
            folder=None if folder is None else folder / "codec",
            resume="auto" if resume is not None else None,
            identity=identity,
            progress=progress,
        )
        alarms, seconds = outcome.alarms, outcome.seconds
    codec.requires_grad_(False).eval().to(device)
    say("measuring the scale of the codes, and what the autoencoder loses")
    codec.learn(plain())
    lost = floor(codec, held, defect=section.defect, seed=config.seed)
    say(
        f"the autoencoder paints good parts anew at {lost.psnr:.1f} dB (SSIM {lost.ssim:.3f}) and keeps "
        f"{lost.kept:.0%} of defects of {section.defect} px"
    )
    return Taught(lost, alarms=alarms, seconds=seconds)
