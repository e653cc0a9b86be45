"""`anodiff sample`: new pictures from a model that paints."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from anodiff import artefact
from anodiff.cli import console
from anodiff.cli.verbs import Verbs
from anodiff.errors import ConfigError, RefusalError
from anodiff.run import writable

if TYPE_CHECKING:
    import numpy as np

    from anodiff.detector import Detector

SAMPLERS = ("ddim", "heun", "dpmpp_2m")


def add(verbs: Verbs) -> None:
    """Add the verb."""
    verb = verbs.add_parser("sample", help="paint new good parts with a model that paints")
    verb.add_argument("model", metavar="MODEL", help="the .anodiff file")
    verb.add_argument("-o", "--out", metavar="OUT", default="samples", help="folder (default: samples)")
    verb.add_argument("--count", type=int, default=16, metavar="N", help="how many pictures (default: 16)")
    verb.add_argument("--steps", type=int, default=50, metavar="N", help="denoising steps (default: 50)")
    verb.add_argument("--sampler", choices=SAMPLERS, default="ddim", help="default: ddim")
    verb.add_argument(
        "--eta", type=float, default=0.0, help="of ddim: 0 deterministic (default) to 1, which is DDPM"
    )
    verb.add_argument(
        "--seed", type=int, default=0, help="picture i depends on it and on i alone (default: 0)"
    )
    verb.add_argument("--batch", type=int, default=8, metavar="N", help="pictures at a time (default: 8)")
    verb.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    verb.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Paint pictures: OUT/0000.png ... and OUT/grid.png."""
    for name in ("count", "steps", "batch"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name} should be at least 1, got {getattr(args, name)}.")
    if not 0 <= args.eta <= 1:
        raise ConfigError(f"--eta should be from 0 to 1, got {args.eta:g}.")
    if args.eta and args.sampler != "ddim":
        raise ConfigError(f"--eta belongs to the sampler ddim; {args.sampler} draws no noise.")
    artefact.read_header(args.model)  # a wrong file is told before anything heavy is loaded
    out = writable(Path(args.out))

    import anodiff

    detector = anodiff.load(args.model, device=args.device)
    if not detector.predictor.codec.paints:
        raise RefusalError(
            f"{args.model} works on features, which cannot be turned back into a picture: it scores, but paints "
            "nothing. Fit a model that paints with --preset pixels."
        )
    pictures = _painted(detector, args)
    width = max(4, len(str(args.count - 1)))

    from anodiff.cli.predictions import png

    for number, picture in enumerate(pictures):
        png(out / f"{number:0{width}}.png", picture)
    png(out / "grid.png", grid(pictures))
    console.result(f"{out}: {len(pictures)} pictures and grid.png")
    return 0


def grid(pictures: list[np.ndarray]) -> np.ndarray:
    """The pictures [h, w, C] in rows, as near to a square as their number allows, 2 white pixels between them."""
    import numpy as np

    columns = int(np.ceil(np.sqrt(len(pictures))))
    rows = -(-len(pictures) // columns)
    height, width, channels = pictures[0].shape
    sheet = np.full((rows * (height + 2) - 2, columns * (width + 2) - 2, channels), 255, dtype=np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // columns * (height + 2), number % columns * (width + 2)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def _painted(detector: Detector, args: argparse.Namespace) -> list[np.ndarray]:
    """Pictures uint8 [h, w, C]; picture i is the same whatever the count and the batch."""
    import torch

    from anodiff.diffusion.levels import spaced
    from anodiff.diffusion.sampling import ddim, dpmpp_2m, heun
    from anodiff.noise import PerImageNoise

    predictor = detector.predictor
    codec, denoiser = predictor.codec, predictor.wrap(predictor.denoiser)
    height, width = detector.shape
    sigmas = spaced(denoiser.levels, args.steps)
    chunks = [range(first, min(first + args.batch, args.count)) for first in range(0, args.count, args.batch)]
    pictures: list[np.ndarray] = []
    for chunk in console.counted(chunks, label="sample", total=len(chunks)):
        noise = PerImageNoise([args.seed * 1_000_003 + number for number in chunk], draw=predictor.draw)
        z = torch.zeros(len(chunk), codec.channels, height // codec.stride, width // codec.stride)
        z = z.to(detector.device)  # [B, c, h, w]
        y = noise(z) * sigmas[0].to(z)
        with torch.no_grad():
            if args.sampler == "ddim":
                z = ddim(denoiser, y, sigmas, eta=args.eta, noise=noise)
            else:
                z = {"heun": heun, "dpmpp_2m": dpmpp_2m}[args.sampler](denoiser, y, sigmas)
            image = codec.decode(z).clamp(0, 1)  # [B, C, H, W]
        pictures += list((image * 255).round().byte().movedim(1, -1).cpu().numpy())
    return pictures
