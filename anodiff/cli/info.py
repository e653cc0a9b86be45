"""`anodiff info`: what a model file says about itself; nothing of torch is loaded."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from anodiff.cli import console, contest
from anodiff.cli.cost import spoken
from anodiff.cli.selftest import brief
from anodiff.cli.verbs import Verbs


def add(verbs: Verbs) -> None:
    """Add the verb."""
    verb = verbs.add_parser("info", help="tell what a model is: configuration, calibration, origin")
    verb.add_argument("model", metavar="MODEL", help="the .anodiff file")
    verb.add_argument("--json", action="store_true", help="the header as JSON")
    verb.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the header of a model file."""
    from anodiff import artefact

    about = artefact.read_header(args.model)
    whole = {"model_id": artefact.model_id(about), **about}
    if args.json:
        console.as_json(whole)
        return 0
    opinions = whole.pop("opinions_per_image", 0)
    if opinions:
        whole["evaluations_per_image"] = spoken(whole["evaluations_per_image"], opinions)
    provenance = dict(whole.get("provenance", {}))
    alarms = [*provenance.pop("alarms", ()), *provenance.pop("suspects", {}).get("says", ())]
    if "selftest" in provenance:
        provenance["selftest"] = brief(provenance["selftest"])
    if "contest" in provenance:
        provenance["contest"] = contest.brief(provenance["contest"])
    if "counted" in provenance:  # digests are for machines
        provenance["counted"] = f"{len(provenance['counted'])} pictures"
    console.table(("", ""), flat({**whole, "provenance": provenance}))
    for alarm in alarms:
        console.result(f"warning: {alarm}")
    return 0


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The values of nested mappings as pairs of text, their names joined by dots."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{key}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{key}", "-" if value is None else str(value)
