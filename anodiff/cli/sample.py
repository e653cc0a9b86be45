"""`anodiff sample`: new pictures from a model that paints, or pictures finished by it."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from anodiff import artefact
from anodiff.cli import console
from anodiff.cli.gallery import hang
from anodiff.cli.verbs import Verbs
from anodiff.errors import ConfigError, RefusalError
from anodiff.run import writable

if TYPE_CHECKING:
    from anodiff.tasks.looks import Looks

SAMPLERS = ("ddim", "ddpm", "heun", "dpmpp_2m")
VARIANCES = ("small", "large", "learned")
COUNT = 16
"""Pictures where nobody asks for a number."""
SPACINGS = ("trailing", "leading", "linspace", "quadratic", "karras", "all")


def add(verbs: Verbs) -> None:
    """Add the verb."""
    verb = verbs.add_parser("sample", help="paint new good parts with a model that paints")
    verb.add_argument("model", metavar="MODEL", help="the .anodiff file")
    verb.add_argument("-o", "--out", metavar="OUT", default="samples", help="folder (default: samples)")
    verb.add_argument(
        "--count",
        type=int,
        metavar="N",
        help="how many pictures (default: 16, or one for each picture given)",
    )
    verb.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="denoising steps (default: 50, or all levels of a model that has fewer, and of a DDGAN)",
    )
    verb.add_argument(
        "--sampler",
        choices=SAMPLERS,
        help="default: ddim, or ddpm of a model with guidance of the form mean",
    )
    verb.add_argument(
        "--eta",
        type=float,
        help="of ddim: 0 deterministic to 1, which is ddpm (default: 0, or 1 of a DDGAN, which draws anyway)",
    )
    verb.add_argument(
        "--variance",
        choices=VARIANCES,
        default="small",
        help="of the fresh noise of ddpm, and of ddim with --eta (default: small)",
    )
    verb.add_argument(
        "--spacing", choices=SPACINGS, default="trailing", help="of the noise levels (default: trailing)"
    )
    verb.add_argument(
        "--seed", type=int, default=0, help="picture i depends on it and on i alone (default: 0)"
    )
    verb.add_argument("--batch", type=int, default=8, metavar="N", help="pictures at a time (default: 8)")
    _tasks(verb)
    led = verb.add_argument_group("guidance, for a model that is told something")
    led.add_argument(
        "--scale",
        type=float,
        metavar="S",
        help="classifier-free: 1 what it is told alone, above it away from being told nothing (default: the model's)",
    )
    led.add_argument("--negative", metavar="NAME", help="a label, or a text, to lead away from")
    led.add_argument(
        "--classifier-scale",
        type=float,
        metavar="S",
        help="of the model's classifier; 0 none (default: the model's)",
    )
    led.add_argument(
        "--form",
        choices=("score", "mean"),
        help="of guidance by the classifier: score (any sampler) or mean (ddpm) (default: the model's)",
    )
    led.add_argument("--weaker", metavar="MODEL", help="a weaker model of the same parts, to lead away from")
    led.add_argument("--weaker-scale", type=float, default=2.0, metavar="S", help="of that (default: 2)")
    verb.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    verb.set_defaults(run=run)


def _tasks(verb: argparse.ArgumentParser) -> None:
    asked = verb.add_argument_group("what to paint, by a model that is told")
    asked.add_argument("--label", metavar="NAME", help="of a model with labels; without it they take turns")
    asked.add_argument(
        "--prompt",
        metavar="TEXT",
        help="of a model that reads words; (word:1.6) weighs it more, (word:0) masks it",
    )
    asked.add_argument(
        "--layout",
        type=Path,
        metavar="FILE",
        help='of a model that reads boxes: JSON [["class", left, top, right, bottom], ...] in shares of the sides',
    )
    edit = verb.add_argument_group("editing, by a model that reads words (prompt-to-prompt)")
    edit.add_argument("--edit", metavar="TEXT", help="paint --prompt and, with its layout kept, this text")
    edit.add_argument(
        "--window",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="noise levels between which the layout is kept (default: all)",
    )
    edit.add_argument("--blend", metavar="WORD", help="change the picture only where this word looks")
    edit.add_argument(
        "--blend-from",
        type=float,
        default=0.3,
        metavar="SHARE",
        help="of its highest attention, from which on the word looks somewhere (default: 0.3)",
    )
    edit.add_argument("--attention", action="store_true", help="draw where each word of the text looks")
    given = verb.add_argument_group("pictures to finish")
    given.add_argument(
        "--superres", type=Path, nargs="+", default=[], metavar="PICTURE", help="enlarge these"
    )
    given.add_argument(
        "--inpaint", type=Path, metavar="PICTURE", help="fill this one in where --mask is white"
    )
    given.add_argument("--mask", type=Path, metavar="PICTURE", help="of the same size")


def run(args: argparse.Namespace) -> int:
    """Paint pictures: OUT/0000.png ... and OUT/grid.png, and OUT/attention.png where it is asked for."""
    for name in ("count", "steps", "batch"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ConfigError(f"--{name} should be at least 1, got {getattr(args, name)}.")
    artefact.read_header(args.model)  # a wrong file is told before anything heavy is loaded
    out = writable(Path(args.out))

    import anodiff
    from anodiff.guiding import guiding
    from anodiff.painting import paint
    from anodiff.tasks.asked import Asked, away, unknown
    from anodiff.tasks.edited import Edit
    from anodiff.tasks.looks import looks
    from anodiff.tasks.task import task

    detector = anodiff.load(args.model, device=args.device)
    if not detector.predictor.codec.paints:
        raise RefusalError(
            f"{args.model} works on features, which cannot be turned back into a picture: it scores, but paints "
            "nothing. Fit a model that paints with --preset pixels."
        )
    guided = guiding(
        detector.predictor,
        detector.labels,
        kept=detector.config.guidance,
        scale=args.scale,
        negative=away(args.negative, detector.config, detector.device),
        classifier_scale=args.classifier_scale,
        form=args.form,
        weaker=None if args.weaker is None else anodiff.load(args.weaker, device=args.device).predictor,
        weaker_scale=args.weaker_scale,
    )
    wanted = task(
        detector.predictor,
        detector.config,
        detector.shape,
        asked=Asked(label=args.label, prompt=args.prompt, layout=args.layout),
        edit=(
            None
            if args.edit is None
            else Edit(args.edit, window=args.window, blend=args.blend, threshold=args.blend_from)
        ),
        superres=args.superres,
        inpaint=args.inpaint,
        mask=args.mask,
        device=detector.device,
    )
    looked = None
    if args.attention:
        looked = looks(
            detector.config,
            detector.shape,
            stride=detector.predictor.codec.stride,
            prompt=args.prompt,
            edit=args.edit,
        )
    if met := unknown(detector.config, (args.prompt, args.edit, args.negative)):
        console.warning(f"the model has hardly met the words {', '.join(met)}: it learnt from other captions")
    count = args.count or wanted.count or COUNT
    pictures = paint(
        detector.predictor,
        detector.shape,
        count=count,
        steps=args.steps,
        sampler=args.sampler or guided.sampler,
        eta=args.eta,
        variance=args.variance,
        spacing=args.spacing,
        seed=args.seed,
        batch=args.batch,
        device=detector.device,
        cond_of=wanted.cond_of,
        rows_of=wanted.rows_of if looked is None else looked.watched(wanted.rows),
        guided=guided,
        counted=partial(console.counted, label="sample", total=-(-count // args.batch)),
    )
    finished = map(wanted.finish, pictures)
    if looked is not None:
        finished = looked.passed(finished)
    hang(out, finished, count=count * wanted.together)
    if looked is not None:
        _draw(out / "attention.png", looked)
    sheets = "grid.png" if looked is None else "grid.png, attention.png"
    console.result(f"{out}: {count * wanted.together} pictures and {sheets}")
    return 0


def _draw(path: Path, looked: Looks) -> None:
    from anodiff.report.attention import Looked, attention_png

    path.write_bytes(attention_png([Looked(one.picture, one.words, one.maps) for one in looked.found()]))
