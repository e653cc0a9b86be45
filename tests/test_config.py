"""Configurations: what is shipped loads, goes out and comes back equal; what is wrong is told with the near miss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from anodiff import compose
from anodiff.config import RunConfig, dump, load, parse, presets
from anodiff.encode.vocabulary import SPECIAL
from anodiff.errors import ConfigError

ROOT = Path(__file__).parents[1]
SHIPPED = sorted((ROOT / "configs").rglob("*.yaml"))
TYPES = ("null", "boolean", "object", "array", "number", "string", "integer")  # of JSON Schema 2020-12, 6.1.1


def same_there_and_back(config: RunConfig) -> None:
    text = dump(config)
    assert parse(yaml.safe_load(text)) == config
    assert dump(parse(yaml.safe_load(text))) == text
    assert parse(json.loads(json.dumps(config.model_dump(mode="json")))) == config


def test_there_are_three_presets() -> None:
    assert presets() == ["features", "fine", "pixels", "tiny"]


@pytest.mark.parametrize("name", presets())
def test_presets_go_out_and_come_back(name: str) -> None:
    same_there_and_back(load(preset=name))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_shipped_files_go_out_and_come_back(path: Path, tmp_path: Path) -> None:
    config = load(path)
    same_there_and_back(config)
    whole = tmp_path / "config.yaml"
    whole.write_text(dump(config), "utf-8")
    assert load(whole) == config  # as a run folder keeps it


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_shipped_files_say_how_to_run_them(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.startswith("#")
    assert "anodiff fit " in text
    assert f"--config {path.relative_to(ROOT).as_posix()}" in text


def test_all_data_sets_have_one_features_configuration() -> None:
    files = sorted((ROOT / "configs").glob("*/features.yaml"))
    assert {path.parent.name for path in files} == {"demo", "mvtec", "magnetic_tile", "kolektor"}
    assert all(load(path) == load(preset="features") for path in files)


def test_ddpm_and_ddim_differ_in_their_noise_alone() -> None:
    ddpm, ddim = (load(ROOT / f"configs/mvtec/{name}.yaml") for name in ("ddpm", "ddim"))
    assert (ddpm.score.eta, ddim.score.eta) == (1.0, 0.0)  # type: ignore[union-attr]
    assert ddpm.model_copy(update={"score": ddim.score}) == ddim


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_shipped_files_can_be_built(path: Path) -> None:
    config = load(path)
    if config.labels.kind == "category":  # a fit takes the names from the pictures
        config = config.model_copy(update={"labels": config.labels.model_copy(update={"names": ("a", "b")})})
    taken = {"text": {"vocabulary": (*SPECIAL, "a")}, "layout": {"classes": ("a", "b")}}.get(
        config.tokens.kind
    )
    if taken is not None:  # likewise words and classes of boxes
        config = config.model_copy(update={"tokens": config.tokens.model_copy(update=taken)})
    predictor = compose.predictor(config, target_fpr=0.05, shape=(64, 64), weights=compose.LEARNT)
    assert predictor.evaluations >= 1
    assert (predictor.classifier is not None) == (config.guidance.kind == "classifier")


def test_without_anything_it_is_the_features_preset() -> None:
    assert load() == load(preset="features")


def test_a_preset_on_the_command_line_goes_before_the_one_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("preset: pixels\nseed: 3\n", "utf-8")
    assert load(file).codec.kind == "pixel"
    assert load(file, preset="tiny") == load(preset="tiny", overrides=["seed=3"])


def test_overrides_go_last_and_one_after_the_other(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("preset: tiny\ntrain: {steps: 7, batch: 2}\n", "utf-8")
    config = load(file, overrides=["train.steps=8", "train.steps=9", "net.multipliers=[1, 2, 2]"])
    assert (config.train.steps, config.train.batch) == (9, 2)
    assert config.net.multipliers == (1, 2, 2)
    assert config.train.times == load(preset="tiny").train.times  # what nobody named stays


def test_an_empty_override_is_none() -> None:
    assert load(preset="tiny", overrides=["train.max_time=60"]).train.max_time == 60
    assert load(preset="tiny", overrides=["train.max_time=60", "train.max_time="]).train.max_time is None


def test_another_kind_replaces_its_section_whole() -> None:
    """What belonged to the old kind must not linger: a one-step scorer has no sampler, a restoring one no residual."""
    config = load(preset="features", overrides=["score.kind=partial_noise", "score.levels=[0.5]"])
    expected = {"kind": "partial_noise", "levels": [0.5]}
    assert config.score == parse({"score": expected}).score


def test_a_like_kind_keeps_its_section() -> None:
    """eps, v and x0 are one model of configuration, so the schedule stays."""
    config = load(preset="pixels", overrides=["family.kind=v", "family.schedule.name=cosine"])
    assert config.family.kind == "v"
    assert (config.family.schedule.name, config.family.schedule.steps) == ("cosine", 1000)  # type: ignore[union-attr]
    assert load(preset="features", overrides=["pool.kind=maximum"]).pool.kind == "maximum"


def test_a_schedule_has_by_default_the_thousand_levels_of_ddpm() -> None:
    """The levels named in the comments are those of this table: t = 249 of 1000 is sigma .95."""
    config = parse(
        {"codec": {"kind": "pixel"}, "family": {"kind": "eps"}, "score": {"kind": "partial_noise"}}
    )
    assert config.family.schedule.steps == 1000  # type: ignore[union-attr]
    table = compose.predictor(
        config, target_fpr=0.05, shape=(64, 64), weights=compose.LEARNT
    ).denoiser.levels.table
    assert table is not None
    assert len(table) == 1000
    assert config.score.levels == (pytest.approx(float(table[249]), abs=0.005),)  # type: ignore[union-attr]


def test_partial_noise_takes_by_default_ten_steps_down_from_its_level() -> None:
    config = parse(
        {"codec": {"kind": "pixel"}, "family": {"kind": "eps"}, "score": {"kind": "partial_noise"}}
    )
    assert config.score.steps == 10  # type: ignore[union-attr]
    assert (
        compose.predictor(config, target_fpr=0.05, shape=(64, 64), weights=compose.LEARNT).evaluations == 10
    )


def test_a_distance_without_a_space_behind_its_colon_is_a_name_that_there_is_not() -> None:
    with pytest.raises(ConfigError, match=r"score\.partial_noise\.distances\.l1:1\.0.*'l1', 'l2'"):
        load(preset="pixels", overrides=["score.distances={l1:1.0}"])


def test_distances_are_named_anew_and_not_added() -> None:
    config = load(preset="pixels", overrides=["score.distances={l1: 1.0, ssim: 0.5}"])
    assert config.score.distances == {"l1": 1.0, "ssim": 0.5}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.stepps=3", "train.stepps (did you mean steps?)"),
        ("trian.steps=3", "trian (did you mean train?)"),
        ("net.widht=3", "did you mean width?"),
        ("score.sigma=3", "did you mean sigmas?"),
        ("family.sdt=1", "did you mean std?"),
        ("data.augment.rotate9=true", "did you mean rotate90?"),
    ],
)
def test_a_wrong_key_is_told_with_the_near_miss(override: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(preset="features", overrides=[override])
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.steps=0", "train.steps"),
        ("train.steps=many", "got 'many'"),
        ("data.channels=2", "data.channels"),
        ("data.size=8", "data.size"),
        ("pool.share=1.5", "pool.share"),
        ("threshold.target_fpr=0", "threshold.target_fpr"),
        ("codec.kind=wavelet", "codec"),
        ("train.times=log_normal", "train"),
    ],
)
def test_a_wrong_value_is_told_with_its_place(override: str, told: str) -> None:
    base = "pixels" if "times" in override else "features"
    with pytest.raises(ConfigError) as caught:
        load(preset=base, overrides=[override])
    assert told in str(caught.value)
    assert caught.value.exit_code == 2


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load(preset="tiny", overrides=["train.stepps=3", "net.widht=4", "data.size=1"])
    assert len(str(caught.value).splitlines()) == 3


def test_eps_without_signal_is_refused() -> None:
    with pytest.raises(ConfigError, match="eps is undefined where the signal is zero"):
        load(preset="pixels", overrides=["family.kind=eps", "family.schedule.zero_terminal_snr=true"])
    load(preset="pixels", overrides=["family.schedule.zero_terminal_snr=true", "family.kind=v"])


def test_an_unknown_preset_is_told_with_the_near_miss() -> None:
    with pytest.raises(ConfigError, match=r"did you mean features\?.*presets: features, fine, pixels, tiny"):
        load(preset="feature")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a: [1", "not valid YAML"),
        (b"- 1\n- 2\n", "not list"),
        (b"\xff\xfe\x00", "not valid YAML"),
        (b"", "NoneType"),
    ],
)
def test_a_file_that_is_no_configuration(content: bytes, told: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=told):
        load(file)


def test_a_missing_file_and_a_wrong_override(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match=r"--set expects key\.sub=value"):
        load(preset="tiny", overrides=["train.steps"])


def test_the_schema_is_a_schema_and_knows_every_key() -> None:
    schema = RunConfig.model_json_schema()
    json.dumps(schema)
    for node in nodes(schema):
        if "$ref" in node:
            assert node["$ref"].removeprefix("#/$defs/") in schema["$defs"]
        if isinstance(node.get("type"), str):
            assert node["type"] in TYPES
        if "properties" in node:
            assert node["type"] == "object"
            assert node["additionalProperties"] is False
        if "discriminator" in node:
            assert set(node["discriminator"]["mapping"].values()) <= {part["$ref"] for part in node["oneOf"]}
    assert set(schema["properties"]) == set(RunConfig.model_fields)


def nodes(value: Any) -> list[dict[str, Any]]:
    """Every mapping inside a JSON value."""
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return ([value] if isinstance(value, dict) else []) + [node for item in below for node in nodes(item)]


def test_a_configuration_cannot_be_changed() -> None:
    config = load(preset="tiny")
    with pytest.raises(Exception, match="frozen"):
        config.train.steps = 5  # type: ignore[misc]


def test_stages_that_do_not_score_have_to_stand_apart() -> None:
    with pytest.raises(ConfigError, match=r"unscored: 1 leaves stages out.*stages: apart"):
        load(preset="features", overrides=["score.stages=together"])
    assert load(preset="features").score.unscored == 1  # type: ignore[union-attr]
    load(preset="features", overrides=["score.stages=together", "score.unscored=0"])
