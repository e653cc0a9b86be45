"""What a benchmark depends on: data sets, methods, seeds, from one YAML file."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag, ValidationError, model_validator

from anodiff.config.section import Section
from anodiff.errors import ConfigError

BASELINES = ("nearest_thumbnail", "pixel_gaussian")
"""Methods that learn nothing; see `bench/plain.py`."""

BUILDERS = ("elpv", "demo:<category>")
"""Data sets that come inside a package."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]  # it becomes a folder's
Seed = Annotated[int, Field(ge=0)]
_KINDS = {"preset": "ours", "config": "ours", "anomalib": "anomalib", "baseline": "baseline"}


class DataSet(Section):
    """Pictures that are there, or that a package of this machine brings along."""

    path: str | None = None  # folder or manifest, relative to the data root
    builder: str | None = None  # elpv, or demo:<category>
    args: dict[str, Any] = Field(default_factory=dict)  # of the builder, such as {train: 18}
    split_column: str = "split"
    category: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> DataSet:
        if (self.path is None) == (self.builder is None):
            raise ValueError("a set is either a path or a builder; give exactly one of the two")
        if self.builder is not None and not (self.builder == "elpv" or self.builder.startswith("demo:")):
            raise ValueError(f"there is no builder {self.builder!r}; builders: {', '.join(BUILDERS)}")
        if self.args and self.builder is None:
            raise ValueError("args are a builder's; a set with a path has none")
        return self


class Method(Section):
    """What every method may say."""

    seeds: tuple[Seed, ...] | None = None  # None: those of the benchmark
    sets: tuple[str, ...] | None = None  # None: all
    most_train: PositiveInt | None = None  # training pictures at most, chosen by a hash of their names
    family: str | None = None  # kind of method, for the report's table of families


class OurMethod(Method):
    """A detector of this package."""

    preset: str | None = None
    config: str | None = None  # YAML file, relative to the benchmark's
    set: dict[str, Any] = Field(default_factory=dict)  # dotted overrides: {train.steps: 400}
    steps: tuple[PositiveInt, ...] = ()  # further numbers of steps of the restoration, for the curves

    @model_validator(mode="after")
    def _one_start(self) -> OurMethod:
        if self.preset is not None and self.config is not None:
            raise ValueError("give a preset or a config, not both; a config may name its own preset")
        return self


class AnomalibMethod(Method):
    """A model of anomalib, trained by anomalib's own engine on the same pictures."""

    anomalib: str  # class path
    args: dict[str, Any] = Field(default_factory=dict)  # of the class
    backbone: str | None = None  # network of timm; None: the class's own
    layers: tuple[int | str, ...] | None = None
    size: Annotated[int, Field(ge=16, le=4096)] = 256  # pictures are size x size
    coreset: PositiveInt | None = (
        None  # patches kept by a class with coreset_sampling_ratio, whatever the set
    )
    batch: PositiveInt = 8
    epochs: PositiveInt | None = None  # of a class that trains; None: anomalib's own choice


class PlainMethod(Method):
    """A baseline that learns nothing."""

    baseline: Literal["nearest_thumbnail", "pixel_gaussian"]
    size: Annotated[int, Field(ge=4, le=1024)] | None = None  # None: its own


class Generation(Section):
    """How the pictures a model paints are judged; methods that paint nothing are left alone."""

    samples: Annotated[int, Field(ge=4)] = 64
    extractor: str = "lite0"  # inception, lite0, or a network of timm
    weights: str | None = (
        None  # file of the extractor's weights, relative to the benchmark's; inception needs it
    )
    steps: PositiveInt | None = None  # None: the painter's own
    batch: PositiveInt = 16

    @model_validator(mode="after")
    def _real_inception(self) -> Generation:
        if self.extractor == "inception" and self.weights is None:
            raise ValueError(
                "the extractor inception needs weights: the path of torch-fidelity's file; without it take lite0"
            )
        return self


