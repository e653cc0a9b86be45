"""A model of normals with all that was learnt from held-out normals: pictures in, scores and maps out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from anodiff.codec.protocol import Codec
from anodiff.cond import Cond
from anodiff.detect.bylabel import CalibrationByLabel, ThresholdByLabel, calibrated, settle
from anodiff.detect.calibrate import Calibration
from anodiff.detect.content import coarse_seed
from anodiff.detect.crossed import Crossed, Kept, Observed, all_labels, crossed_maps
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


@dataclass(frozen=True, eq=False)
class Lesson:
    """The scores of the normals that were learnt from, in their order, on the CPU."""

    shown: Tensor  # [n] of those that taught what is usual, scored by what the others of them taught
    shown_label: Tensor | None  # [n] where the model has labels
    held: Tensor  # [m] of the held-out, which taught the thresholds alone
    held_label: Tensor | None  # [m] likewise
    apart: Tensor | None = None  # [k] of the strangers, which taught how far evidence is believed
    apart_label: Tensor | None = None  # [k] likewise


@dataclass(frozen=True, eq=False)
class Judged:
    """What normals were found to be, one row a picture."""

    score: Tensor  # [n]
    maximum: Tensor  # [n] of the calibrated map
    label: Tensor | None  # [n] where the model has labels


def bare(denoiser: Denoiser) -> Denoiser:
    """The denoiser itself, without a wrapper."""
    return denoiser


class Predictor(nn.Module):
    """`image -> scorer -> smooth -> calibration -> pool -> threshold`, with noise keyed by the picture's
    content; a scorer with a map of its own that shows where has that one smoothed and calibrated likewise.

    Its `state_dict` is all that a model file holds: a fresh predictor of the same configuration that loads
    it gives the same scores. A row of a batch depends on nothing but itself. After `learn` it only reads, so
    threads may share it.

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
        return self._calibrated(self.scorer.maps(parts), label)

    def _calibrated(self, maps: Maps, label: Tensor | None) -> Maps:
        score = calibrated(self.calibration, self.smooth(maps.score), label)
        if self.sight is None:
            return Maps(score, score)
        return Maps(score, calibrated(self.sight, self.smooth(maps.place), label))

    @torch.no_grad()
    def learn(self, normals: Images, held: Images, *, strangers: Images | None = None) -> Lesson:
        """Learn what is usual from `normals`, then the thresholds from `held`; their scores, to look for strangers.

        Scorer and calibration ask for many pictures and may take those the networks were trained on, as long as these
        are not learnt by heart. A threshold must come from scores of strangers: `held` taught nothing else, so that the
        stated rate is that of split-conformal prediction, without a correction. `strangers` are further normals the
        networks were not trained on: they correct how far each kind of evidence is believed.

        A global calibration is learnt from maps that a picture had no part in, wherever they can be had: a law learnt
        by heart leaves hardly anything of its own pictures, and the unit would be next to nothing.

        Raises:
            DataError: no picture, or numbers that are not finite.
            ConfigError: fewer held-out normals than the false-alarm rate needs.
        """
        observed = self.observed(normals)
        unknown = None if strangers is None else self.observed(strangers)

        others = self.calibration.others
        crossed = crossed_maps(
            observed,
            lambda observed: (self._teach if others else self.teach)(observed, unknown),
            lambda parts, label: self.scorer.maps(parts) if others else self.maps(parts, label),
        )
        if crossed is not None and others:
            self._teach(observed, unknown)
            shown, labels = self._crossed(crossed), crossed.labels
            self._settle(lambda: [(crossed.maps, crossed.labels)])
        else:
            self.teach(observed, unknown)
            if crossed is None:
                shown, labels = self._scored(observed)
            else:
                shown, labels = self.pool(crossed.maps.score), crossed.labels
        apart, apart_label = (None, None) if unknown is None else self._scored(unknown)
        found = self.calibrate(held)
        held_label = None if found.label is None else found.label.cpu()
        return Lesson(shown, labels, found.score.cpu(), held_label, apart, apart_label)

    @torch.no_grad()
    def calibrate(self, held: Images) -> Judged:
        """Learn the thresholds alone, from normals that taught nothing else: split-conformal; what these were found."""
        found = self._judged(held)
        for threshold, values in ((self.threshold, found.score), (self.mask_threshold, found.maximum)):
            if isinstance(threshold, ThresholdByLabel):
                threshold.learn(values, _known(found.label))
            else:
                threshold.learn(values)
        return found

    @torch.no_grad()
    def add(self, held: Images) -> Judged:
        """Take further normals that taught nothing in, beside those the thresholds rest on; what these were found."""
        found = self._judged(held)
        for threshold, values in ((self.threshold, found.score), (self.mask_threshold, found.maximum)):
            if isinstance(threshold, ThresholdByLabel):
                threshold.add(values, _known(found.label))
            else:
                threshold.add(values)
        return found

    def check(self) -> None:
        """Nothing, where the thresholds support the rate they stand for; ConfigError otherwise."""
        _ = self.threshold.value, self.mask_threshold.value

    def _judged(self, held: Images) -> Judged:
        scores, maxima, labels = [], [], []
        for batch in held():
            image, cond = self._batch(batch)
            maps = self.maps(self.observe(image, cond).parts, cond.label)
            scores.append(self.pool(maps.score))
            maxima.append(maps.place.amax(dim=(1, 2, 3)))
            labels.append(cond.label)
        if not scores:
            raise DataError("Expected good pictures to learn the threshold from, got none: hold some out.")
        known = None if labels[0] is None else torch.cat([_known(label) for label in labels])
        return Judged(torch.cat(scores), torch.cat(maxima), known)

    @torch.no_grad()
    def teach(
        self,
        observed: Callable[[], Iterable[Observed]],
        strangers: Callable[[], Iterable[Observed]] | None = None,
    ) -> None:
        """Teach scorer and calibration what is usual, from scratch; thresholds stay as they are."""
        self._teach(observed, strangers)
        self._settle(lambda: ((self.scorer.maps(parts), label) for parts, label in observed()))

    def _teach(
        self,
        observed: Callable[[], Iterable[Observed]],
        strangers: Callable[[], Iterable[Observed]] | None,
    ) -> None:
        """Teach the scorer alone."""
        self.scorer.learn(lambda: (parts for parts, _ in observed()))
        if strangers is not None:
            self.scorer.temper(lambda: (parts for parts, _ in strangers()))

    def _crossed(self, crossed: Crossed) -> Tensor:
        """The scores [n] of normals by what others taught, what is usual for the maps among it."""
        device = next(self.scorer.buffers(), torch.zeros(0)).device
        shown = torch.empty(len(crossed.fold))
        for fold in crossed.fold.unique():
            inside = crossed.fold == fold
            others = crossed.rows(~inside)
            self._settle(lambda others=others: [others])
            maps, label = crossed.rows(inside)
            label = None if label is None else label.to(device)
            shown[inside] = self.pool(
                self._calibrated(Maps(*(m.to(device) for m in maps)), label).score
            ).cpu()
        return shown

    def _settle(self, found: Callable[[], Iterable[tuple[Maps, Tensor | None]]]) -> None:
        """Learn what is usual for the maps; each call of `found` goes once through those of the normals."""
        settle(self.calibration, lambda: ((self.smooth(maps.score), label) for maps, label in found()))
        if self.sight is not None:
            settle(self.sight, lambda: ((self.smooth(maps.place), label) for maps, label in found()))

    def _score(self, parts: Parts, label: Tensor | None) -> Tensor:
        """The scores [B] of what was observed, on the CPU."""
        return self.pool(self.maps(parts, label).score).cpu()

    def _scored(self, observed: Callable[[], Iterable[Observed]]) -> tuple[Tensor, Tensor | None]:
        """The scores [n] and labels [n] of all that was observed."""
        found = [(self._score(parts, label), label) for parts, label in observed()]
        return torch.cat([score for score, _ in found]), all_labels([label for _, label in found])

    def _batch(self, batch: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Cond]:
        """A batch of normals and its conditions, its labels among them where the model has labels."""
        image, label = batch if isinstance(batch, tuple) else (batch, None)
        return image, self.labelled(image, None if label is None else Cond(label=label.to(image.device)))

    def look(self, batch: Tensor | tuple[Tensor, Tensor]) -> Observed:
        """What a batch of pictures, with their labels [B] where these are known, shows; and the label of each."""
        image, cond = self._batch(batch)
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


def _known(label: Tensor | None) -> Tensor:
    assert label is not None  # a calibration by label comes with a labeller
    return label


def _values(threshold: Threshold | ThresholdByLabel, label: Tensor | None, count: int) -> Tensor:
    """The threshold [B] of each picture, float64 on the CPU."""
    if isinstance(threshold, ThresholdByLabel):
        return threshold.of(_known(label))
    return torch.full((count,), threshold.value, dtype=torch.float64)


def _maxima(threshold: Threshold | ThresholdByLabel, label: Tensor | None, count: int) -> Sequence[Tensor]:
    if isinstance(threshold, ThresholdByLabel):
        return threshold.held_of(_known(label))
    return [threshold.held] * count


def _p_value(threshold: Threshold | ThresholdByLabel, score: Tensor, label: Tensor | None) -> Tensor:
    if isinstance(threshold, ThresholdByLabel):
        return threshold.p_value(score, _known(label))
    return threshold.p_value(score)
