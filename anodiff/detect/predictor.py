"""A model of normals with all that was learnt from them: pictures in, scores and maps out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from anodiff.codec.protocol import Codec
from anodiff.cond import Cond
from anodiff.detect.bylabel import CalibrationByLabel, ThresholdByLabel, calibrated, known
from anodiff.detect.calibrate import Calibration
from anodiff.detect.content import coarse_seed
from anodiff.detect.crossed import Kept, Observed
from anodiff.detect.heatmap import Smooth
from anodiff.detect.pool import Pool
from anodiff.detect.scorer import Maps, Observation, Parts, Scorer
from anodiff.detect.steering import Steering
from anodiff.detect.threshold import Threshold
from anodiff.diffusion.denoiser import Denoiser
from anodiff.errors import DataError, RefusalError
from anodiff.noise import NoiseDraw, PerImageNoise, gaussian

Images = Callable[[], Iterable[Tensor | tuple[Tensor, Tensor]]]
"""Every call goes once through the same normals in the same order, in batches [B, C, H, W] in [0, 1]; with the label
[B] of each picture where it is known."""

Tell = Callable[[Tensor, Cond, Sequence[int]], Cond]
"""(pictures [B, C, H, W] in [0, 1], their conditions with the label, one seed a row) -> the conditions, completed."""


@dataclass(frozen=True, eq=False)
class Scored:
    """What a batch was found to be; one row a picture."""

    score: Tensor  # [B] higher = more anomalous
    p_value: Tensor  # [B] conformal, in [1 / (n + 1), 1]
    heat: Tensor  # [B, 1, h, w] calibrated map at the scorer's resolution
    restored: Tensor | None  # [B, C, H, W] in [0, 1], where the codec paints
    threshold: Tensor  # [B] float64 on the CPU: a score above it is anomalous
    mask_threshold: Tensor  # [B] float64 on the CPU: a place of the map above it is anomalous
    maxima: Sequence[Tensor] = ()  # one a row: [n] of held-out normals' maps, ascending, on the CPU
    label: Tensor | None = None  # [B] what each picture was taken for, where the model has labels


def bare(denoiser: Denoiser) -> Denoiser:
    """The denoiser itself, without a wrapper."""
    return denoiser


class Predictor(nn.Module):
    """`image -> scorer -> smooth -> calibration -> pool -> threshold`, with noise keyed by the picture's
    content; a scorer with a map of its own that shows where has that one smoothed and calibrated likewise.

    Its `state_dict` is all that a model file holds: a fresh predictor of the same configuration that loads
    it gives the same scores. A row of a batch depends on nothing but itself. Once taught (`detect/teaching.py`) it
    only reads, so threads may share it.

    Args:
        codec: what turns pictures into the denoiser's space.
        denoiser: the model of normals in that space.
        scorer: what is looked at.
        wrap: puts guidance or a clamp around the denoiser; wrappers own no parameters, so they stand outside
            the module and the state's keys stay those of the denoiser.
        labeller: pictures [B, C, H, W] -> label [B], for a conditional model; a label that comes with a batch goes
            before its own.
        tell: what a model that reads more than a label is told of a picture: words, what stands beside its code.
        classifier: of noisy pictures, where `wrap` guides by one; kept here to be moved and saved with the rest.
        critic: the discriminator of a denoiser that draws, which a scorer may ask; kept here likewise.
        head: what has learnt to mark painted defects, which a scorer may ask; kept here likewise.
        smooth: a Gaussian over the scorer's map, before calibration.
        calibration: what is usual for the smoothed map on normals; by label where the kinds of parts are labels.
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
        labeller: nn.Module | None = None,
        tell: Tell | None = None,
        classifier: nn.Module | None = None,
        critic: nn.Module | None = None,
        head: nn.Module | None = None,
        smooth: Smooth,
        calibration: Calibration | CalibrationByLabel,
        pool: Pool,
        threshold: Threshold | ThresholdByLabel,
        mask_threshold: Threshold | ThresholdByLabel,
        seed: int = 0,
        draw: NoiseDraw = gaussian,
        key: Callable[[Tensor, int], int] = coarse_seed,
        memory: int = 2**31,
    ) -> None:
        super().__init__()
        self.codec = codec
        self.denoiser = denoiser
        self.scorer = scorer
        self.wrap = wrap
        self.labeller = labeller
        self.tell = tell
        self.classifier = classifier
        self.critic = critic
        self.head = head
        self.smooth = smooth
        self.calibration = calibration
        self.sight = copy.deepcopy(calibration) if scorer.places else None
        self.pool = pool
        self.threshold = threshold
        self.mask_threshold = mask_threshold
        self.seed = seed
        self.draw = draw
        self.key = key
        self.memory = memory

    @property
    def evaluations(self) -> int:
        """Evaluations of the denoiser a picture, those of guidance among them."""
        each = self.wrap.evaluations if isinstance(self.wrap, Steering) else 1
        return self.scorer.evaluations * each

    @torch.no_grad()  # not inference_mode, under which guidance could not take gradients
    def forward(self, image: Tensor, cond: Cond | None = None) -> Scored:
        """What `image` [B, C, H, W] in [0, 1] was found to be; the noise of `cond` is replaced."""
        cond = self.labelled(image, cond)
        observed = self.observe(image, cond)
        maps = self.maps(observed.parts, cond.label)
        score = self.pool(maps.score)  # [B]
        return Scored(
            score=score,
            p_value=_p_value(self.threshold, score, cond.label),
            heat=maps.place,
            restored=observed.restored,
            threshold=_values(self.threshold, cond.label, len(image)),
            mask_threshold=_values(self.mask_threshold, cond.label, len(image)),
            maxima=_maxima(self.mask_threshold, cond.label, len(image)),
            label=cond.label,
        )

    @torch.no_grad()
    def observe(self, image: Tensor, cond: Cond | None = None) -> Observation:
        """The scorer's observation of `image` [B, C, H, W], under noise keyed by each picture's content."""
        if self.training:
            self.eval()  # dropout would make a score depend on chance
        seeds = [self.key(row, self.seed) for row in image]
        cond = self.labelled(image, cond)
        if self.tell is not None:
            cond = self.read(self.tell(image, cond, seeds))
        cond = replace(cond, noise=PerImageNoise(seeds, draw=self.draw))
        return self.scorer.observe((self.wrap(self.denoiser), self.codec), image, cond)

    def read(self, cond: Cond) -> Cond:
        """The conditions with words or boxes read once, in place of at every step of a walk."""
        reader = getattr(getattr(self.denoiser, "net", None), "read", None)
        return cond if reader is None else reader(cond)

    @torch.no_grad()
    def labelled(self, image: Tensor, cond: Cond | None = None) -> Cond:
        """The conditions of a batch with the label of each picture; where it is missing or -1 the labeller is asked."""
        cond = cond or Cond()
        if self.labeller is None:
            if cond.label is not None:
                raise RefusalError(
                    "A label was given, but this model was fitted without labels: leave it out."
                )
            return cond
        if cond.label is not None and bool((cond.label >= 0).all()):
            return cond
        found = self.labeller(image)  # [B]
        return replace(
            cond, label=found if cond.label is None else torch.where(cond.label < 0, found, cond.label)
        )

    def maps(self, parts: Parts, label: Tensor | None = None) -> Maps:
        """The calibrated maps [B, 1, h, w] of what was observed; `label` [B] where they are calibrated by label."""
        return self.calibrated(self.scorer.maps(parts), label)

    def calibrated(self, maps: Maps, label: Tensor | None = None) -> Maps:
        """The scorer's maps [B, 1, h, w], smoothed and compared with what is usual."""
        score = calibrated(self.calibration, self.smooth(maps.score), label)
        if self.sight is None:
            return Maps(score, score)
        return Maps(score, calibrated(self.sight, self.smooth(maps.place), label))

    def check(self) -> None:
        """Nothing, where the thresholds support the rate they stand for; ConfigError otherwise."""
        _ = self.threshold.value, self.mask_threshold.value

    def _told(self, batch: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Cond]:
        """A batch of normals and its conditions, its labels among them where the model has labels."""
        image, label = batch if isinstance(batch, tuple) else (batch, None)
        return image, self.labelled(image, None if label is None else Cond(label=label.to(image.device)))

    def look(self, batch: Tensor | tuple[Tensor, Tensor]) -> Observed:
        """What a batch of pictures, with their labels [B] where these are known, shows; and the label of each."""
        image, cond = self._told(batch)
        return self.observe(image, cond).parts, cond.label

    def observed(self, images: Images) -> Callable[[], Iterable[Observed]]:
        """Observations of the normals, kept as long as they fit into `memory` and made anew otherwise."""
        kept: list[Observed] = []
        size = 0
        for batch in images():
            found = self.look(batch)
            size += sum(part.numel() * part.element_size() for part in found[0])
            if size > self.memory:
                return lambda: (self.look(again) for again in images())
            kept.append(found)
        if not kept:
            raise DataError("Expected good pictures to learn what is usual from, got none: hold some out.")
        return Kept(kept)


def _values(threshold: Threshold | ThresholdByLabel, label: Tensor | None, count: int) -> Tensor:
    """The threshold [B] of each picture, float64 on the CPU."""
    if isinstance(threshold, ThresholdByLabel):
        return threshold.of(known(label))
    return torch.full((count,), threshold.value, dtype=torch.float64)


def _maxima(threshold: Threshold | ThresholdByLabel, label: Tensor | None, count: int) -> Sequence[Tensor]:
    if isinstance(threshold, ThresholdByLabel):
        return threshold.held_of(known(label))
    return [threshold.held] * count


def _p_value(threshold: Threshold | ThresholdByLabel, score: Tensor, label: Tensor | None) -> Tensor:
    if isinstance(threshold, ThresholdByLabel):
        return threshold.p_value(score, known(label))
    return threshold.p_value(score)
