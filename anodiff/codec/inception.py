"""The Inception network of FID, from a local file of its weights."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from anodiff.errors import DataError, MissingExtraError, ModelFileError


class Inception(nn.Module):
    """The 2048 features that FID is defined on: the Inception of 2015 with TensorFlow's own resize.

    torchvision's Inception has other weights and another input, and gives other numbers. The network is
    torch-fidelity's. Grey pictures are shown as grey colour pictures.
    """

    def __init__(self, net: nn.Module) -> None:
        """Store `net`: uint8 `[B, 3, H, W]` -> a tuple whose first entry is `[B, d]`."""
        super().__init__()
        self.net = net

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """The features [B, 2048] of pictures [B, 1 or 3, H, W] in [0, 1], rounded to 8 bit as FID's pictures are.

        Raises:
            DataError: other than 1 or 3 channels.
        """
        if image.ndim != 4 or image.shape[1] not in (1, 3):
            raise DataError(
                f"expected pictures [B, 1 or 3, H, W], got {list(image.shape)}: Inception sees grey or RGB"
            )
        bytes_ = (image.clamp(0, 1) * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)
        return self.net(bytes_)[0]


def inception(weights: str | Path) -> Inception:
    """FID's network with the weights of a local file; nothing is downloaded.

    Args:
        weights: torch-fidelity's `weights-inception-2015-12-05-6726825d.pth`.

    Raises:
        MissingExtraError: torch-fidelity is not installed.
        ModelFileError: there is no such file, or it holds anything but this network's tensors.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise MissingExtraError("FID", "generation") from error
    path = Path(weights)
    if not path.is_file():
        raise ModelFileError(f"expected FID's Inception weights at {path}, found no file: check the path")
    try:
        # torch-fidelity unpickles whatever the file holds; this looks first, and lets nothing but tensors through.
        torch.load(path, weights_only=True, map_location="cpu")
        net = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path)
        )
    except (pickle.UnpicklingError, RuntimeError, EOFError, TypeError, AttributeError) as error:
        raise ModelFileError(f"{path} does not hold FID's Inception: {str(error)[:200]}") from error
    return Inception(net)
