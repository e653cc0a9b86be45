"""From a configuration to objects: the one place that knows both sides."""

from anodiff.compose.codec import LEARNT, autoencoding, codec, codec_plan, criticised
from anodiff.compose.detection import predictor, scorer, steering
from anodiff.compose.head import head_objective, head_plan
from anodiff.compose.levels import check_levels
from anodiff.compose.model import check_shape, classifier, denoiser, labeller, learner, multiple
from anodiff.compose.preparation import preparation, upright
from anodiff.compose.training import (
    augmentation,
    classifier_objective,
    classifier_plan,
    noise,
    objective,
    plan,
)

__all__ = [
    "LEARNT",
    "augmentation",
    "autoencoding",
    "check_levels",
    "check_shape",
    "classifier",
    "classifier_objective",
    "classifier_plan",
    "codec",
    "codec_plan",
    "criticised",
    "denoiser",
    "head_objective",
    "head_plan",
    "labeller",
    "learner",
    "multiple",
    "noise",
    "objective",
    "plan",
    "predictor",
    "preparation",
    "scorer",
    "steering",
    "upright",
]
