"""What a small latent model that reads can do, measured on drawn parts, whose captions, boxes and maps are exact.

    python benchmarks/parts.py words|layout|superres|inpaint --work runs/parts [--images docs/images]

Parts are told from the ground by brightness, their finish by colour, both without a network; their class by a logistic
regression on features of a frozen network that no model used. Captions, boxes and pictures that are measured on trained
nothing. One autoencoder serves all models; sampling is dpmpp_2m.

- words: is what a caption names there (finish, class, number, place), over scales of guidance, and how much do samples
  differ; weighing and masking words; prompt-to-prompt editing.
- layout: parts found in samples against the boxes that were told.
- superres: pictures reduced fourfold and enlarged, against bicubic interpolation.
- inpaint: pictures with holes filled, against grey and cv2.inpaint.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import generation
import parts_pictures
import parts_words
from parts_models import FRESH, SHAPE, Models

TASKS = {
    "words": parts_words.measured,
    "layout": parts_pictures.layout,
    "superres": parts_pictures.superres,
    "inpaint": parts_pictures.inpaint,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument(
        "--work", type=Path, default=Path("runs/parts"), help="where pictures and models are kept"
    )
    parser.add_argument("--steps", type=int, default=1000, help="training steps of the model")
    parser.add_argument(
        "--codec-steps",
        type=int,
        nargs="+",
        default=[1200],
        help="training steps of the autoencoder; the learning rate begins anew with each number",
    )
    parser.add_argument("--codec-channels", type=int, default=16, help="numbers a position of the code")
    parser.add_argument("--sampling", type=int, default=15, help="steps of the sampler")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--images", type=Path, help="a folder for the pictures")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    models = Models(args.work, args.seed, args.steps, tuple(args.codec_steps), args.codec_channels)
    found: dict[str, Any] = generation.about(
        seed=args.seed,
        data=f"drawn parts, {SHAPE[0]} px: make_parts(count=1200, seed=0), told anew from seed {FRESH}",
        sampler=f"dpmpp_2m, {args.sampling} steps",
    )
    rounds = " ".join(map(str, args.codec_steps))
    found["command"] = (
        f"python benchmarks/parts.py {args.task} --work WORK --steps {args.steps} --codec-steps {rounds}"
        f" --codec-channels {args.codec_channels} --sampling {args.sampling} --seed {args.seed}"
    )

    def keep(table: str) -> None:
        generation.write(found, table, out=args.out, name=f"parts_{args.task}")

    TASKS[args.task](models, found, keep, sampling=args.sampling, images=args.images)


if __name__ == "__main__":
    main()
