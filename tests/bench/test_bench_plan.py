"""Which cells a benchmark has, and when one of them has changed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from anodiff.bench.plan import cells
from anodiff.config.bench import Bench, parse
from anodiff.errors import ConfigError

SHORT = """
name: short
seeds: [0, 1]
sets: {a: {path: here}, b: {path: there}}
methods:
  ours: {preset: tiny, set: {train.steps: 3, net.multipliers: [1, 2]}}
  nearest: {baseline: nearest_thumbnail, seeds: [0], sets: [b]}
"""


@pytest.fixture
def bench() -> Bench:
    return parse(yaml.safe_load(SHORT))


def test_seeds_come_last_and_restrictions_hold(bench: Bench, tmp_path: Path) -> None:
    names = [cell.name for cell in cells(bench, home=tmp_path)]
    assert names == ["a/ours/seed0", "b/ours/seed0", "b/nearest/seed0", "a/ours/seed1", "b/ours/seed1"]


def test_parts_can_be_chosen(bench: Bench, tmp_path: Path) -> None:
    names = [cell.name for cell in cells(bench, home=tmp_path, methods=["ours"], seeds=[1], sets=["b"])]
    assert names == ["b/ours/seed1"]
    with pytest.raises(ConfigError, match=r"no method nearst; it has ours, nearest. Did you mean nearest"):
        cells(bench, home=tmp_path, methods=["nearst"])
    with pytest.raises(ConfigError, match="No cell is left"):
        cells(bench, home=tmp_path, methods=["nearest"], seeds=[1])


def test_a_method_of_ours_brings_its_whole_configuration(bench: Bench, tmp_path: Path) -> None:
    first, *_, last = cells(bench, home=tmp_path, methods=["ours"])
    run = first.how["run"]
    assert (run["train"]["steps"], run["net"]["multipliers"], run["seed"]) == (3, [1.0, 2.0], 0)
    assert last.how["run"]["seed"] == 1


def test_a_wrong_override_names_the_method(tmp_path: Path) -> None:
    broken = parse(
        {**yaml.safe_load(SHORT), "methods": {"ours": {"preset": "tiny", "set": {"train.stepz": 3}}}}
    )
    with pytest.raises(ConfigError, match=r"methods.ours: Unknown key train.stepz \(did you mean steps"):
        cells(broken, home=tmp_path)


def test_a_configuration_file_counts_by_its_content(tmp_path: Path) -> None:
    values = {**yaml.safe_load(SHORT), "methods": {"ours": {"config": "own.yaml"}}}
    digests = []
    for steps in (3, 3, 4):
        (tmp_path / "own.yaml").write_text(f"preset: tiny\ntrain: {{steps: {steps}}}\n")
        digests.append(cells(parse(values), home=tmp_path)[0].digest(data="x"))
    assert digests[0] == digests[1] != digests[2]


def test_the_digest_changes_with_seed_data_and_device(bench: Bench, tmp_path: Path) -> None:
    one, *_, other = cells(bench, home=tmp_path, methods=["ours"], sets=["a"])
    digests = {
        one.digest(data="x", device="cpu"),
        other.digest(data="x", device="cpu"),
        one.digest(data="y", device="cpu"),
        one.digest(data="x", device="cuda"),
    }
    assert len(digests) == 4
