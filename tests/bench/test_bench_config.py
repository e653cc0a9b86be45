"""The file of a benchmark: what it holds, and what is said of a wrong one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from anodiff.config import bench as configuration
from anodiff.errors import ConfigError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "bench.md").read_text("utf-8")
SHORT = """
name: short
seeds: [0, 1]
sets: {a: {path: here}, b: {builder: elpv}}
methods:
  ours: {preset: tiny, set: {train.steps: 3}}
  padim: {anomalib: anomalib.models.Padim, layers: [2, 3]}
  nearest: {baseline: nearest_thumbnail, seeds: [0]}
"""


def changed(**parts: Any) -> dict[str, Any]:
    return {**yaml.safe_load(SHORT), **parts}


@pytest.mark.parametrize("name", ["detection.yaml", "gpu.yaml"])
def test_our_own_files_are_read_and_written_back(name: str) -> None:
    bench = configuration.load(ROOT / "benchmarks" / name)
    assert configuration.parse(yaml.safe_load(configuration.dump(bench))) == bench


def test_methods_are_told_apart_by_their_keys() -> None:
    bench = configuration.parse(yaml.safe_load(SHORT))
    kinds = [type(method).__name__ for method in bench.methods.values()]
    assert kinds == ["OurMethod", "AnomalibMethod", "PlainMethod"]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"seedz": [0]}, r"Unknown key seedz \(did you mean seeds\?\)"),
        (
            {"sets": {"a": {"path": "x", "splitcolumn": "s"}}},
            r"sets.a.splitcolumn \(did you mean split_column",
        ),
        ({"sets": {"a": {}}}, r"sets.a: a set is either a path or a builder"),
        ({"sets": {"a": {"builder": "mvtec"}}}, r"no builder 'mvtec'"),
        ({"sets": {"a/b": {"path": "x"}}}, r"a name becomes a folder's"),
        ({"methods": {"m": {"presett": "tiny"}}}, r"methods.m: expected a method that is named by preset"),
        ({"methods": {"m": {"preset": "tiny", "baseline": "pixel_gaussian"}}}, r"by one of them alone"),
        ({"methods": {"m": {"preset": "tiny", "stepz": [1]}}}, r"methods.m.stepz \(did you mean steps"),
        ({"methods": {"m": {"baseline": "nearest"}}}, r"methods.m.baseline: .*nearest_thumbnail"),
        ({"methods": {"m": {"preset": "tiny", "sets": ["z"]}}}, r"methods.m.sets: there is no set 'z'"),
        ({"methods": {"m": {"preset": "tiny", "seeds": [7]}}}, r"7 is not among the benchmark's seeds"),
        ({"generation": {"extractor": "inception"}}, r"inception needs weights"),
    ],
)
def test_a_wrong_file_is_told_in_words(parts: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        configuration.parse(changed(**parts))


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        configuration.load(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("[1]")
    with pytest.raises(ConfigError, match="keys and values, not list"):
        configuration.load(tmp_path / "list.yaml")


def test_the_page_shows_a_file_that_is_read_and_explains_every_key() -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert configuration.parse(yaml.safe_load(block)).name == "detection"
    sections = (
        configuration.DataSet,
        configuration.OurMethod,
        configuration.AnomalibMethod,
        configuration.PlainMethod,
        configuration.Generation,
    )
    keys = {key for section in sections for key in section.model_fields}
    assert {key for key in keys if f"`{key}`" not in PAGE} == set()
