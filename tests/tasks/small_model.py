"""An untrained model of pixels that reads words, or whatever else is asked for, all of whose weights matter."""

from __future__ import annotations

import numpy as np
import torch

from anodiff import compose
from anodiff.config import RunConfig, load
from anodiff.detect.predictor import Predictor
from anodiff.encode.vocabulary import learn_vocabulary
from anodiff.painting import paint
from anodiff.tasks.task import Task

CPU = torch.device("cpu")
SHAPE = (16, 16)
CAPTIONS = ("a brass washer and a steel bolt", "two copper gears", "a blue nut")
SMALL = (
    "data.size=16",
    "codec.patch=2",
    "net={width: 8, multipliers: [1], attention: [0], transformer: 1}",
    "family={kind: eps, schedule: {steps: 100}}",
)
TEXT = ("tokens={kind: text, channels: 16, normal: [a blue nut]}",)


def configured(*words: str) -> RunConfig:
    """The configuration, with the vocabulary of `CAPTIONS` where it reads words."""
    config = load(preset="pixels", overrides=[*SMALL, *words])
    if config.tokens.kind != "text":
        return config
    known = learn_vocabulary(CAPTIONS, size=100)
    return config.model_copy(update={"tokens": config.tokens.model_copy(update={"vocabulary": known})})


def made(config: RunConfig) -> Predictor:
    """A predictor of it; layers that begin at zero are moved away from there."""
    predictor = compose.predictor(config, target_fpr=0.05, shape=SHAPE, weights=compose.LEARNT)
    with torch.no_grad():
        for number, value in enumerate(predictor.denoiser.parameters()):
            chance = torch.Generator().manual_seed(number)
            value.add_(0.2 * torch.randn(value.shape, generator=chance))
    return predictor.eval()


def painted(
    predictor: Predictor, task: Task, *, count: int = 2, batch: int = 8, steps: int = 4
) -> np.ndarray:
    """The pictures of a task as whole numbers [n, h, w, C]."""
    shown = paint(predictor, SHAPE, count=count, steps=steps, batch=batch, device=CPU, rows_of=task.rows)
    return np.stack([task.finish(picture) for picture in shown]).astype(int)
