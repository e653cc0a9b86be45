"""From a model, data and a plan to trained weights; the loop is Lightning's, everything it depends on is ours."""

from __future__ import annotations

import operator
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from pickle import PicklingError
from typing import Literal

import torch
from lightning.pytorch import Trainer
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import ProcessException

from anodiff.errors import ConfigError, DataError, DeviceError, TrainingError
from anodiff.train import checkpoint, record
from anodiff.train.adversarial import Adversarial
from anodiff.train.autoencoding import Autoencoding
from anodiff.train.checkpoint import State
from anodiff.train.descent import Descent
from anodiff.train.duel import Duel
from anodiff.train.importance import adapts
from anodiff.train.interrupt import deferred, event, quiet
from anodiff.train.marked import Marked
from anodiff.train.marking import Marking
from anodiff.train.objective import Minimised
from anodiff.train.plan import Plan
from anodiff.train.progress import Progress, Silent
from anodiff.train.rebuild import Rebuild
from anodiff.train.source import AUGMENT, Items, key
from anodiff.train.told import Told, check_told
from anodiff.train.training import Encodes, Training

COURSES: dict[str, type[Training]] = {
    "descent": Descent,
    "duel": Duel,
    "rebuild": Rebuild,
    "marking": Marking,
}
"""How an objective is reached, by the name in its `course`; one that names none is descended."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended; the weights themselves are in the model."""

    steps: int  # done, over all resumptions
    seconds: float  # spent on them
    losses: list[float]  # of each step; from the first on where the run has a folder
    stopped_by: Literal["steps", "time"]
    alarms: tuple[str, ...] = ()  # what looked wrong at the end of a game
    kept: Mapping[int, Mapping[str, Tensor]] = field(
        default_factory=dict
    )  # averages on the way, by `plan.keep`