def _kind(value: Any) -> str | None:
    """Which of the methods a mapping describes, by the keys it has; None where that is not clear."""
    given = value if isinstance(value, dict) else getattr(value, "__dict__", {})
    kinds = {kind for key, kind in _KINDS.items() if given.get(key) is not None}
    return kinds.pop() if len(kinds) == 1 else None


AnyMethod = Annotated[
    Annotated[OurMethod, Tag("ours")]
    | Annotated[AnomalibMethod, Tag("anomalib")]
    | Annotated[PlainMethod, Tag("baseline")],
    Discriminator(_kind),
]


class Bench(Section):
    """Methods x data sets x seeds."""

    name: Name
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2)
    device: str = "auto"
    timeout: PositiveFloat | None = None  # seconds a cell may take; None: as long as it takes
    sets: Annotated[dict[Name, DataSet], Field(min_length=1)]
    methods: Annotated[dict[Name, AnyMethod], Field(min_length=1)]
    generation: Generation | None = None

    @model_validator(mode="after")
    def _known(self) -> Bench:
        for name, method in self.methods.items():
            for wanted in method.sets or ():
                if wanted not in self.sets:
                    raise ValueError(
                        f"methods.{name}.sets: there is no set {wanted!r}; sets: {', '.join(self.sets)}"
                    )
            for seed in method.seeds or ():
                if seed not in self.seeds:
                    raise ValueError(f"methods.{name}.seeds: {seed} is not among the benchmark's seeds")
        return self


def load(path: str | Path) -> Bench:
    """The benchmark of a YAML file.

    Raises:
        ConfigError: no such file, no YAML, or a sentence for each wrong key with its near miss.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The benchmark {path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"The benchmark {path} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"The benchmark {path} should hold keys and values, not {type(values).__name__}.")
    return parse({"name": path.stem, **values})


def parse(values: dict[str, Any]) -> Bench:
    """The benchmark held by a mapping; ConfigError as `load`."""
    try:
        return Bench.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_sentence(dict(item)) for item in error.errors())) from None


def dump(bench: Bench) -> str:
    """The benchmark as YAML, every key present, that `load` reads back to an equal one."""
    return yaml.safe_dump(bench.model_dump(mode="json"), sort_keys=False, width=100)


def _sentence(item: dict[str, Any]) -> str:
    place = [str(part) for part in item["loc"]]
    section = _section(place)
    if len(place) > 2 and place[0] == "methods" and place[2] in _KINDS.values():
        del place[2]  # the tag of the union is no key of the file
    where = ".".join(part for part in place if part != "[key]") or "the benchmark"
    if item["type"] == "extra_forbidden":
        known = list(section.model_fields)
        near = difflib.get_close_matches(place[-1], known, n=1, cutoff=0.5)
        meant = f" (did you mean {near[0]}?)" if near else ""
        return f"Unknown key {where}{meant}; known here: {', '.join(known)}."
    if item["type"] in ("union_tag_not_found", "union_tag_invalid"):
        return (
            f"{where}: expected a method that is named by preset or config (ours), by anomalib (a class path) or by "
            f"baseline, and by one of them alone; got {item['input']!r}."
        )
    if item["type"] == "string_pattern_mismatch":
        return f"{where}: a name becomes a folder's; expected letters, digits, `.`, `-` and `_`, got {item['input']!r}."
    if item["type"] == "value_error":
        text = str(item["ctx"]["error"])
        return f"{text}." if not place else f"{where}: {text}."
    return f"{where}: {item['msg']} (got {item['input']!r})."


def _section(place: list[str]) -> type[Section]:
    """The section that the last part of a place should be a key of."""
    if place[:1] == ["sets"] and len(place) > 2:
        return DataSet
    if place[:1] == ["generation"] and len(place) > 1:
        return Generation
    if place[:1] == ["methods"] and len(place) > 3:
        return {"ours": OurMethod, "anomalib": AnomalibMethod, "baseline": PlainMethod}[place[2]]
    return Bench
