"""What a person is told of the pictures a threshold rests on, and of those that look unlike the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anodiff.cli import console
from anodiff.run import Run

if TYPE_CHECKING:
    from anodiff.detector import Detector


def rests_on(detector: Detector) -> str:
    """How many good pictures the threshold rests on and which rate it stands for, as a clause."""
    from anodiff.detect.threshold import least_rate

    count, rate = detector.counted, detector.info["target_fpr"]
    each = " of the rarest kind" if detector.thresholds else ""
    rests = f"resting on {count} good {'picture' if count == 1 else 'pictures'}{each}"
    if detector.config.threshold.kind != "conformal":
        return f"{rests}, a plain quantile for {rate:.3g} false alarms"
    least = f"; {least_rate(count):.3g} is the least they support" if least_rate(count) < rate - 1e-9 else ""
    most = "" if least else ", the least they support"
    return f"{rests}, for at most {rate:.3g} false alarms{most}{least}"


def tell_suspects(detector: Detector, folder: Run) -> None:
    """Keep the suspects in suspects.csv, without a row where there are none, and warn of them."""
    folder.write_suspects(rows_of(detector))
    for sentence in detector.info["provenance"].get("suspects", {}).get("says", ()):
        console.warning(sentence)
    if detector.suspects:
        again = (
            ""
            if "dropped" in detector.info["provenance"]
            else "; `anodiff fit --drop-suspects` fits without them"
        )
        console.note(f"they are listed in {folder.suspects}{again}")


def rows_of(detector: Detector) -> list[dict[str, Any]]:
    """The suspects as rows of suspects.csv."""
    return [{**suspect.to_dict(), "reason": suspect.reason} for suspect in detector.suspects]
