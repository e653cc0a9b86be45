"""`anodiff bound`: how many bits a dimension good parts cost under a model, and where they come from."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from anodiff import artefact
from anodiff.cli import console
from anodiff.cli.verbs import Verbs
from anodiff.errors import ConfigError

EPILOG = """\
examples:
  anodiff bound runs/bottle/model.anodiff photos/unseen_good
  anodiff bound model.anodiff photos/unseen_good --levels 100 --variance learned --json

Lower is better. Pictures the model was fitted on give a bound that is too low."""


def add(verbs: Verbs) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "bound", help="the variational bound of good pictures, term by term", epilog=EPILOG
    )
    verb.add_argument("model", metavar="MODEL", help="the .anodiff file")
    verb.add_argument(
        "good", metavar="GOOD", help="good pictures: folder, part in MVTec layout (test/good) or manifest"
    )
    verb.add_argument("--levels", type=int, default=50, metavar="N", help="of the chain (default: 50)")
    verb.add_argument(
        "--variance",
        choices=("small", "large", "learned"),
        default=None,
        help="default: what the model learned, or small",
    )
    verb.add_argument(
        "--split-column", default="split", metavar="NAME", help="of the manifest (default: split)"
    )
    verb.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    verb.add_argument("--json", action="store_true", help="the terms as JSON")
    verb.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure the bound and print its terms."""
    if args.levels < 2:
        raise ConfigError(f"--levels should be at least 2, got {args.levels}.")
    artefact.read_header(args.model)  # a wrong file is told before anything heavy is loaded

    import anodiff

    detector = anodiff.load(args.model, device=args.device)
    found = detector.bits(
        args.good, levels=args.levels, variance=args.variance, split_column=args.split_column
    )
    if args.json:
        console.as_json({"model_id": detector.model_id, **asdict(found)})
        return 0
    rows = [("prior", "", f"{found.prior:.5f}")]
    rows += [
        ("step down", f"{sigma:.4g}", f"{bits:.5f}")
        for sigma, bits in zip(found.sigmas, found.transitions, strict=False)
    ]
    if len(found.sigmas) > len(found.transitions):
        rows.append(("decoder", f"{found.sigmas[-1]:.4g}", f"{found.decoder:.5f}"))
    console.table(("term", "noise level", "bits a dimension"), rows)
    console.result(
        f"{found.total:.4f} bits a dimension (deviation {found.deviation:.4f} over {found.pictures} pictures, "
        f"variance {found.variance})"
    )
    return 0
