"""Several configurations fitted on the same good pictures, and the one that finds painted defects best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anodiff.batches import batches, with_labels
from anodiff.config import RunConfig
from anodiff.config.candidates import Candidate
from anodiff.detect.predictor import Images
from anodiff.detector import Detector
from anodiff.errors import ConfigError
from anodiff.gather import Gathered, label_numbers
from anodiff.selftest.choice import check_count, judges
from anodiff.selftest.gain import Compared, judged
from anodiff.selftest.painting import Painting, planned
from anodiff.selftest.trial import Trial, observed, trial

Fit = Callable[[str, RunConfig, Gathered], Detector]
"""(name, configuration, good pictures) -> a detector fitted on them."""


@dataclass(frozen=True, eq=False)
class Contest:
    """How it ended.

    Attributes:
        detector: the one that was taken; its `info` tells of the others.
        name: of its configuration.
        compared: all of them, in the order in which they were named.
        clean: good pictures that were painted on.
        painted: painted pictures.
        fitted_on: the pictures that all of them were fitted on.
    """

    detector: Detector
    name: str
    compared: Sequence[Compared]
    clean: int
    painted: int
    fitted_on: Gathered

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a model file keeps them."""
        return {
            "taken": self.name,
            "clean": self.clean,
            "painted": self.painted,
            "presets": [entry.to_dict() for entry in self.compared],
        }


def contest(
    entrants: Mapping[str, RunConfig],
    good: Gathered,
    *,
    fit: Fit | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Contest:
    """Which of the configurations finds painted defects best; the first, where none is better by more than chance.

    An eighth of the pictures to train on, or about twelve if that is more and at most a quarter, is kept from all of
    them. The others train each in turn. Then the same defects are painted on those kept, each kind at each contrast, at
    each configuration's own working size, and plain means of image and pixel AUROC are compared as `gain.judged` tells.
    Those held out have no part in it, so that the false-alarm rate of what is taken is as exact as ever.

    Args:
        entrants: at least two, by name; they hold the same pictures out.
        good: what `gather` found.
        fit: how each is fitted; None: `Detector(config=...).fit(...)` on any device.
        say: is told what is being done.

    Raises:
        ConfigError: fewer than two, others held out, a switched-off self-test, or too few good pictures.
    """
    _check(entrants)
    first = next(iter(entrants.values()))
    count = len(good.train)
    kept, apart = good.apart(judges(count), seed=first.seed + 1)
    check_count(len(apart.train), of=count, what="a comparison of presets")
    make = fit or (lambda _, config, pictures: Detector(config=config).fit(pictures, say=say))
    found: dict[str, Detector] = {}
    for number, (name, config) in enumerate(entrants.items(), 1):
        say(f"{name}: preset {number} of {len(entrants)}")
        found[name] = make(name, config, kept)
    trials = _trials(found, apart, first, say)
    asked = [Candidate(config, {"preset": name}) for name, config in entrants.items()]
    compared, best = judged(asked, trials, seed=first.seed)
    taken = list(entrants)[best]
    gain = compared[best].gain
    more = f"{gain.value:+.3f} over {next(iter(entrants))}" if best else "none is better by more than chance"
    say(f"taken: {taken} ({more})")
    painted = len(trials[0].defects)
    outcome = Contest(found[taken], taken, compared, trials[0].score.size - painted, painted, kept)
    return _remembered(outcome)


def _check(entrants: Mapping[str, RunConfig]) -> None:
    if len(entrants) < 2:
        raise ConfigError(f"A comparison needs two presets or more, got {', '.join(entrants) or 'none'}.")
    if len({(config.seed, config.data.holdout) for config in entrants.values()}) > 1:
        raise ConfigError("Presets that are compared should have the same seed and the same data.holdout.")
    if off := [name for name, config in entrants.items() if config.selftest.kind == "none"]:
        raise ConfigError(f"Presets are compared by painted defects; {off[0]} has selftest.kind none.")


def _trials(
    detectors: Mapping[str, Detector], apart: Gathered, config: RunConfig, say: Callable[[str], None]
) -> list[Trial]:
    """What each detector makes of the same defects on the pictures kept apart."""
    defects = planned(
        len(apart.train),
        config.selftest,
        shape=max((detector.shape for detector in detectors.values()), key=lambda s: s[0] * s[1]),
        evaluations=max(detector.predictor.evaluations for detector in detectors.values()),
        seed=config.seed + 1,
    )
    say(
        f"comparing {len(detectors)} presets by {len(defects)} defects painted on {len(apart.train)} pictures"
    )
    found = []
    for detector in detectors.values():
        painting = Painting(_images(detector, apart), defects)
        predictor = detector.predictor.eval()
        found.append(
            trial(
                predictor,
                painting,
                observed(predictor, painting.clean()),
                observed(predictor, painting.painted()),
            )
        )
    return found


def _images(detector: Detector, apart: Gathered) -> Images:
    labels = label_numbers(detector.config, apart.train_rows)
    return lambda: with_labels(batches(apart.train, detector.shape, detector.config, detector.device), labels)


def _remembered(outcome: Contest) -> Contest:
    """The contest with a detector that tells of it."""
    detector = outcome.detector
    about = {**detector.info["provenance"], "contest": outcome.to_dict()}
    detector.adopt(
        detector.predictor, shape=detector.shape, target_fpr=detector.info["target_fpr"], about=about
    )
    return outcome
