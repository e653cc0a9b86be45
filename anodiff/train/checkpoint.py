"""Where a run stands, on disk: written whole or not at all, checked when read, the last two kept."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anodiff.atomic import drafts, replacing
from anodiff.errors import ConfigError, ModelFileError
from anodiff.train.objective import Goal
from anodiff.train.plan import Plan

MAGIC = b"anodiff checkpoint 2\n"
KEPT = 2
CARRIED_OUT = (
    "max_time",
    "checkpoint_every",
    "keep",
    "devices",
    "accelerator",
    "strategy",
    "workers",
)  # may change


@dataclass(frozen=True, kw_only=True)
class State:
    """All that the next step depends on beside the plan and the data; the random numbers depend on `step` alone."""

    step: int  # steps done
    seconds: float  # spent on them, over all resumptions
    stopped_by: str | None  # "steps", "time" or "interrupt" in the last checkpoint of a process
    fingerprint: dict[str, str]
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizers: list[dict[str, Any]]
    precision: dict[str, Any]  # the loss scale of 16-mixed
    law: dict[str, Tensor] = field(default_factory=dict)  # history of an adaptive law of the noise levels
    kept: dict[int, dict[str, Tensor]] = field(default_factory=dict)  # averages to keep, by steps done


def save(folder: Path, state: State) -> Path:
    """The path `folder/step-<steps>.ckpt` that now holds `state`; older ones beyond the last two are gone.

    A kill or a power cut at any moment leaves every `.ckpt` file whole (`atomic.replacing`). The content is preceded by
    its SHA-256.

    Raises:
        OSError: a full disk or a folder without write permission; the checkpoints before stay.
    """
    buffer = io.BytesIO()
    torch.save({part.name: getattr(state, part.name) for part in dataclasses.fields(state)}, buffer)
    content = buffer.getbuffer()
    path = folder / f"step-{state.step:08d}.ckpt"
    with replacing(path) as draft, draft.open("wb") as file:
        file.write(MAGIC)
        file.write(hashlib.sha256(content).digest())
        file.write(content)
    for old in [*found(folder)[KEPT:], *drafts(folder, "step-*.ckpt")]:
        old.unlink(missing_ok=True)
    return path


def load(path: Path) -> State:
    """The state in `path`; no code in it is executed (`weights_only`).

    Raises:
        ModelFileError: the file is missing, cut short, altered or not a checkpoint.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"no checkpoint could be read from {path}: {error.strerror}") from error
    head = len(MAGIC) + 32
    content = memoryview(raw)[head:]
    if not raw.startswith(MAGIC) or hashlib.sha256(content).digest() != raw[len(MAGIC) : head]:
        raise ModelFileError(
            f"{path} is not a whole checkpoint of anodiff (its checksum does not fit {len(raw)} bytes); "
            "remove it and resume from another, or start anew"
        )
    try:
        return State(**torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    except Exception as error:  # a whole file of another version, or a foreign one with our head
        raise ModelFileError(
            f"{path} was written by another version of anodiff: {error}; start anew"
        ) from error


def found(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, newest first."""
    return sorted(folder.glob("step-*.ckpt"), reverse=True)


def latest(folder: Path) -> State | None:
    """The newest readable state in `folder`: an unreadable file falls back to the one before; None without any file.

    Raises:
        ModelFileError: there are checkpoints and none of them can be read.
    """
    paths = found(folder)
    for path in paths:
        try:
            return load(path)
        except ModelFileError as error:
            failure = error
    if paths:
        raise ModelFileError(f"none of the {len(paths)} checkpoints can be read; the last said: {failure}")
    return None


def clear(folder: Path) -> None:
    """Nothing; the checkpoints in `folder` and the drafts of killed runs are gone."""
    for path in [*folder.glob("step-*.ckpt"), *drafts(folder, "step-*.ckpt")]:
        path.unlink(missing_ok=True)


def fingerprint(
    plan: Plan, objective: Goal, model: nn.Module, *, rows: int, identity: Mapping[str, str]
) -> dict[str, str]:
    """What must be the same for a run to go on, by name: plan but for how it is carried out, objective, network, data.

    Args:
        plan: the run's numbers.
        objective: what is minimised, with its levels and noise; a dataclass.
        model: its class, levels and the names, shapes and types of its state count, not its values.
        rows: number of training rows.
        identity: what else the caller holds the run to, such as a digest of its configuration.
    """
    shapes = [(name, tuple(value.shape), str(value.dtype)) for name, value in model.state_dict().items()]
    numbers = {f.name: getattr(plan, f.name) for f in dataclasses.fields(plan) if f.name not in CARRIED_OUT}
    kind = f"{type(model).__name__} for {describe(getattr(model, 'levels', None))}"
    return {
        "model": kind,
        **{f"train.{name}": repr(value) for name, value in numbers.items()},
        **{
            f"objective.{f.name}": describe(getattr(objective, f.name))
            for f in dataclasses.fields(objective)  # type: ignore[arg-type]
        },
        "network": hashlib.sha256(repr(shapes).encode()).hexdigest()[:16],
        "number of training pictures": str(rows),
        **identity,
    }


def describe(value: Any) -> str:
    """A short text that is equal for equal values: dataclasses, tensors, modules, functions with their closures."""
    if isinstance(value, Tensor):
        return (
            "tensor:" + hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]
        )
    if isinstance(value, nn.Module):  # its repr may be pages long, and tells no weights
        state = [f"{name}={describe(tensor)}" for name, tensor in value.state_dict().items()]
        return f"{type(value).__name__}:{hashlib.sha256(repr(state).encode()).hexdigest()[:16]}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = ", ".join(f"{f.name}={describe(getattr(value, f.name))}" for f in dataclasses.fields(value))
        return f"{type(value).__name__}({inner})"
    if isinstance(value, partial):  # its repr holds an address
        given = [*map(describe, value.args), *(f"{key}={describe(v)}" for key, v in value.keywords.items())]
        return f"{describe(value.func)}({', '.join(given)})"
    if hasattr(value, "__qualname__"):
        cells = [describe(cell.cell_contents) for cell in getattr(value, "__closure__", None) or ()]
        return f"{value.__qualname__}({', '.join(cells)})"
    return repr(value)


def agree(state: State, now: dict[str, str]) -> None:
    """Nothing, when `state` was written by the run that `now` describes.

    Raises:
        ConfigError: names what differs, both values, and what to do.
    """
    names = sorted(state.fingerprint.keys() | now.keys())
    there, here = ({name: side.get(name, "absent") for name in names} for side in (state.fingerprint, now))
    changed = [f"{name} was {there[name]}, now {here[name]}" for name in names if there[name] != here[name]]
    if changed:
        raise ConfigError(
            f"the checkpoint at step {state.step} belongs to another configuration: {'; '.join(changed)}. "
            "Put these back to resume it, or start anew without resume or in another folder"
        )
