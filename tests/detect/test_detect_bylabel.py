"""Several kinds of parts in one predictor: each is judged by what is usual for its own kind."""

import copy

import pytest
import torch
from torch import Tensor, nn

from anodiff.cond import Cond
from anodiff.detect import teaching
from anodiff.detect.bylabel import CalibrationByLabel, ScorerByLabel, ThresholdByLabel
from anodiff.detect.calibrate import PositionCalibration
from anodiff.detect.heatmap import Smooth
from anodiff.detect.onestep import ResidualScorer, one_steps
from anodiff.detect.opinion import OpinionScorer
from anodiff.detect.pool import TopShare
from anodiff.detect.predictor import Predictor
from anodiff.detect.residual import ResidualCovariance
from anodiff.detect.scorer import Fused, Scorer
from anodiff.detect.threshold import Conformal
from anodiff.diffusion.gan import Critic
from anodiff.diffusion.levels import Levels, column, level
from anodiff.diffusion.schedule import table
from anodiff.errors import ConfigError, DataError, RefusalError

NAMES = ("calm", "rough")


class Bright(nn.Module):
    """Label 1 for a picture whose mean lies above one half."""

    def forward(self, image: Tensor) -> Tensor:
        return (image.mean((1, 2, 3)) > 0.5).long()


class ByLabel(nn.Module):
    """The ideal denoiser of places around -.4 with deviation .05 (label 0), or .4 with deviation .3 (label 1)."""

    levels = Levels(0.01, 20.0)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([-0.4, 0.4]))
        self.register_buffer("deviation", torch.tensor([0.05, 0.3]))
        self.seen: list[Tensor] = []

    def forward(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        assert cond is not None
        assert cond.label is not None
        self.seen.append(cond.label)
        mean = self.mean[cond.label][:, None, None, None]
        square = self.deviation[cond.label].square()
        gain = square / (square + level(sigma).float().square())
        return mean + column(gain, y) * (y - mean)


def parts(count: int, label: int, seed: int) -> Tensor:
    """Pictures [count, 3, 8, 8] of one kind."""
    generator = torch.Generator().manual_seed(seed)
    mean, deviation = ((-0.4, 0.05), (0.4, 0.3))[label]
    return (mean + deviation * torch.randn(count, 3, 8, 8, generator=generator) + 1) / 2


def predictor(plain, rate: float = 0.1) -> Predictor:
    return Predictor(
        plain(),
        ByLabel(),
        ScorerByLabel([ResidualScorer(one_steps([0.5]), ResidualCovariance(floor=0.05)) for _ in NAMES]),
        labeller=Bright(),
        smooth=Smooth(0.5),
        calibration=CalibrationByLabel([PositionCalibration() for _ in NAMES]),
        pool=TopShare(0.05),
        threshold=ThresholdByLabel([Conformal(rate) for _ in NAMES], NAMES),
        mask_threshold=ThresholdByLabel([Conformal(rate) for _ in NAMES], NAMES),
    )


@pytest.fixture
def taught(plain) -> Predictor:
    found = predictor(plain)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(0))
    both = torch.cat([parts(60, 0, 1), parts(60, 1, 2)])[order]
    held = torch.cat([parts(40, 0, 3), parts(40, 1, 4)])
    teaching.learn(found, lambda: both.split(16), lambda: held.split(16))
    return found


def test_each_kind_keeps_its_own_false_alarm_rate(taught: Predictor) -> None:
    for label in (0, 1):
        found = taught(parts(300, label, 10 + label))
        assert (found.label == label).all()
        rate = float((found.score > found.threshold).float().mean())
        assert 0.03 < rate < 0.2, (label, rate)  # .1 with 40 held-out pictures of a kind
        assert abs(float((found.p_value <= 0.1).float().mean()) - rate) < 1e-6


def test_a_fault_of_the_calm_kind_is_seen_though_the_rough_kind_varies_more(taught: Predictor) -> None:
    bad = parts(20, 0, 20)
    bad[:, :, 2:5, 2:5] += 0.06  # small beside the rough kind's deviation of .15 in [0, 1]
    found = taught(bad)
    assert (found.label == 0).all()
    assert (found.score > found.threshold).float().mean() > 0.9
    assert (found.heat[:, 0, 2:5, 2:5].mean((1, 2)) > found.heat[:, 0, 6:, 6:].mean((1, 2)) + 1).all()


