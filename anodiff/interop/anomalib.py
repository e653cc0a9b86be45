"""Models of anomalib, trained by anomalib's own engine on tensors of ours, with backbones from this machine.

What a comparison needs and anomalib does otherwise by itself: pictures are brought to size by us, once, with
antialiasing; nothing of the test side serves as validation; scores and maps come raw, for its post-processing squashes
them by statistics of the validation set; pretrained weights are read where `codec.weights` finds them, and never
downloaded.
"""

from __future__ import annotations

import importlib
import inspect
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anodiff.codec.backbone import backbone as frozen
from anodiff.codec.weights import find_weights
from anodiff.errors import ConfigError, DataError, RefusalError

OFF = ("post_processor", "evaluator", "visualizer")
"""Parts of a model that look at labels, squash scores or write pictures."""


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """Which model of anomalib, and how it is trained."""

    path: str  # of the class: anomalib.models.Patchcore
    args: dict[str, Any]  # of the class
    size: int  # side of the pictures, px
    backbone: str | None = None  # network of timm; None: the class's own
    layers: tuple[int | str, ...] | None = None
    coreset: int | None = None  # patches kept of all training pictures together
    batch: int = 8
    epochs: int | None = None
    seed: int = 0
    device: torch.device


class Trained:
    """A trained model of anomalib: pictures in [0, 1] in, raw scores and maps out."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self.module = module.eval().to(device)
        self.device = device

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores [B] and maps [B, h, w], or None, of pictures [B, 3, s, s]; higher = more anomalous.

        Where a model gives no score, it is the map's maximum.

        Raises:
            RefusalError: neither a score nor a map.
        """
        found = self.module(images.to(self.device))
        maps = getattr(found, "anomaly_map", None)
        scores = getattr(found, "pred_score", None)
        if scores is None and maps is None:
            raise RefusalError(f"{type(self.module).__name__} gives neither a score nor a map of a picture.")
        if maps is not None:
            maps = maps.reshape(len(images), *maps.shape[-2:])  # [B, h, w]
        scores = maps.amax((1, 2)) if scores is None else scores.reshape(len(images))  # type: ignore[union-attr]
        return scores.float().cpu(), maps

    def size_mb(self) -> float:
        """Parameters and buffers in 10^6 bytes, the memory bank among them."""
        return sum(value.numel() * value.element_size() for value in self.module.state_dict().values()) / 1e6


def train(pictures: Sequence[Tensor], how: Foreign) -> Trained:
    """The model `how` describes, trained on good pictures [3, s, s] in [0, 1].

    Draws of torch, numpy and random are seeded globally, for anomalib draws from the global generators: call it in a
    process of its own.

    Raises:
        ConfigError: no such class, or arguments it does not take.
        ModelFileError: the backbone's weights are not on this machine.
        RefusalError: a model that is not trained on pictures, or whose backbone cannot be given weights of ours.
    """
    random.seed(how.seed)
    np.random.seed(how.seed)  # noqa: NPY002  # the generator anomalib and scikit-learn draw from
    torch.manual_seed(how.seed)
    module = built(how, count=len(pictures))
    from anomalib.engine import Engine

    with tempfile.TemporaryDirectory() as folder:
        rest: dict[str, Any] = {} if how.epochs is None else {"max_epochs": how.epochs}
        engine = Engine(
            default_root_dir=folder,
            accelerator="cpu" if how.device.type == "cpu" else "gpu",
            devices=1 if how.device.index is None or how.device.type == "cpu" else [how.device.index],
            enable_progress_bar=False,
            enable_model_summary=False,
            **rest,
        )
        engine.fit(model=module, train_dataloaders=_loader(pictures, how))
    return Trained(module, how.device)


