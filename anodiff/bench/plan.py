"""From a benchmark's configuration to its cells: one method on one data set with one seed each."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anodiff import config as configuration
from anodiff.config.bench import AnyMethod, Bench, OurMethod
from anodiff.errors import ConfigError
from anodiff.version import __version__


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one process does: fit one method on one data set with one seed, and measure it."""

    set: str
    method: str
    seed: int
    how: dict[str, Any] = field(repr=False)  # the method with its whole configuration, as JSON holds it

    @property
    def name(self) -> str:
        """`set/method/seed0`, also the cell's folder below `cells`."""
        return f"{self.set}/{self.method}/seed{self.seed}"

    def folder(self, out: Path) -> Path:
        """Where its files lie."""
        return out / "cells" / self.name

    def digest(self, **more: Any) -> str:
        """Sixteen digits that change with anything its outcome depends on; `more` is what the plan does not know.

        The package's version counts, its commit does not: a benchmark of hours would begin anew with every word of a
        page that changes. `--fresh` is for those who changed a method.
        """
        told = [__version__, self.set, self.method, self.seed, self.how, more]
        text = json.dumps(told, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def cells(
    bench: Bench,
    *,
    home: Path,
    sets: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Cell]:
    """The cells in the order they run: seeds outermost, so that a benchmark cut short has every method once.

    Args:
        bench: the benchmark.
        home: folder its `config` paths are relative to.
        sets: these alone; None: all.
        methods: these alone.
        seeds: these alone.

    Raises:
        ConfigError: a name that is not in the benchmark, or a method's configuration that is wrong.
    """
    chosen = _chosen(sets, bench.sets, "set"), _chosen(methods, bench.methods, "method")
    wanted = [
        int(seed)
        for seed in _chosen(None if seeds is None else map(str, seeds), map(str, bench.seeds), "seed")
    ]
    found = [
        Cell(
            set=name,
            method=method,
            seed=seed,
            how=described(bench.methods[method], seed, home=home, name=method),
        )
        for seed in wanted
        for name in chosen[0]
        for method in chosen[1]
        if _takes(bench.methods[method], name, seed)
    ]
    if not found:
        raise ConfigError("No cell is left: the chosen methods are restricted to other sets or seeds.")
    return found


def described(method: AnyMethod, seed: int, *, home: Path, name: str) -> dict[str, Any]:
    """The method as JSON holds it, `kind` among it; one of ours with its whole configuration."""
    values = method.model_dump(mode="json", exclude={"seeds", "sets"})
    if not isinstance(method, OurMethod):
        return {"kind": "anomalib" if "anomalib" in values else "baseline", **values}
    overrides = [f"{key}={json.dumps(value)}" for key, value in method.set.items()]  # JSON is YAML
    path = None if method.config is None else home / method.config
    try:
        config = configuration.load(path, preset=method.preset, overrides=[*overrides, f"seed={seed}"])
    except ConfigError as error:
        raise ConfigError(f"methods.{name}: {error}") from None
    return {"kind": "ours", **values, "run": config.model_dump(mode="json")}


def _takes(method: AnyMethod, name: str, seed: int) -> bool:
    return (method.sets is None or name in method.sets) and (method.seeds is None or seed in method.seeds)


def _chosen(wanted: Iterable[str] | None, there: Iterable[str], what: str) -> list[str]:
    known = list(there)
    if wanted is None:
        return known
    asked = list(wanted)
    for name in asked:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(f"The benchmark has no {what} {name}; it has {', '.join(known)}.{meant}")
    return [name for name in known if name in asked]
