"""The way of pictures to a model's eyes, from its configuration."""

from __future__ import annotations

from anodiff.config import RunConfig
from anodiff.config.pose import AutoPose, UprightPose
from anodiff.data.pose import Upright
from anodiff.data.preparation import Preparation
from anodiff.errors import ConfigError


def preparation(config: RunConfig, shape: tuple[int, int]) -> Preparation:
    """What brings a picture to the working shape (h, w), upright where the model asks for it.

    Raises:
        ConfigError: the pose is not settled yet, which `complete` does.
    """
    return Preparation(shape=shape, channels=config.data.channels, upright=upright(config))


def upright(config: RunConfig) -> Upright | None:
    """The pose that parts are brought to; None for pictures that are looked at as they are.

    Raises:
        ConfigError: it is not settled yet.
    """
    match config.data.pose:
        case UprightPose(canvas=canvas, turn=turn) if canvas is not None and turn is not None:
            return Upright(canvas=canvas, turn=turn)
        case UprightPose() | AutoPose():
            raise ConfigError(
                f"data.pose: {config.data.pose.kind} is settled by looking at the good pictures; complete the "
                "configuration with them first (`anodiff.complete.complete`), as `Detector.fit` does."
            )
    return None