def built(how: Foreign, *, count: int) -> Any:
    """The untrained model with its backbone's weights; `count` training pictures set the share of a coreset."""
    from anomalib import LearningType

    model = _class(how.path)
    known = inspect.signature(model).parameters
    args = {**how.args, **dict.fromkeys(OFF, False)}
    for key, value in (
        ("backbone", how.backbone),
        ("layers", None if how.layers is None else list(how.layers)),
    ):
        if value is not None:
            args[key] = value
    if "pre_trained" in known:
        args["pre_trained"] = False  # or it would be downloaded; its weights are filled in below
    backbone = args.get("backbone", known["backbone"].default if "backbone" in known else None)
    if how.coreset is not None:
        args["coreset_sampling_ratio"] = _ratio(how, backbone, count)
    if wrong := [key for key in args if key not in known]:
        raise ConfigError(f"{how.path} takes no argument {wrong[0]!r}; it takes {', '.join(known)}.")
    args.setdefault("pre_processor", _pre_processor(model, backbone, how.size))
    try:
        module = model(**args)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{how.path} refuses its arguments: {error}") from None
    if module.learning_type != LearningType.ONE_CLASS:
        raise RefusalError(
            f"{how.path} is not trained on good pictures: it learns {module.learning_type.value}."
        )
    if "pre_trained" in known:
        fill(module, how.path)
    return module


def _class(path: str) -> Callable[..., Any]:
    home, _, name = path.rpartition(".")
    if not home.startswith("anomalib"):
        raise ConfigError(
            f"Expected the path of a class of anomalib, such as anomalib.models.Padim, got {path!r}."
        )
    try:
        return getattr(importlib.import_module(home), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"There is no model {path}: {error}.") from None


def fill(module: nn.Module, path: str) -> None:
    """Give every frozen backbone of the model the weights found on this machine; a student keeps its own.

    Raises:
        RefusalError: there is none of the kind that takes them; it would be left random, and nobody would see.
    """
    from anomalib.models.components import TimmFeatureExtractor

    every = [part for part in module.modules() if isinstance(part, TimmFeatureExtractor)]
    found = [part for part in every if not part.requires_grad]
    if not found or any(not isinstance(part.backbone, str) or not hasattr(part, "idx") for part in found):
        raise RefusalError(
            f"{path} keeps its pretrained backbone where weights of this machine cannot be given to it; it would be "
            "measured with random ones. Take a model with a frozen TimmFeatureExtractor: Padim, Patchcore, Cflow, Dfm."
        )
    for part in found:
        net = frozen(str(part.backbone), tuple(part.idx)).net
        part.feature_extractor.load_state_dict(net.state_dict())


def _pre_processor(model: Any, backbone: Any, size: int) -> nn.Module:
    """What a picture that already has its size goes through: the normalisation its backbone was trained with.

    The resize leaves it as it is; some models read their input's size from it.
    """
    from anomalib.pre_processing import PreProcessor
    from torchvision.transforms.v2 import Compose, Normalize, Resize

    if not isinstance(backbone, str):
        return model.configure_pre_processor(image_size=(size, size))
    found = find_weights(backbone)
    normalise = Normalize(mean=list(found.mean), std=list(found.std))
    return PreProcessor(transform=Compose([Resize((size, size), antialias=True), normalise]))


def _ratio(how: Foreign, backbone: Any, count: int) -> float:
    """The share of all patches that makes `how.coreset` of them; all where there are fewer."""
    if not isinstance(backbone, str) or how.layers is None or not all(isinstance(i, int) for i in how.layers):
        raise ConfigError(
            "A coreset of so many patches needs backbone and layers (numbers), which say how many there are."
        )
    stride = frozen(backbone, tuple(int(i) for i in how.layers), weights="random").strides[0]
    patches = count * (-(-how.size // stride)) ** 2
    return min(1.0, (how.coreset or patches) / patches + 1e-9)  # their product is rounded down


def _loader(pictures: Sequence[Tensor], how: Foreign) -> Any:
    from anomalib.data.dataclasses.torch import ImageBatch, ImageItem
    from torch.utils.data import DataLoader
    from torchvision.tv_tensors import Image

    if not len(pictures):
        raise DataError("Expected at least one picture to train on, got none.")

    class Items(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(pictures)

        def __getitem__(self, place: int) -> ImageItem:
            return ImageItem(image=Image(pictures[place]), gt_label=torch.tensor(False))

    return DataLoader(
        Items(), batch_size=how.batch, shuffle=True, collate_fn=ImageBatch.collate, num_workers=0
    )
