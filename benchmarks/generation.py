"""What the generation benchmarks share: small crops of real pictures, a judge of samples, training that is kept."""

from __future__ import annotations

import json
import platform
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from anodiff.codec.backbone import backbone
from anodiff.codec.fuse import fused
from anodiff.codec.pooled import Pooled
from anodiff.data.demo import PHOTOGRAPHS
from anodiff.data.image import prepare, read
from anodiff.data.index import index
from anodiff.metrics import generation as metrics
from anodiff.train.fit import fit
from anodiff.train.plan import Plan

SIDE = 32  # pixels of a crop
BLOCK = 64  # pixels of what a texture's photograph is divided into, after halving
EXTRACTOR = "lite0"


@dataclass(frozen=True, eq=False)
class Patches:
    """Pictures [C, H, W] in [0, 1] with a class each; its rows are random crops of them, mirrored at random."""

    pictures: list[Tensor]
    labels: list[int]
    classes: tuple[str, ...]
    side: int = SIDE  # pixels of a crop

    def __len__(self) -> int:
        return len(self.pictures)

    def crop(self, index: int, seed: int) -> Tensor:
        """A crop [C, side, side] of picture `index`, a function of `seed`."""
        rng = np.random.default_rng(seed)
        picture = self.pictures[index]
        top, left = (int(rng.integers(0, length - self.side + 1)) for length in picture.shape[-2:])
        crop = picture[:, top : top + self.side, left : left + self.side]
        return crop.flip(-1) if rng.random() < 0.5 else crop

    def item(self, index: int, seed: int) -> Tensor:
        """The same in codec space, [-1, 1]: what training reads."""
        return 2 * self.crop(index, seed) - 1

    def drawn(self, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """`count` crops [count, C, side, side] in [0, 1], the pictures in turn, and their classes [count]."""
        turns = [i % len(self) for i in range(count)]
        crops = [self.crop(turn, seed * 1_000_003 + i) for i, turn in enumerate(turns)]
        return torch.stack(crops), torch.tensor([self.labels[turn] for turn in turns])


def textures(*, side: int = SIDE) -> tuple[Patches, Patches]:
    """Crops of brick, grass and gravel (photographs of scikit-image, CC0), for training and held out.

    Each photograph is halved to 256 x 256 and divided into 16 blocks; every fourth of them, on a diagonal, is held out.
    """
    import skimage.data

    train: list[tuple[Tensor, int]] = []
    held: list[tuple[Tensor, int]] = []
    for label, photograph in enumerate(PHOTOGRAPHS.values()):
        whole = prepare(
            read(Path(skimage.data.__file__).parent / photograph.file), shape=(256, 256), channels=1
        )
        for row in range(4):
            for column in range(4):
                block = whole[:, row * BLOCK : (row + 1) * BLOCK, column * BLOCK : (column + 1) * BLOCK]
                (held if (row + column) % 4 == 0 else train).append((block, label))
    names = tuple(PHOTOGRAPHS)
    return tuple(Patches([p for p, _ in part], [k for _, k in part], names, side) for part in (train, held))  # type: ignore[return-value]


def folder(path: Path, *, shrink: int = 2, side: int = SIDE) -> tuple[Patches, Patches]:
    """Crops of the good pictures of a folder or manifest, for training and held out; one class, grey.

    A manifest with a column `split_grouped` is divided by it: no part is on both sides.
    """
    manifest = path / "manifest.csv" if path.is_dir() else path
    grouped = manifest.is_file() and "split_grouped" in manifest.open().readline()
    table = index(manifest, split_column="split_grouped") if grouped else index(path)
    good = table[table["label"] == 0]

    def part(name: str) -> Patches:
        pictures = [_shrunk(read(file), shrink, side) for file in good[good["split"] == name]["image"]]
        return Patches(pictures, [0] * len(pictures), (path.name,), side)

    return part("train"), part("test")


def _shrunk(array: np.ndarray, shrink: int, side: int) -> Tensor:
    shape = (max(side, array.shape[0] // shrink), max(side, array.shape[1] // shrink))
    return prepare(array, shape=shape, channels=1)


class Judge:
    """Samples measured against real crops in the features of the frozen Lite0."""

    def __init__(self, train: Patches, held: Patches, *, real: int = 2048, seed: int = 0) -> None:
        self.pooled = Pooled(fused(backbone("tf_efficientnet_lite0", (2, 3))))
        self.train = self.features(train.drawn(real, seed=seed + 1)[0])
        self.held = self.features(held.drawn(real, seed=seed + 2)[0])

    def features(self, image: Tensor) -> np.ndarray:
        """Features [n, d] float64 of pictures [n, C, h, w] in [0, 1], rounded to 8 bit as a file would be."""
        seen = (image.clamp(0, 1) * 255).round() / 255
        return torch.cat([self.pooled(part) for part in seen.split(32)]).double().numpy()

    def floor(self, count: int) -> dict[str, float]:
        """What `count` held-out real crops score: nothing generated can be expected to score better."""
        return self.row(self.held[:count])

    def row(self, fake: np.ndarray) -> dict[str, float]:
        """FD, KID, precision, recall and nearest-training distance of generated features [n, d]."""
        near = metrics.nearest(self.train, fake, held=self.held[: len(fake)])
        kid = metrics.kid(self.train, fake, subset=min(256, len(fake)), seed=0)
        pr = metrics.precision_recall(self.train[: len(fake)], fake)
        return {
            metrics.named("FD", EXTRACTOR): metrics.frechet(self.train, fake),
            metrics.named("KID", EXTRACTOR): kid.mean,
            metrics.named("KID sd", EXTRACTOR): kid.deviation,
            metrics.named("precision", EXTRACTOR): pr.precision,
            metrics.named("recall", EXTRACTOR): pr.recall,
            metrics.named("nearest", EXTRACTOR): near.ratio,
        }


def trained(
    model: nn.Module,
    data: Patches,
    plan: Plan,
    objective: Any,
    *,
    keep: Path | None,
    labels: Sequence[int] | None = None,
) -> dict[str, Any]:
    """How `model` was trained (steps, seconds, last loss); read from `keep` where the same training is kept there."""
    about = {"plan": repr(plan), "model": repr(model), "rows": len(data), "labels": bool(labels)}
    if keep is not None and keep.is_file():
        kept = torch.load(keep, weights_only=True)
        if kept["about"] == about:
            model.load_state_dict(kept["state"])
            model.eval()
            return kept["outcome"]
    outcome = fit(model, data, plan, objective=objective, labels=labels)
    tail = outcome.losses[-100:]
    found = {"steps": outcome.steps, "seconds": round(outcome.seconds, 1), "loss": sum(tail) / len(tail)}
    if outcome.alarms:
        found["alarms"] = list(outcome.alarms)
    if keep is not None:
        keep.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"about": about, "state": model.state_dict(), "outcome": found}, keep)
    return found


def made(draw: Callable[[Tensor, int], Tensor], noise: Tensor, *, batch: int = 64) -> Tensor:
    """The pictures [n, C, h, w] in [0, 1] that `draw(noise, first row's number)` makes of unit noise, in batches."""
    parts = [draw(part, i * batch) for i, part in enumerate(noise.split(batch))]
    return (torch.cat(parts) + 1) / 2


def flops(net: nn.Module, *inputs: Tensor) -> int:
    """Floating-point operations of one forward pass (a multiply-add counts two)."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(*inputs)
    return counter.get_total_flops()


def about(*, seed: int, data: str, **more: Any) -> dict[str, Any]:
    """What a result must carry to be made again."""
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    return {
        "command": command,
        "seed": seed,
        "data": data,
        "extractor": "EfficientNet-Lite0, stages 2 and 3, mean over positions, 128 px (152 features)",
        "device": f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
        "versions": {name: version(name) for name in ("torch", "timm", "numpy", "scikit-learn")},
        "date": time.strftime("%Y-%m-%d"),
        **more,
    }


def write(found: dict[str, Any], table: str, *, out: Path, name: str) -> None:
    """`name`.json and `name`.md in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    (out / f"{name}.md").write_text(table)


def sheet(path: Path, rows: Sequence[Tensor], *, scale: int = 2, gap: int = 2) -> None:
    """A PNG of pictures [n, 1, h, w] in [0, 1], one tensor a row, enlarged `scale` times without smoothing."""
    strips = []
    for row in rows:
        tiles = [np.pad(p[0].numpy(), gap, constant_values=1.0) for p in row.clamp(0, 1)]
        strips.append(np.concatenate(tiles, axis=1))
    picture = np.round(np.concatenate(strips, axis=0) * 255).astype(np.uint8)
    cv2.imwrite(str(path), np.repeat(np.repeat(picture, scale, 0), scale, 1))
