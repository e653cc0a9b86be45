"""Values of a configuration compared by painted defects on good pictures that taught nothing, before any threshold."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from anodiff import compose
from anodiff.config import RunConfig
from anodiff.config.candidates import Candidate, candidates
from anodiff.config.selftest import STEPS
from anodiff.detect import teaching
from anodiff.detect.crossed import Observed
from anodiff.detect.predictor import Images, Predictor
from anodiff.errors import ConfigError
from anodiff.selftest.gain import Compared, judged
from anodiff.selftest.painting import Painting, planned
from anodiff.selftest.trial import Shown, Trial, observed, trial

FEWEST = 8
"""Good pictures that a comparison needs: fewer say nothing of what others would change."""

SHARE, MOST_SHARE = 1 / 8, 1 / 4
"""Of the pictures to train on, kept from training for a comparison: so many, more where that is fewer than `WANTED`."""

WANTED = 12

LATER = ("residual", "floor", "stages", "fuse")
"""Keys of a one-step score that change nothing of what is observed, only how it is weighed."""


@dataclass(frozen=True, eq=False)
class Choice:
    """The configuration that was chosen, and its predictor: networks trained, nothing else learnt."""

    config: RunConfig
    predictor: Predictor
    compared: Sequence[
        Compared
    ] = ()  # none where there was nothing to choose from; the first is the one asked for
    chosen: int = 0
    painted: int = 0
    clean: int = 0

    @property
    def changes(self) -> Mapping[str, Any]:
        """What was chosen in place of what was asked for, by dotted key."""
        return self.compared[self.chosen].changes if self.compared else {}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a model file keeps them."""
        if not self.compared:
            return {}
        return {
            "clean": self.clean,
            "painted": self.painted,
            "chosen": dict(self.changes),
            "candidates": [entry.to_dict() for entry in self.compared],
        }


def options(config: RunConfig) -> tuple[Candidate, ...]:
    """The candidates of a configuration, itself first, each with noise levels that the model will have.

    Raises:
        ConfigError: a candidate that cannot be; told before anything is trained.
    """
    found = candidates(config)
    for candidate in found:
        compose.check_levels(candidate.config)
    return found


def share_apart(config: RunConfig, count: int) -> float:
    """Which share of `count` pictures to train on is kept for the comparison; 0 where nothing is to be chosen."""
    return judges(count) if config.selftest.choose else 0.0


def judges(count: int) -> float:
    """Which share of `count` pictures is kept from training where something is to be compared on them."""
    return min(MOST_SHARE, max(SHARE, WANTED / count))


def check_count(count: int, *, of: int, what: str = "selftest.choose") -> None:
    """Nothing, where `count` pictures kept apart suffice; ConfigError otherwise."""
    if count < FEWEST:
        raise ConfigError(
            f"{what} compares candidates on good pictures that trained nothing: {FEWEST} are needed, and of {of} to "
            f"train on {count} would be kept for it. Add good pictures, or leave {what} out."
        )


def choose(
    asked: Sequence[Candidate],
    predictor: Predictor,
    normals: Images,
    strangers: Images | None,
    *,
    kept: Mapping[int, Mapping[str, Tensor]],
    count: int,
    shape: tuple[int, int],
    rate: float,
    say: Callable[[str], None] = lambda text: None,
) -> Choice:
    """The candidate that finds painted defects best, or the first where none is better by more than chance.

    Each is taught what is usual from `normals` and judged on `strangers`, as they are and painted, as `gain.judged`
    tells.

    Args:
        asked: as `options` gives them.
        predictor: of the first, its networks trained.
        normals: what teaches scorer and calibration.
        strangers: good pictures that no network has seen and that teach no threshold. The p-values of `fuse: fisher`
            and `agreement` alone learn their law from them too, the same for pictures clean and painted.
        kept: what `compose.learner` had learnt on the way, by steps. A candidate whose training was stopped by time
            before its steps were done is left out.
        count: of the strangers.
        shape: height and width.
        rate: of false alarms, of the thresholds to come.
        say: is told what is being done.
    """
    first = asked[0].config
    asked = _reached(asked, kept, say)
    if len(asked) == 1 or strangers is None:
        return Choice(first, predictor)
    evaluations = predictor.evaluations
    defects = planned(count, first.selftest, shape=shape, evaluations=evaluations, seed=first.seed + 1)
    say(f"comparing {len(asked)} candidates by {len(defects)} defects painted on {count} pictures kept apart")
    painting = Painting(strangers, defects)
    made: dict[int, Predictor] = {}
    trials: dict[int, Trial] = {}
    for group in _groups(asked):
        seen: _Seen | None = None  # of one way to observe at a time
        for number in group:
            found = predictor
            if number:
                other = asked[number].config
                stopped = kept[other.train.steps] if other.train.steps != first.train.steps else None
                found = _alike(other, predictor, stopped, shape, rate)
            seen = seen or _Seen.of(found, painting, normals, strangers)
            tempering = seen.strangers if weighs_strangers(asked[number].config) else None
            teaching.teach(found, seen.normals, tempering)
            trials[number] = trial(found, painting, seen.clean, seen.painted)
            made[number] = found
    compared, best = judged(asked, [trials[number] for number in range(len(asked))], seed=first.seed)
    if best:
        gain = compared[best].gain
        say(f"chosen: {asked[best].name} (mean AUROC {compared[best].mean:.3f}, {gain.value:+.3f})")
    else:
        say("no candidate is better than the configuration by more than chance: it stays")
    clean = len(painting.bases)
    return Choice(asked[best].config, made[best], compared, best, painted=len(defects), clean=clean)


