"""A model of normals with all that was learnt from held-out normals: pictures in, scores and maps out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from anodiff.codec.protocol import Codec
from anodiff.cond import Cond
from anodiff.detect.calibrate import Calibration
from anodiff.detect.content import coarse_seed
from anodiff.detect.heatmap import Smooth
from anodiff.detect.pool import Pool
from anodiff.detect.scorer import Observation, Parts, Scorer
from anodiff.detect.threshold import Threshold
from anodiff.diffusion.denoiser import Denoiser
from anodiff.errors import DataError
from anodiff.noise import NoiseDraw, PerImageNoise, gaussian

Images = Callable[[], Iterable[Tensor]]
"""Every call goes once through the same normals in the same order, in batches [B, C, H, W] in [0, 1]."""


@dataclass(frozen=True, eq=False)
class Scored:
    """What a batch was found to be; one row a picture."""

    score: Tensor  # [B] higher = more anomalous
    p_value: Tensor  # [B] conformal, in [1 / (n + 1), 1]
    heat: Tensor  # [B, 1, h, w] calibrated map at the scorer's resolution
    restored: Tensor | None  # [B, C, H, W] in [0, 1], where the codec paints


def bare(denoiser: Denoiser) -> Denoiser:
    """The denoiser itself, without a wrapper."""
    return denoiser


class Predictor(nn.Module):
    """`image -> scorer -> smooth -> calibration -> pool -> threshold`, with noise keyed by the picture's
    content.

    Its `state_dict` is all that a model file holds: a fresh predictor of the same configuration that loads
    it gives the same scores. A row of a batch depends on nothing but itself. After `learn` it only reads, so
    threads may share it.

    Args:
        codec: what turns pictures into the denoiser's space.
        denoiser: the model of normals in that space.
        scorer: what is looked at.
        wrap: puts guidance or a clamp around the denoiser; wrappers own no parameters, so they stand outside
            the module and the state's keys stay those of the denoiser.
        smooth: a Gaussian over the scorer's map, before calibration.
        calibration: what is usual for the smoothed map on normals.
        pool: from the calibrated map to the score.
        threshold: from scores of normals to a decision on the picture.
        mask_threshold: from the maxima of normals' maps to a decision on a pixel. With a target rate a, a
            normal picture shows any region at all with probability a at most, since its regions lie where
            its map exceeds this value and the map brought to another size never exceeds its own maximum.
        seed: the run's seed, part of every picture's noise.
        draw: the law of the noise; the one the denoiser was trained with.
        key: from a picture [C, H, W] and the run's seed to the seed of its noise.
        memory: bytes of observations kept while learning; beyond that they are made anew at every pass.
    """

    def __init__(
        self,
        codec: Codec,
        denoiser: Denoiser,
        scorer: Scorer,
        *,
        wrap: Callable[[Denoiser], Denoiser] = bare,
        smooth: Smooth,
        calibration: Calibration,
        pool: Pool,
        threshold: Threshold,
        mask_threshold: Threshold,
        seed: int = 0,
        draw: NoiseDraw = gaussian,
        key: Callable[[Tensor, int], int] = coarse_seed,
        memory: int = 2**30,
    ) -> None:
        super().__init__()
        self.codec = codec
        self.denoiser = denoiser
        self.scorer = scorer
        self.wrap = wrap
        self.smooth = smooth
        self.calibration = calibration
        self.pool = pool
        self.threshold = threshold
        self.mask_threshold = mask_threshold
        self.seed = seed
        self.draw = draw
        self.key = key
        self.memory = memory

    @property
    def evaluations(self) -> int:
        """Evaluations of the denoiser a picture."""
        return self.scorer.evaluations

    @torch.no_grad()  # not inference_mode, under which guidance could not take gradients
    def forward(self, image: Tensor, cond: Cond | None = None) -> Scored:
        """What `image` [B, C, H, W] in [0, 1] was found to be; the noise of `cond` is replaced."""
        observed = self.observe(image, cond)
        heat = self.heat(observed.parts)  # [B, 1, h, w]
        score = self.pool(heat)  # [B]
        return Scored(
            score=score, p_value=self.threshold.p_value(score), heat=heat, restored=observed.restored
        )

    @torch.no_grad()
    def observe(self, image: Tensor, cond: Cond | None = None) -> Observation:
        """The scorer's observation of `image` [B, C, H, W], under noise keyed by each picture's content."""
        if self.training:
            self.eval()  # dropout would make a score depend on chance
        noise = PerImageNoise([self.key(row, self.seed) for row in image], draw=self.draw)
        return self.scorer.observe(
            (self.wrap(self.denoiser), self.codec), image, replace(cond or Cond(), noise=noise)
        )

    def heat(self, parts: Parts) -> Tensor:
        """The calibrated map [B, 1, h, w] of what was observed."""
        return self.calibration(self.smooth(self.scorer.weigh(parts)))

    @torch.no_grad()
    def learn(self, normals: Images, held: Images) -> None:
        """Learn what is usual from `normals`, then the thresholds from `held`.

        Scorer and calibration ask for many pictures and may take those the networks were trained on, as long as these
        are not learnt by heart. A threshold must come from scores of strangers: `held` taught nothing else, so that the
        stated rate is that of split-conformal prediction, without a correction.

        Raises:
            DataError: no picture, or numbers that are not finite.
            ConfigError: fewer held-out normals than the false-alarm rate needs.
        """
        observed = self._observed(normals)
        self.scorer.learn(observed)
        self.calibration.learn(self.smooth(self.scorer.weigh(parts)) for parts in observed())
        self.calibrate(held)

    @torch.no_grad()
    def calibrate(self, held: Images) -> None:
        """Learn the thresholds alone, from normals that taught nothing else: split-conformal."""
        heats = [self.heat(self.observe(batch).parts) for batch in held()]
        if not heats:
            raise DataError("Expected good pictures to learn the threshold from, got none: hold some out.")
        self.threshold.learn(torch.cat([self.pool(heat) for heat in heats]))  # [n]
        self.mask_threshold.learn(torch.cat([heat.amax(dim=(1, 2, 3)) for heat in heats]))  # [n]

    def _observed(self, images: Images) -> Callable[[], Iterable[Parts]]:
        """Observations of the normals, kept as long as they fit into `memory` and made anew otherwise."""
        kept: list[Parts] = []
        size = 0
        for batch in images():
            parts = self.observe(batch).parts
            size += sum(part.numel() * part.element_size() for part in parts)
            if size > self.memory:
                return lambda: (self.observe(again).parts for again in images())
            kept.append(parts)
        if not kept:
            raise DataError("Expected good pictures to learn what is usual from, got none: hold some out.")
        return lambda: iter(kept)
