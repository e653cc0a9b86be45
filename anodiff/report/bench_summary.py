"""What the report of a bench is told: plain figures, already computed, with the intervals that belong to them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LEVEL = 0.05  # of the error to call any two methods of a set different that are not


@dataclass(frozen=True)
class Spread:
    """One figure over seeds. NaN stands where there is nothing to tell.

    Attributes:
        mean: Over seeds.
        sd: Between seeds; NaN for one seed.
        low: Lower bound of the mean's 95 % interval.
        high: Upper bound.
        seeds: How many.
        n: Pictures; 0 where not known.
    """

    mean: float
    sd: float = math.nan
    low: float = math.nan
    high: float = math.nan
    seeds: int = 1
    n: int = 0


@dataclass(frozen=True)
class Step:
    """One method at one setting: what it costs and what it finds."""

    evaluations: float
    ms: float
    auroc: float


@dataclass(frozen=True)
class Standing:
    """One method on one set.

    Attributes:
        set: Name of the data set.
        method: Name of the method.
        metrics: Metric to its figure; the names are those of metrics.json.
        generation: Measure of the samples, with its extractor in the name, to its figure.
        best: Whether it is the best of the set in image AUROC or cannot be told from it.
    """

    set: str
    method: str
    metrics: Mapping[str, Spread]
    generation: Mapping[str, Spread] = field(default_factory=dict)
    best: bool = False


@dataclass(frozen=True)
class Pair:
    """Two methods on the same pictures of one set: image AUROC of the first less that of the second.

    Attributes:
        set: Name of the data set.
        first: The better one.
        second: The other.
        value: Difference of the means over seeds.
        low: Lower bound of its 95 % interval over pictures.
        high: Upper bound.
        p: Two-sided, other pictures, these trainings.
        p_seeds: Two-sided, other pictures and other seeds.
        adjusted: The larger of both, adjusted for all pairs of the set (Holm).
        n: Pictures.
    """

    set: str
    first: str
    second: str
    value: float
    low: float
    high: float
    p: float
    p_seeds: float
    adjusted: float
    n: int

    @property
    def distinct(self) -> bool:
        """Whether the two can be told apart."""
        return self.adjusted < LEVEL


@dataclass(frozen=True)
class Match:
    """Two methods over all sets that both finished: sets won, tied and lost by the first, and the mean difference."""

    first: str
    second: str
    wins: int
    ties: int
    losses: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class FamilyBest:
    """The best method of a family on a set, and its difference to the best without diffusion, if there is one."""

    set: str
    family: str
    method: str
    auroc: Spread
    baseline: str | None = None
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan


@dataclass(frozen=True)
class Range:
    """The median over cells, and the smallest and largest."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Cost:
    """What a method costs on one device, over all sets and seeds; names as in cell.json."""

    method: str
    device: str
    values: Mapping[str, Range]


@dataclass(frozen=True)
class Trade:
    """A method's place between cost and accuracy: where it stands, and the steps it was also tried at, if any."""

    method: str
    here: Step
    low: float
    high: float
    steps: Sequence[Step] = ()


@dataclass(frozen=True)
class Leak:
    """What the audit found in a set; counts are None where it did not look.

    Twins may stand anywhere; of a leaking pair, one stands in train and the other in test.
    """

    set: str
    train: int | None
    test: int | None
    exact: int | None
    near: int | None
    pairs: int | None
    groups: int | None
    largest: int | None
    share: float | None
    note: str

    @property
    def found(self) -> bool:
        """Whether test pictures stand, or nearly stand, among the training pictures."""
        return bool(self.pairs or self.share)


@dataclass(frozen=True)
class Trouble:
    """A cell without a result, and why."""

    set: str
    method: str
    seed: int
    status: str
    error: str


@dataclass(frozen=True)
class Summary:
    """All that the report of a bench tells.

    Attributes:
        name: Of the bench.
        sets: Names in the order of tables.
        methods: Names in the order of tables.
        families: Method to family, where told.
        seeds: All that occur.
        done: Cells with a result.
        total: Cells with a result or a reason why not.
        standings: One a set and method with a result.
        overall: Method to its mean image AUROC over `common`.
        common: The sets that all these methods finished.
        pairs: All pairs of methods on every set.
        matches: All pairs of methods over sets.
        contributions: One a set and family.
        costs: One a method and device.
        trades: Set, or "" for the mean over `common`, to its methods.
        leaks: One a set.
        troubles: One a cell without a result.
        provenance: What the numbers were made with.
        commands: One a cell.
        notes: What a reader must know before trusting a number.
        rows: One a cell, flat, for rows.csv.
    """

    name: str
    sets: Sequence[str] = ()
    methods: Sequence[str] = ()
    families: Mapping[str, str] = field(default_factory=dict)
    seeds: Sequence[int] = ()
    done: int = 0
    total: int = 0
    standings: Sequence[Standing] = ()
    overall: Mapping[str, Spread] = field(default_factory=dict)
    common: Sequence[str] = ()
    pairs: Sequence[Pair] = ()
    matches: Sequence[Match] = ()
    contributions: Sequence[FamilyBest] = ()
    costs: Sequence[Cost] = ()
    trades: Mapping[str, Sequence[Trade]] = field(default_factory=dict)
    leaks: Sequence[Leak] = ()
    troubles: Sequence[Trouble] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    commands: Sequence[str] = ()
    notes: Sequence[str] = ()
    rows: Sequence[Mapping[str, Any]] = ()

    def standing(self, set_name: str, method: str) -> Standing | None:
        """The standing of a method on a set, None where it has none."""
        return next((s for s in self.standings if (s.set, s.method) == (set_name, method)), None)
