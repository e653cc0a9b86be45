"""What an autoencoder loses: the floor under every difference of pictures, and the defects that it paints away."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from kornia.metrics import ssim
from torch import Tensor

from anodiff.codec.protocol import Codec
from anodiff.data.synthetic import paint
from anodiff.errors import ConfigError, DataError, RefusalError

KINDS = ("blob", "missing", "texture", "cutpaste")
"""The painted defects, in turn: those that are about as high as they are wide."""

STRENGTH = 0.6
"""Of the painted defects: neither easy to see nor faint."""

QUANTILE = 0.99
"""Of the errors over places: what a score must rise above where it is not to light up on good parts."""

KEPT = 0.5
"""The least share of a defect that must survive the autoencoder."""

_SMALLEST = 16  # pixels a side that a defect can be painted on
_AROUND = 8  # sides of a defect that the square has on which it is painted
_ATTEMPTS = 16
_PLACES = 4  # windows a side of a defect


@dataclass(frozen=True, kw_only=True)
class Floor:
    """What is left of pictures, and of defects in them, once they went through an autoencoder and back.

    Reconstructions are clipped to [0, 1], as those of a restoration are.
    """

    defect: int
    """Side of the defects it was measured for, pixels."""
    psnr: float
    """`10 log10(1 / mse)` in dB, the mse over all pictures."""
    ssim: float
    """Structural similarity (window 11), mean over pictures."""
    error: float
    """What windows of `defect` x `defect` pixels have in mean absolute error: the 99th percentile over all windows of
    all pictures, of a range of 1."""
    contrast: float
    """The mean absolute difference that painted defects make inside their masks, of a range of 1."""
    kept: float
    """The share of that difference which is left after the autoencoder, about 1 where it paints defects as they are."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences that say why defects of this size would be hidden, and what to do; none: they would not be."""
        said: list[str] = []
        remedy = "lower codec.stride, raise codec.channels or train longer (codec.steps)"
        if self.error >= self.contrast:
            said.append(
                f"the differences of a restoration drown in what the autoencoder cannot paint: over {self.defect} px "
                f"its error on good parts reaches {self.error:.3f}, a defect of that size changes {self.contrast:.3f}; "
                f"{remedy}"
            )
        if self.kept < KEPT:
            said.append(
                f"the autoencoder paints defects of {self.defect} px away before the model sees them: {self.kept:.0%} "
                f"of their difference is left; {remedy}"
            )
        return tuple(said)


@torch.no_grad()
def floor(codec: Codec, images: Iterable[Tensor], *, defect: int, seed: int) -> Floor:
    """What `codec` loses on good parts, and of one painted defect in each of them.

    The defects are about `defect` pixels a side, painted on a square around a random place (`data.synthetic`), with
    exact masks. The result depends on the arguments alone.

    Args:
        codec: one that paints.
        images: batches [B, C, H, W] in [0, 1] of good parts that trained nothing, sides of 16 pixels and `defect` or
            more.
        defect: side of the defects that must be seen, pixels.
        seed: of the defects and their places.

    Raises:
        RefusalError: the codec paints nothing.
        ConfigError: `defect` is below 1.
        DataError: there are no pictures, or they are too small.
    """
    if not codec.paints:
        raise RefusalError(
            "a codec that paints nothing loses nothing that a picture shows: take one of pixels or latents"
        )
    if defect < 1:
        raise ConfigError(f"defect is a side in pixels, 1 or more, got {defect}")
    squares: list[float] = []  # a picture
    likeness: list[float] = []
    errors: list[np.ndarray] = []  # a batch: mean absolute error of each window
    made = left = inside = 0.0  # sums over the pixels of all masks, and their number
    for image in images:
        check_size((image.shape[-2], image.shape[-1]), defect=defect)
        plain = _rebuilt(codec, image)
        gap = image.double() - plain.double()  # [B, C, H, W]
        windows = F.avg_pool2d(gap.abs().mean(1, keepdim=True), defect, stride=max(1, defect // _PLACES))
        errors.append(windows.flatten().cpu().numpy())
        squares += gap.square().mean(dim=(1, 2, 3)).tolist()
        likeness += ssim(image.double(), plain.double(), 11).mean(dim=(1, 2, 3)).tolist()
        first = len(squares) - len(image)
        pairs = [_painted(row, defect, first + i, seed) for i, row in enumerate(image)]
        painted = torch.stack([picture for picture, _ in pairs])
        mask = torch.stack([mask for _, mask in pairs])  # [B, 1, H, W]
        change = (_rebuilt(codec, painted) - plain).double().abs()
        made += float(((painted - image).double().abs() * mask).mean(1).sum())
        left += float((change * mask).mean(1).sum())
        inside += float(mask.sum())
    if not squares:
        raise DataError("expected at least one good picture to measure the autoencoder on, got none")
    mse = float(np.mean(squares))
    return Floor(
        defect=defect,
        psnr=-10 * math.log10(mse) if mse > 0 else math.inf,
        ssim=float(np.mean(likeness)),
        error=float(np.quantile(np.concatenate(errors), QUANTILE)),
        contrast=made / inside,
        kept=left / made,
    )


def check_size(shape: tuple[int, int], *, defect: int) -> None:
    """Nothing, where defects of `defect` px can be measured on pictures of `shape`, (height, width); DataError else."""
    if min(shape) < max(_SMALLEST, defect):
        raise DataError(
            f"expected pictures of {max(_SMALLEST, defect)} px a side or more to measure defects of {defect} px, "
            f"got {shape[0]} x {shape[1]}: take larger pictures (data.size) or a smaller codec.defect"
        )


def _rebuilt(codec: Codec, image: Tensor) -> Tensor:
    return codec.decode(codec.encode(image)).clamp(0, 1)


def _painted(image: Tensor, defect: int, number: int, seed: int) -> tuple[Tensor, Tensor]:
    """The picture [C, H, W] with one defect of about `defect` px a side, and its mask [1, H, W] bool.

    Kinds follow each other by the picture's number. Painted sizes vary: of the attempts the first within a third of
    the wanted side is taken, else the nearest.
    """
    rng = np.random.default_rng([seed, number])
    height, width = image.shape[1:]
    side = max(_SMALLEST, min(_AROUND * defect, height, width))
    best: tuple[float, Tensor, Tensor] | None = None
    for _ in range(_ATTEMPTS):
        top, start = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        where = (slice(None), slice(top, top + side), slice(start, start + side))
        square, seen = paint(
            image[where], KINDS[number % len(KINDS)], seed=int(rng.integers(2**31)), strength=STRENGTH
        )
        off = abs(math.log(math.sqrt(float(seen.sum())) / defect))
        if best is None or off < best[0]:
            picture, mask = image.clone(), torch.zeros_like(image[:1], dtype=torch.bool)
            picture[where], mask[where] = square, seen
            best = off, picture, mask
        if off < math.log(4 / 3):
            break
    assert best is not None
    return best[1], best[2]