def test_scores_do_not_depend_on_the_neighbours(taught: Predictor) -> None:
    image = torch.cat([parts(3, 0, 30), parts(3, 1, 31)])
    order = [4, 0, 5, 2, 1, 3]
    whole = taught(image[order])
    for place, row in enumerate(order):
        alone = taught(image[row : row + 1])
        assert torch.allclose(whole.score[place], alone.score[0], atol=1e-5)
        assert float(whole.threshold[place]) == float(alone.threshold[0])


def test_a_given_label_goes_before_the_found_one(taught: Predictor) -> None:
    image = parts(2, 0, 40)
    asked = taught(image, Cond(label=torch.tensor([1, -1])))
    assert asked.label.tolist() == [1, 0]
    assert float(asked.score[0]) != float(taught(image).score[0])
    assert float(asked.score[1]) == float(taught(image).score[1])


def test_the_state_carries_all(taught: Predictor, plain) -> None:
    fresh = predictor(plain)
    fresh.load_state_dict(copy.deepcopy(taught.state_dict()))
    image = torch.cat([parts(2, 0, 50), parts(2, 1, 51)])
    assert torch.equal(fresh(image).score, taught(image).score)
    assert fresh.threshold.values == taught.threshold.values
    assert set(fresh.threshold.values) == set(NAMES)
    assert fresh.threshold.value == max(fresh.threshold.values.values())


def test_known_labels_teach_and_the_labeller_is_not_asked(plain) -> None:
    found = predictor(plain)
    found.labeller = nn.Identity()  # would fail
    normals = [(parts(20, k, 60 + k), torch.full((20,), k)) for k in (0, 1)]
    held = [(parts(12, k, 70 + k), torch.full((12,), k)) for k in (0, 1)]
    teaching.learn(found, lambda: normals, lambda: held)
    assert len(found.threshold.thresholds[0].learnt("normals")) == 12


def test_a_kind_without_held_out_parts_is_named(plain) -> None:
    found = predictor(plain)
    normals = [(parts(20, k, 60 + k), torch.full((20,), k)) for k in (0, 1)]
    with pytest.raises(DataError, match="'rough'"):
        teaching.learn(found, lambda: normals, lambda: [parts(12, 0, 70)])


def test_a_label_given_to_a_model_without_labels_is_refused(plain, truth) -> None:
    from anodiff.detect.calibrate import GlobalCalibration

    found = Predictor(
        plain(), truth, ResidualScorer(one_steps([0.5]), ResidualCovariance()),
        smooth=Smooth(0), calibration=GlobalCalibration(),
        pool=TopShare(0.1), threshold=Conformal(0.1), mask_threshold=Conformal(0.1),
    )  # fmt: skip
    with pytest.raises(RefusalError, match="without labels"):
        found.labelled(torch.zeros(1, 3, 4, 4), Cond(label=torch.tensor([0])))


def test_a_scorer_by_label_needs_labels(plain, truth) -> None:
    scorer = ScorerByLabel([ResidualScorer(one_steps([0.5]), ResidualCovariance()) for _ in NAMES])
    with pytest.raises(ConfigError, match="label"):
        scorer.observe((truth, plain()), torch.zeros(1, 3, 4, 4), Cond())


def test_both_players_are_asked_for_one_label_a_picture() -> None:
    critic = Critic(lambda x_next, x, t, cond=None: x.flatten(1).sum(1), table("vp", 4))

    def one() -> Scorer:
        residual = ResidualScorer(one_steps([0.954, 3.413], draws=2), ResidualCovariance())
        return Fused([residual, OpinionScorer(critic, [0.954, 3.413, 17.02], draws=2)])

    scorer = ScorerByLabel([one() for _ in NAMES])
    assert (scorer.evaluations, scorer.opinions) == (4, 6)
    plain = ScorerByLabel([ResidualScorer(one_steps([0.5]), ResidualCovariance()) for _ in NAMES])
    assert (plain.evaluations, plain.opinions) == (1, 0)
