"""Reading a configuration: preset, file and overrides, merged, then checked with near misses for wrong keys."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import ValidationError

from anodiff.config.schema import RunConfig
from anodiff.errors import ConfigError


def presets() -> list[str]:
    """The names of the built-in configurations."""
    folder = resources.files("anodiff") / "presets"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load(
    path: str | Path | None = None, *, preset: str | None = None, overrides: Iterable[str] = ()
) -> RunConfig:
    """A checked configuration: the preset, then the file, then `key.sub=value` overrides, each over the one before.

    A file may name its own preset with a top-level `preset:` key. Raises ConfigError with the near miss of a wrong key.
    """
    given = _read(Path(path)) if path is not None else {}
    base = preset or given.pop("preset", None)
    given.pop("preset", None)
    values = _preset(base or "features") if base or path is None else {}
    values = _merge(values, given)
    for override in overrides:
        values = _merge(values, _override(override))
    return parse(values)


def parse(values: Mapping[str, Any]) -> RunConfig:
    """The configuration held by a mapping; raises ConfigError that names each wrong key and its near miss."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_sentence(item) for item in error.errors())) from None


def dump(config: RunConfig) -> str:
    """The configuration as YAML, every key present, that `parse` reads back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, width=100)


def _preset(name: str) -> dict[str, Any]:
    if name not in presets():
        raise ConfigError(
            f"There is no preset {name!r}{_near(name, presets())}; presets: {', '.join(presets())}."
        )
    return yaml.safe_load((resources.files("anodiff") / "presets" / f"{name}.yaml").read_text())


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The configuration {path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration {path} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(
            f"The configuration {path} should hold keys and values, not {type(values).__name__}."
        )
    return values


def _override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set expects key.sub=value, got {text!r}.")
    tree: Any = yaml.safe_load(value) if value else None
    for part in reversed(key.strip().split(".")):
        tree = {part: tree}
    return tree


def _merge(base: Any, over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, section by section; a section of another `kind` replaces the old one whole."""
    if not isinstance(base, dict):
        return dict(over)
    if "kind" in over and "kind" in base and not _alike(base["kind"], over["kind"]):
        return dict(over)
    merged = dict(base)
    for key, value in over.items():
        merged[key] = (
            _merge(merged.get(key), value) if isinstance(value, Mapping) and key != "distances" else value
        )
    return merged


def _alike(first: str, second: str) -> bool:
    """Whether two kinds are read by the same model, so that keys of one stay valid for the other."""
    same = (
        {"eps", "v", "x0"},
        {"none", "global", "position"},
        {"maximum", "top_share"},
        {"quantile", "conformal"},
    )
    return first == second or any(first in group and second in group for group in same)


def _sentence(item: Any) -> str:
    place = [str(part) for part in item["loc"]]
    section: Any = RunConfig
    for part in place[:-1]:
        section = _inside(section, part)
    where = ".".join(place) or "the configuration"
    if item["type"] == "extra_forbidden":
        known = list(section.model_fields) if isinstance(section, type) else []
        return f"Unknown key {where}{_near(place[-1], known)}; known here: {', '.join(known) or 'nothing'}."
    if item["type"] == "value_error":
        text = str(item["ctx"]["error"])
        return f"{text}." if not place else f"{where}: {text}."
    return f"{where}: {item['msg']} (got {item['input']!r})."


def _inside(section: Any, part: str) -> Any:
    """The model a location part leads to: a field of a section, or a member of a union by its `kind`."""
    if isinstance(section, tuple):
        return next((m for m in section if part in str(m.model_fields["kind"].annotation)), RunConfig)
    field = section.model_fields.get(part) if isinstance(section, type) else None
    if field is None:
        return section
    union = get_origin(field.annotation) in (Union, UnionType)
    return get_args(field.annotation) if union else field.annotation


def _near(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""
