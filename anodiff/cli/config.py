"""`anodiff config`: a configuration with every default filled in, or what a configuration may hold."""

from __future__ import annotations

import argparse

from anodiff.cli import console
from anodiff.cli.verbs import Verbs


def add(verbs: Verbs) -> None:
    """Add the verb."""
    what = verbs.below("config", help="show a whole configuration, or the schema of all of them")
    show = what.add_parser("show", help="the configuration with every default, as YAML")
    configured(show)
    show.add_argument("--json", action="store_true", help="as JSON")
    schema = what.add_parser("schema", help="the JSON Schema of configurations")
    show.set_defaults(run=run)
    schema.set_defaults(run=run)


def configured(verb: argparse.ArgumentParser) -> None:
    """Add the options that name a configuration."""
    verb.add_argument("--config", metavar="FILE", help="a YAML file; its keys are laid over the preset")
    verb.add_argument(
        "--preset", metavar="NAME", help="a built-in configuration: features (default), pixels, tiny"
    )
    verb.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="one key, such as train.steps=500; repeatable",
    )


def run(args: argparse.Namespace) -> int:
    """Print a configuration or the schema."""
    from anodiff.config import RunConfig, dump, load

    if args.what == "schema":
        console.as_json(RunConfig.model_json_schema())
        return 0
    config = load(args.config, preset=args.preset, overrides=args.set)
    if args.json:
        console.as_json(config.model_dump(mode="json"))
    else:
        console.result(dump(config).rstrip("\n"))
    return 0
