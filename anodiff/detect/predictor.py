"""A model of normals with all that was learnt from held-out normals: pictures in, scores and maps out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

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
        folds: how many parts the normals are cut into when the thresholds are learnt (see `learn`).
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
        folds: int = 5,
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
        self.folds = folds
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
    def learn(self, images: Images) -> None:
        """Learn scorer, calibration and both thresholds from held-out normals, which trained nothing before.

        A threshold must come from scores that the normals would have got as strangers. So the normals are
        cut into `folds` consecutive parts, and each part is scored by a scorer and a calibration that learnt
        from the others (cross-conformal prediction, Vovk 2015; the networks run once). What is kept is
        learnt from all of them, so the rate is approximate, and in practice on the safe side, each part
        being scored with fewer normals than are kept; `calibrate` with pictures set aside gives it exactly.
        Neighbours in order (exposures of one part) share a fold.

        Raises:
            DataError: no picture, or numbers that are not finite.
            ConfigError: fewer normals than the false-alarm rate needs.
        """
        observed = self._observed(images)
        self._teach(self.scorer, self.calibration, observed)
        count = sum(parts[0].shape[0] for parts in observed())
        if count == 1:
            self._decide(self._heats(self.scorer, self.calibration, observed))
            return
        # Learning starts from scratch, so one copy serves all folds.
        scorer, calibration = copy.deepcopy(self.scorer), copy.deepcopy(self.calibration)
        bounds = torch.linspace(0, count, min(self.folds, count) + 1).round().long().tolist()
        heats = []
        for start, stop in pairwise(bounds):
            self._teach(
                scorer,
                calibration,
                lambda start=start, stop=stop: rows(observed(), start, stop, inside=False),
            )
            heats += self._heats(
                scorer, calibration, lambda start=start, stop=stop: rows(observed(), start, stop, inside=True)
            )
        self._decide(heats)

    @torch.no_grad()
    def calibrate(self, images: Images) -> None:
        """Learn the thresholds alone, from normals that taught nothing else: exactly split-conformal."""
        self._decide(self._summary(self.heat(self.observe(batch).parts)) for batch in images())

    def _teach(
        self, scorer: Scorer, calibration: Calibration, observed: Callable[[], Iterable[Parts]]
    ) -> None:
        scorer.learn(observed)
        calibration.learn(self.smooth(scorer.weigh(parts)) for parts in observed())

    def _heats(
        self, scorer: Scorer, calibration: Calibration, observed: Callable[[], Iterable[Parts]]
    ) -> list[tuple[Tensor, Tensor]]:
        return [self._summary(calibration(self.smooth(scorer.weigh(parts)))) for parts in observed()]

    def _summary(self, heat: Tensor) -> tuple[Tensor, Tensor]:
        return self.pool(heat), heat.amax(dim=(1, 2, 3))  # [B], [B]

    def _decide(self, summaries: Iterable[tuple[Tensor, Tensor]]) -> None:
        kept = list(summaries)
        if not kept:
            raise DataError("Expected good pictures to learn the threshold from, got none: hold some out.")
        self.threshold.learn(torch.cat([score for score, _ in kept]))
        self.mask_threshold.learn(torch.cat([peak for _, peak in kept]))

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


def rows(observed: Iterable[Parts], start: int, stop: int, *, inside: bool) -> Iterator[Parts]:
    """The observations of the pictures numbered `start` to `stop` (excluded), or of all the others."""
    first = 0
    for parts in observed:
        number = torch.arange(first, first + parts[0].shape[0], device=parts[0].device)
        first += parts[0].shape[0]
        within = (number >= start) & (number < stop)
        chosen = within if inside else ~within
        if chosen.any():
            yield tuple(part[chosen] for part in parts)
