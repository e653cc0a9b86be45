"""What autoencoders of stride 4 and 8, KL and VQ, lose of good parts: PSNR, SSIM, rFD and use of the codebook.

    python benchmarks/autoencoders.py --data ../shared/data --sets bottle magnetic_tile [--steps 400]

Each is trained on crops of the good training pictures as `fit` trains it, for equally many steps; measured on crops of
good pictures that trained nothing (every fourth of the training folder; nothing under test/ is opened). rFD is the
Frechet distance of reconstructed crops to the same crops, in the frozen Lite0's features.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import Any

import generation
import torch
from kornia.metrics import ssim
from torch import Tensor

from anodiff import compose
from anodiff.coding.floor import floor
from anodiff.config import RunConfig, load
from anodiff.data.crop import Crops
from anodiff.data.dataset import ImageSet
from anodiff.data.index import index, normals
from anodiff.metrics.generation import frechet, named
from anodiff.train.fit import fit

SETS = {
    "bottle": ("mvtec_ad/bottle", "split", 3),
    "toothbrush": ("mvtec_ad/toothbrush", "split", 3),
    "kolektor": ("kolektor_sdd/kolektorsdd", "split", 1),
    "magnetic_tile": ("magnetic_tile/manifest.csv", "split_grouped", 1),
}
SIDE = 256
CROP = 64  # that is trained on
SHOWN = 128  # that is measured
CROPS = 512  # of held-out pictures, that the figures are of


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the data sets")
    parser.add_argument("--sets", nargs="+", default=["bottle", "magnetic_tile"], choices=list(SETS))
    parser.add_argument("--forms", nargs="+", default=["kl", "vq"])
    parser.add_argument("--strides", nargs="+", type=int, default=[4, 8])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--images", type=Path, help="a folder for the pictures")
    args = parser.parse_args()
    pooled = None
    for name in args.sets:
        place, column, channels = SETS[name]
        good = list(normals(index(args.data / place, split_column=column))["image"])
        held, train = good[::4], [path for i, path in enumerate(good) if i % 4]
        rows = Crops(ImageSet(held, shape=(SIDE, SIDE), channels=channels, cache=torch.uint8), SHOWN)
        crops = torch.stack([rows.item(i % len(held), i) for i in range(CROPS)])
        found = generation.about(
            seed=args.seed, data=name, steps=args.steps, trained_on=len(train), held_out=len(held), rows=[]
        )
        pictures = {"picture": crops[:10]}
        for form, stride in product(args.forms, args.strides):
            config = load(
                preset="pixels",
                overrides=[
                    f"codec={{kind: latent, form: {form}, stride: {stride}, steps: {args.steps}, crop: {CROP}}}",
                    f"data={{size: {SIDE}, channels: {channels}, aspect: square}}",
                    f"seed={args.seed}",
                ],
            )
            row, again = measured(config, train, crops, pooled := pooled or judge())
            found["rows"].append({"form": form, "f": stride} | row)
            pictures[f"{form}, f = {stride}"] = again[:10]
            print(name, found["rows"][-1], flush=True)
            generation.write(found, markdown(found), out=args.out, name=f"autoencoders-{name}")
        if args.images:
            sheet(pictures, args.images / f"autoencoders-{name}.png")


def judge() -> Any:
    """The features in which pictures are compared."""
    from anodiff.codec.backbone import backbone
    from anodiff.codec.fuse import fused
    from anodiff.codec.pooled import Pooled

    return Pooled(fused(backbone("tf_efficientnet_lite0", (2, 3))))


def measured(
    config: RunConfig, train: list[str], crops: Tensor, pooled: Any
) -> tuple[dict[str, Any], Tensor]:
    """What an autoencoder of `config` makes of the crops, and the crops as it paints them."""
    codec = compose.codec(config)
    pictures = ImageSet(
        train, shape=(SIDE, SIDE), channels=config.data.channels, cache=torch.uint8, seed=config.seed
    )
    outcome = fit(
        compose.criticised(config, codec.net),  # type: ignore[union-attr, arg-type]
        Crops(pictures, config.codec.crop),  # type: ignore[union-attr]
        compose.codec_plan(config, compose.plan(config)),
        objective=compose.autoencoding(config),
    )
    codec.requires_grad_(False)
    codec.learn(pictures.item(i, 0)[None] for i in range(len(pictures)))  # type: ignore[union-attr]
    with torch.no_grad():
        again = torch.cat([codec.decode(codec.encode(part)).clamp(0, 1) for part in crops.split(16)])
    features = [
        torch.cat([pooled(part) for part in image.split(32)]).double().numpy() for image in (crops, again)
    ]
    lost = floor(codec, crops[:64].split(8), defect=config.codec.defect, seed=config.seed)  # type: ignore[union-attr]
    row = {
        "PSNR": round(float(-10 * (crops - again).square().mean((1, 2, 3)).log10().mean()), 2),
        "SSIM": round(float(ssim(crops, again, 11).mean()), 4),
        named("rFD", generation.EXTRACTOR): round(frechet(*features), 2),
        "defects of 16 px kept": round(lost.kept, 3),
        "codes in use": used(codec, crops),
        "seconds": round(outcome.seconds),
        "warnings": list(lost.warnings),
        "alarms": list(outcome.alarms),
    }
    return row, again


@torch.no_grad()
def used(codec: Any, crops: Tensor) -> float | None:
    """The share of the codebook that the crops choose; None where there is none."""
    if codec.net.form != "vq":
        return None
    from anodiff.noise import PerImageNoise

    chosen = [codec.net.code(2 * part - 1, PerImageNoise(range(len(part)))).index for part in crops.split(16)]
    return round(
        float(torch.cat([index.flatten() for index in chosen]).unique().numel()) / config_codes(codec), 3
    )


def config_codes(codec: Any) -> int:
    return codec.net.codebook.codes


def markdown(found: dict[str, Any]) -> str:
    """A line an autoencoder."""
    keys = [key for key in found["rows"][0] if key not in ("warnings", "alarms")]
    lines = [f"| {' | '.join(keys)} |", "|---" * len(keys) + "|"]
    lines += [
        f"| {' | '.join('-' if row[key] is None else str(row[key]) for key in keys)} |"
        for row in found["rows"]
    ]
    return "\n".join(lines) + "\n"


def sheet(rows: dict[str, Tensor], path: Path) -> None:
    """A named row of pictures each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(len(rows), 1, figsize=(9, 0.95 * len(rows)), layout="constrained")
    figure.get_layout_engine().set(rect=(0.08, 0, 0.92, 1))  # type: ignore[union-attr]
    for line, (name, row) in zip(axes, rows.items(), strict=True):
        framed = torch.nn.functional.pad(row.expand(-1, 3, -1, -1), (2, 2, 2, 2), value=1.0)
        line.imshow(torch.cat(list(framed), dim=2).movedim(0, -1).numpy())
        line.text(-0.01, 0.5, name, ha="right", va="center", fontsize=8, transform=line.transAxes)
        line.axis("off")
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