def fit(
    model: nn.Module,
    data: Items,
    plan: Plan,
    *,
    objective: Minimised | Adversarial | Autoencoding | Marked,
    folder: Path | None = None,
    resume: str | None = None,
    labels: Sequence[int] | None = None,
    told: Told | None = None,
    codec: Encodes | None = None,
    identity: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """How the training of `model` ended; it leaves with the averaged weights loaded, in evaluation mode.

    On a CPU the weights are a function of the arguments and of the number of threads alone: a run that was
    killed at any moment and resumed ends with the same bits as one that was not. Two devices equal one up to
    the order of sums; not where a critic compares the rows of a batch, of which each device has only its own.

    Args:
        model: what `objective.loss` takes, trained in place: a denoiser `(y, sigma, cond) -> x0`, a
            classifier `(y, sigma) -> logits` for `CrossEntropy`, `Adversaries` for `Adversarial`, `Criticised` for
            `Autoencoding`, or a head `evidence -> logits` for `Marked`.
        data: rows by number; codes, or pictures in [0, 1] where `codec` is given.
        plan: the numbers of the run.
        objective: what is minimised; with `LossSecondMoment` as its `times` the levels follow the losses.
        folder: gets `metrics.csv` (step, loss, lr, seconds, and the figures of a game) and `checkpoints/`; None keeps
            nothing.
        resume: None starts anew and clears what an earlier run left in `folder`; "auto" goes on from the
            newest readable checkpoint in it, or starts anew where there is none; else the path of a
            checkpoint.
        labels: a class for each row of `data`, for `Cond.label`; from 0 to below `model.net.classes` where the
            network says that.
        told: what each row is told beside its label, for the other fields of `Cond`: words, boxes, a picture. A resumed
            run is not held to it; let `identity` tell what it depends on.
        codec: frozen encoder applied to each batch, without gradient, on the device.
        identity: what else must be the same on resumption, such as `{"configuration": digest}`.
        progress: shows the course; None is silent.

    Raises:
        ConfigError: a number of `plan` or `objective` makes no sense, or a checkpoint belongs to another
            configuration.
        RefusalError: the objective has no meaning for this model, or does not train all of it.
        DataError: no rows, not one label a row, a label that is no class of the network, or rows that are told unlike
            things.
        ModelFileError: no checkpoint can be read.
        TrainingError: a loss or weight that is not finite, with the step, the learning rate and what to try.
        DeviceError: the devices asked for are not there.
        KeyboardInterrupt: after Ctrl-C, once the step at hand is done and the checkpoint saved.
    """
    plan.check()
    course_of = COURSES[getattr(objective, "course", "descent")]
    _check_data(data, plan, labels, told)
    _check_labels(labels, model)
    if not course_of.conditional and not (labels is None and told is None and codec is None):
        raise ConfigError(
            f"{type(objective).__name__} shows the model pictures and nothing else; leave labels, told and codec out"
        )
    if (check := getattr(objective, "check", None)) is not None:
        check(model, plan, labels)
    times = getattr(objective, "times", None)
    history = times.begin() if times is not None and adapts(times) else None
    if resume is not None and folder is None:
        raise ConfigError("resume was asked for without a folder; name the folder of the run to go on with")
    folder = None if folder is None else Path(folder)
    identity = identity or {}
    marks = checkpoint.fingerprint(plan, objective, model, rows=len(data), identity=identity)
    state = _begin(folder, resume, marks)
    progress = progress or Silent()
    device = next(model.parameters()).device
    with tempfile.TemporaryDirectory(prefix="anodiff-") as aside, quiet():
        trainer = _trainer(plan, state, Path(aside), turns=course_of.turns)
        spawns = _spawns(trainer)
        _check_devices(trainer, plan)
        stop = event(shared=spawns)
        # Processes that were spawned answer through files, if need be through files that nobody else sees.
        place = folder or (Path(aside) if spawns else None)
        run = course_of(
            model,
            data,
            plan,
            objective,
            history=history,
            labels=labels,
            told=told,
            codec=codec,
            folder=place,
            fingerprint=marks,
            progress=progress,
            stop=stop,
        )
        if state is not None:
            run.restore(state)
        course = record.cut(place / "metrics.csv", run.steps_done, further=run.further) if place else []
        if run.steps_done < plan.steps and not (plan.max_time is not None and run.spent >= plan.max_time):
            run.cpu()  # spawned processes are sent memory, not device handles
            try:
                with deferred(stop), _own_randomness():
                    _train(trainer, run)
            finally:
                progress.end()
            if spawns and place is not None:
                _recall(run, place)
                course = record.read(place / "metrics.csv")
            else:
                course += run.course
        elif state is not None:
            run.stopped_by = "steps" if run.steps_done == plan.steps else "time"
    run.ema.give(model)
    model.eval().to(device)
    if (
        run.stopped_by == "interrupt" or stop.is_set()
    ):  # set once the last step had been taken, nobody looked at it
        kept = f"; the checkpoint is in {folder / 'checkpoints'}" if folder else ""
        raise KeyboardInterrupt(f"interrupted after step {run.steps_done} of {plan.steps}{kept}")
    stopped_by = "time" if run.stopped_by == "time" else "steps"
    losses = [row.loss for row in course]
    return Outcome(run.steps_done, run.seconds, losses, stopped_by, course_of.alarms(course), run.kept)


def _check_data(data: Items, plan: Plan, labels: Sequence[int] | None, told: Told | None) -> None:
    if len(data) == 0:
        raise DataError("training needs at least one picture, got none; check the folder and the split")
    if labels is not None and len(labels) != len(data):
        raise DataError(
            f"one label a picture was expected, got {len(labels)} labels for {len(data)} pictures"
        )
    if told is not None:
        check_told(told, len(data), lambda row: key(plan.seed, AUGMENT, 0, row))
    if labels is None and told is None and plan.condition_dropout:
        raise ConfigError(
            f"train.condition_dropout is {plan.condition_dropout} but there is no condition to drop; "
            "give labels, or tell the rows something, or set it to 0"
        )


def _check_labels(labels: Sequence[int] | None, model: nn.Module) -> None:
    """Refuse what is no class, by its row."""
    classes = getattr(getattr(model, "net", None), "classes", None)
    known = isinstance(classes, int)
    wanted = (
        f"a whole number from 0 to {classes - 1}, a class of the network"
        if known
        else "a whole number from 0 up"
    )
    for row, label in enumerate(() if labels is None else labels):
        try:
            number = operator.index(label)
        except TypeError:
            number = -1
        if number < 0 or (known and number >= classes):
            raise DataError(f"the label of each picture is {wanted}, but that of row {row} is {label!r}")


def _begin(folder: Path | None, resume: str | None, marks: dict[str, str]) -> State | None:
    """The state to go on from, checked against `marks`; None to start anew, in a folder that is cleared."""
    if folder is None:
        return None
    place = folder / "checkpoints"
    if resume is None:
        checkpoint.clear(place)
        (folder / "metrics.csv").unlink(missing_ok=True)
        return None
    state = checkpoint.latest(place) if resume == "auto" else checkpoint.load(Path(resume))
    if state is not None:
        checkpoint.agree(state, marks)
    return state


def _trainer(plan: Plan, state: State | None, aside: Path, *, turns: int) -> Trainer:
    """A Trainer that does nothing but the loop, its devices and its precision."""
    game = turns > 1
    strategy = plan.strategy
    if strategy == "auto" and plan.devices != 1:
        # Spawned processes work from a script, a test and a console command alike: nothing is run twice.
        # One launched by torchrun has its siblings already.
        launched = distributed.is_available() and distributed.is_torchelastic_launched()
        strategy = "ddp" if launched else "ddp_spawn"
    if game and strategy in ("ddp", "ddp_spawn"):
        strategy += "_find_unused_parameters_true"  # each player's turn leaves the other's weights alone
    try:
        return Trainer(
            accelerator=plan.accelerator,
            devices=plan.devices,
            strategy=strategy,
            precision=plan.precision,
            # Lightning counts the steps of optimisers, of which a game has several.
            max_steps=(plan.steps - (state.step if state else 0)) * turns,
            max_epochs=-1,
            gradient_clip_val=None if game else plan.clip,  # a game clips each player by itself
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=aside,
        )
    except (
        ValueError,
        TypeError,
        RuntimeError,
    ) as error:  # Lightning's MisconfigurationException is none of them
        raise DeviceError(_devices_text(plan, error)) from error
    except Exception as error:
        if type(error).__name__ != "MisconfigurationException":
            raise
        raise DeviceError(_devices_text(plan, error)) from error


def _devices_text(plan: Plan, error: Exception) -> str:
    return (
        f"train.devices={plan.devices!r} with train.accelerator={plan.accelerator!r} and "
        f"train.strategy={plan.strategy!r} could not be had: {error}. Try devices=1, accelerator='auto'"
    )


def _spawns(trainer: Trainer) -> bool:
    """Whether training happens in processes other than this one."""
    return hasattr(trainer.strategy.launcher, "_start_method")


def _check_devices(trainer: Trainer, plan: Plan) -> None:
    if plan.batch % trainer.world_size:
        raise ConfigError(
            f"train.batch={plan.batch} cannot be dealt out evenly to {trainer.world_size} devices; "
            f"take a multiple of {trainer.world_size}"
        )


def _train(trainer: Trainer, run: Training) -> None:
    port = os.environ.get("MASTER_PORT")
    try:
        trainer.fit(run)
    except ProcessException as error:
        # The text of a spawned process ends with its error's name and message.
        _, known, message = str(error).strip().rpartition("anodiff.errors.TrainingError: ")
        if not known:
            message = f"a training process failed: {message.splitlines()[-1]}"
        raise TrainingError(message) from error
    except (PicklingError, AttributeError, TypeError) as error:
        if "pickle" not in str(error):
            raise
        raise ConfigError(
            f"a part of this run cannot be sent to the processes of other devices: {error}; use train.devices=1"
        ) from error
    except SystemExit as error:
        # Lightning answers a second Ctrl-C by leaving the program; the caller decides about that.
        raise KeyboardInterrupt("interrupted at once; the last checkpoint stands") from error
    finally:
        if port is None:
            os.environ.pop("MASTER_PORT", None)  # else the next run would meet at the same door


def _recall(run: Training, place: Path) -> None:
    """Bring the state that spawned processes ended with into this one."""
    state = checkpoint.latest(place / "checkpoints")
    if state is None:
        raise TrainingError(
            "the training processes ended without a word; run with train.devices=1 to see why"
        )
    run.restore(state)
    run.stopped_by, run.began = state.stopped_by, None


def _own_randomness() -> AbstractContextManager[None]:
    """The caller's random generators are as before once training is over."""
    return torch.random.fork_rng(devices=range(torch.cuda.device_count()))
