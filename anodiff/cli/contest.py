"""`anodiff fit --best-of`: presets fitted in turn below the run's folder, and the best of them taken over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from anodiff.cli import console
from anodiff.cli.selftest import short
from anodiff.run import Run

if TYPE_CHECKING:
    from anodiff.config import RunConfig
    from anodiff.contest import Contest
    from anodiff.detector import Detector
    from anodiff.gather import Gathered

    Fit = Callable[[RunConfig, Gathered, Run], Detector]

COLUMNS = ("preset", "image AUROC", "pixel AUROC", "gain")


def held(configs: Mapping[str, RunConfig], good: Gathered, folder: Run, fit: Fit) -> Contest:
    """The contest of configurations by preset, each fitted as a run of its own in RUN/presets/NAME.

    What was taken is `folder`'s from then on, but for the model file, which the caller writes.
    """
    from anodiff.complete import complete
    from anodiff.config import dump
    from anodiff.contest import contest

    whole: dict[str, RunConfig] = {}

    def one(name: str, config: RunConfig, pictures: Gathered) -> Detector:
        place = Run(folder.path / "presets" / name).create()
        whole[name] = complete(config, pictures, say=console.note)
        detector = fit(whole[name], pictures, place)
        detector.save(place.model)
        return detector

    found = contest(configs, good, fit=one, say=console.note)
    folder.write_config(dump(whole[found.name]))
    return found


def tell(told: Mapping[str, Any]) -> None:
    """Print what was compared, of `Contest.to_dict`, a row a preset; the bounds of the gain hold for all at once."""
    console.table(
        COLUMNS,
        [
            (
                row["name"].removeprefix("preset="),
                short(row["image_auroc"]),
                short(row["pixel_auroc"]),
                f"{row['gain']['value']:+.3f} [{row['gain']['low']:+.3f}, {row['gain']['high']:+.3f}]",
            )
            for row in told["presets"]
        ],
        title=f"presets: {told['painted']} painted defects on {told['clean']} good pictures that none had seen",
    )


def brief(told: Mapping[str, Any]) -> dict[str, Any]:
    """The same in a few lines: what was taken, and the mean AUROC of each."""
    each = (f"{row['name'].removeprefix('preset=')} {short(row['mean'])}" for row in told["presets"])
    return {**told, "presets": list(each)}