def weighs_strangers(config: RunConfig) -> bool:
    """Whether the score believes its kinds of evidence by p-values, which normals unknown to the networks teach."""
    return getattr(config.score, "fuse", "mean") != "mean"


def fewest_strangers(config: RunConfig) -> int:
    """How many pictures kept apart are worth it; where there would be fewer, the networks see all.

    After `fisher` a stage known by heart would drown the rest, and two strangers are better than none. In `agreement`
    it cannot: a surprise that is large everywhere changes no order. There the few pictures of a small set teach more
    than the tail of a law read off a handful would.
    """
    return 16 if getattr(config.score, "fuse", "mean") == "agreement" else 2


@dataclass(frozen=True, eq=False)
class _Seen:
    """Observations that several candidates share."""

    normals: Callable[[], Iterable[Observed]]
    strangers: Callable[[], Iterable[Observed]]
    clean: Sequence[Shown]
    painted: Sequence[Shown]

    @classmethod
    def of(cls, predictor: Predictor, painting: Painting, normals: Images, strangers: Images) -> _Seen:
        return cls(
            predictor.observed(normals),
            predictor.observed(strangers),
            list(observed(predictor, painting.clean())),
            list(observed(predictor, painting.painted())),
        )


def _groups(asked: Sequence[Candidate]) -> list[list[int]]:
    """The candidates by what they observe and by whose eyes, those together that observe the same."""
    groups: dict[str, list[int]] = {}
    for number, candidate in enumerate(asked):
        score = candidate.config.score.model_dump(mode="json")
        if score["kind"] == "one_step":
            score = {key: value for key, value in score.items() if key not in LATER}
        alike = json.dumps([candidate.config.train.steps, score], sort_keys=True)
        groups.setdefault(alike, []).append(number)
    return list(groups.values())


def _reached(
    asked: Sequence[Candidate], kept: Mapping[int, Mapping[str, Tensor]], say: Callable[[str], None]
) -> list[Candidate]:
    """The candidates whose steps the training did."""
    whole = asked[0].config.train.steps
    found = [candidate for candidate in asked if candidate.config.train.steps in {whole, *kept}]
    if late := sorted({c.config.train.steps for c in asked} - {c.config.train.steps for c in found}):
        say(f"time was up before {STEPS}={', '.join(map(str, late))}: not compared")
    return found


def _alike(
    config: RunConfig,
    base: Predictor,
    stopped: Mapping[str, Tensor] | None,
    shape: tuple[int, int],
    rate: float,
) -> Predictor:
    """A predictor of `config` with the networks of `base`, or with what they had learnt when they were stopped."""
    codec: Any = base.codec
    fresh = compose.predictor(config, target_fpr=rate, shape=shape, ready=codec)
    for name in ("denoiser", "classifier", "critic", "head", "labeller"):
        known = getattr(base, name)
        if known is not None:
            getattr(fresh, name).load_state_dict(known.state_dict())
    if stopped is not None:
        compose.learner(fresh).load_state_dict(dict(stopped))
    return fresh.to(next(base.parameters()).device).eval()
