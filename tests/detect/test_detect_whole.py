from __future__ import annotations

import pytest
import torch

from anodiff.cond import Cond
from anodiff.config import load
from anodiff.detect.calibrate import NoCalibration
from anodiff.detect.onestep import ResidualScorer, one_steps
from anodiff.detect.residual import ResidualPosition
from anodiff.detect.scorer import Fused
from anodiff.detect.surprise import Surprise
from anodiff.detect.whole import WholeScorer, statistics
from anodiff.errors import ConfigError, DataError


class Same:
    """A codec whose code is the picture."""

    paints, bounded, channels, stride = False, False, 3, 1

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        return image


MODEL = (None, Same())


def grain(count: int, seed: int, *, shift: float = 0.0) -> torch.Tensor:
    """Pictures of grain, of slightly varying brightness; `shift` is added everywhere."""
    draw = torch.Generator().manual_seed(seed)
    light = 0.005 * torch.randn(count, 1, 1, 1, generator=draw)
    return 0.5 + shift + light + 0.1 * torch.randn(count, 3, 16, 16, generator=draw)


def taught(scorer, count: int = 60):
    parts = [scorer.observe(MODEL, batch, Cond()).parts for batch in grain(count, 0).split(7)]
    scorer.learn(lambda: iter(parts))
    return scorer


def test_statistics_are_means_and_deviations() -> None:
    maps = [torch.randn(2, 3, 4, 4), torch.randn(2, 1, 2, 2)]
    found = statistics(maps)
    assert found.shape == (2, 8, 1, 1)
    assert found[1, 2].item() == pytest.approx(maps[0][1, 2].mean().item())
    assert found[0, 3].item() == pytest.approx(maps[1][0, 0].mean().item())
    assert found[1, 4].item() == pytest.approx(maps[0][1, 0].std(correction=0).item())


def test_it_is_told_what_no_single_place_tells() -> None:
    whole = taught(WholeScorer())
    local = taught(ResidualScorer(one_steps((0.0,)), ResidualPosition(), calibration=Surprise()))
    good, darker = grain(60, 5), grain(60, 6, shift=-0.03)

    def auroc(scorer) -> float:
        low, high = (
            scorer(MODEL, image, Cond()).flatten(1).topk(8).values.mean(1)
            if scorer is local
            else scorer(MODEL, image, Cond()).flatten()
            for image in (good, darker)
        )
        return (high[:, None] > low).double().mean().item()

    assert auroc(whole) > 0.9
    assert auroc(whole) > auroc(local) + 0.1


def test_good_pictures_surprise_as_much_as_chance_does() -> None:
    found = taught(WholeScorer(), 150)(MODEL, grain(400, 9), Cond()).flatten()
    assert 0.7 < found.mean() < 1.4  # -ln of a fair p-value has the mean 1
    assert (found > -torch.log(torch.tensor(0.1))).double().mean() < 0.18


@pytest.mark.parametrize("count", [1, 2, 4])
def test_few_pictures_are_borne(count: int) -> None:
    assert torch.isfinite(taught(WholeScorer(), count)(MODEL, grain(3, 5), Cond())).all()


def test_no_picture_is_told() -> None:
    with pytest.raises(DataError, match="got none"):
        WholeScorer().learn(list)


def test_a_picture_does_not_depend_on_its_neighbours() -> None:
    scorer, batch = taught(WholeScorer()), grain(5, 3)
    together = scorer(MODEL, batch, Cond())
    alone = torch.cat([scorer(MODEL, batch[i : i + 1], Cond()) for i in range(5)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_beside_a_sharp_map_it_moves_the_score_alone() -> None:
    step = ResidualScorer(one_steps((0.0,)), ResidualPosition(), calibration=Surprise(), sharp=True)
    whole = WholeScorer()
    both = taught(Fused([step, whole], calibration=NoCalibration(), weights=[1.0, 1.0], shared=True))
    parts = both.observe(MODEL, grain(2, 8), Cond()).parts
    maps = both.maps(parts)
    own = step.maps(parts[: step.width])
    assert torch.equal(maps.place, own.place)
    torch.testing.assert_close(maps.score, 0.5 * (own.score + whole.weigh(parts[step.width :])))


def test_it_asks_for_surprises_and_a_map_of_its_own() -> None:
    with pytest.raises(ConfigError, match=r"whole: 1 adds a surprise.*fuse: agreement or fisher"):
        load(preset="features", overrides=["score.whole=1", "score.fuse=mean"])
    with pytest.raises(ConfigError, match=r"whole: 1 .*map: sharp"):
        load(preset="features", overrides=["score.whole=1", "score.map=score"])
