"""The critic's opinion of a picture's own pairs: the exact odds where the law is known, and what it must not do."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from anodiff.cond import Cond
from anodiff.detect import teaching
from anodiff.detect.calibrate import GlobalCalibration
from anodiff.detect.distance import Latent
from anodiff.detect.heatmap import Smooth
from anodiff.detect.opinion import OpinionScorer
from anodiff.detect.pool import Maximum
from anodiff.detect.predictor import Predictor
from anodiff.detect.restore import OneStep
from anodiff.detect.scorer import Fused, RestorationScorer, Scorer
from anodiff.detect.threshold import Quantile
from anodiff.diffusion.gan import Critic
from anodiff.diffusion.schedule import table
from anodiff.errors import ConfigError, RefusalError
from anodiff.nets.discriminator import Discriminator
from anodiff.noise import PerImageNoise

CHAIN = table("vp", 8)
NORMAL, WIDE = 0.2, 0.6  # deviations of normals and of what a generator without any sense of them draws


class Odds(nn.Module):
    """The best critic of pairs of N(0, NORMAL^2) against pairs of N(0, WIDE^2): log p(pair) - log q(pair), by place.

    y given y_next has the same law in both, so the odds are those of y_next. Each place's are its share of the mean.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, x_next: Tensor, x: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
        return self.places(x_next, x, t, cond).sum((1, 2, 3))

    def places(self, x_next: Tensor, x: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
        self.seen.append((x_next, x, t))
        index = t.long()
        below = torch.where(index > 0, CHAIN[(index - 1).clamp(min=0)], 0.0).float()[:, None, None, None]
        y_next = x_next * (1 + below**2).sqrt()
        total = [std**2 + below**2 for std in (NORMAL, WIDE)]
        odds = [-(y_next**2) / (2 * v) - v.log() / 2 for v in total]
        return (odds[0] - odds[1]).sum(1, keepdim=True) / x_next[0, 0].numel()


def odds() -> tuple[Critic, Odds]:
    net = Odds()
    return Critic(net, CHAIN).eval(), net


def evidence(z: Tensor, below: float) -> Tensor:
    """What Odds' opinion of y_next = z + below n comes to on average over n, its sign turned, per place and channel."""
    v, q = NORMAL**2 + below**2, WIDE**2 + below**2
    return (z**2 + below**2) / 2 * (1 / v - 1 / q) + math.log(v / q) / 2


def cond(*seeds: int) -> Cond:
    return Cond(noise=PerImageNoise(seeds))


def grey(count: int, seed: int = 0, side: int = 8) -> Tensor:
    """Pictures whose z is N(0, NORMAL^2) at every place."""
    white = torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(seed))
    return (NORMAL * white + 1) / 2


def teach(scorer: Scorer, model, images: Tensor) -> None:
    parts = [
        scorer.observe(model, batch, cond(*range(100 * i, 100 * i + len(batch)))).parts
        for i, batch in enumerate(images.split(8))
    ]
    scorer.learn(lambda: iter(parts))


@pytest.mark.parametrize("index", [0, 1, 3])
@torch.no_grad()
def test_the_map_is_the_negative_odds_of_the_pictures_own_pairs(plain, truth, index: int) -> None:
    critic, _ = odds()
    z = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8)
    scorer = OpinionScorer(critic, (float(CHAIN[index]),), draws=600)
    found = scorer.observe((truth, plain(channels=1)), (z + 1) / 2, cond(1)).parts[0]
    below = 0.0 if index == 0 else float(CHAIN[index - 1])
    # what is averaged is (z + below n)^2 k, of deviation k below sqrt(2 below^2 + 4 z^2)
    k = (1 / (NORMAL**2 + below**2) - 1 / (WIDE**2 + below**2)) / 2
    error = k * below * (2 * below**2 + 4 * z**2).sqrt() / math.sqrt(600)
    assert ((64 * found - evidence(z, below)).abs() <= 4.5 * error + 1e-5).all()


def test_each_level_is_the_nearest_of_the_critics_table_and_its_pair_is_of_the_chain(plain, truth) -> None:
    critic, net = odds()
    image = grey(2)
    OpinionScorer(critic, (0.5, 2.6, float(CHAIN[-1])), draws=2).observe(
        (truth, plain(channels=1)), image, cond(1, 2)
    )
    assert [t.tolist() for *_, t in net.seen] == [[0, 0]] * 2 + [[3, 3]] * 2 + [[7, 7]] * 2
    x_next, x, _ = net.seen[0]
    torch.testing.assert_close(x_next, 2 * image - 1)  # under the lowest level there is no noise
    y = x * float((1 + CHAIN[0] ** 2).sqrt())
    assert float((y - x_next).std()) == pytest.approx(float(CHAIN[0]), rel=0.2)
    # all noise is fresh: two draws of one level, and the two members of a pair
    high = net.seen[4][1] * float((1 + CHAIN[-1] ** 2).sqrt()) / float(CHAIN[-1])
    other = net.seen[5][1] * float((1 + CHAIN[-1] ** 2).sqrt()) / float(CHAIN[-1])
    assert float(high.std()) == pytest.approx(1, rel=0.2)
    assert abs(float((high * other).mean())) < 0.3
    assert truth.calls == 0


def test_it_finds_the_spot_and_asks_no_denoiser(plain, truth) -> None:
    critic, net = odds()
    model = (truth, plain(channels=1))
    scorer = OpinionScorer(critic, (0.43, 0.95), draws=4)
    teach(scorer, model, grey(32, seed=1))
    net.seen.clear()
    image = grey(3, seed=2)
    image[1, :, 3:5, 3:5] = 0.95
    found = scorer(model, image, cond(91, 92, 93))
    assert found.shape == (3, 1, 8, 8)
    assert found[1, 0, 3:5, 3:5].mean() > found[[0, 2]].mean() + 4 * found[[0, 2]].std()
    assert scorer.evaluations == truth.calls == 0
    assert len(net.seen) == scorer.opinions == 8
    assert torch.equal(found, scorer(model, image, cond(91, 92, 93)))


def test_levels_are_calibrated_before_they_are_added(plain, truth) -> None:
    critic, _ = odds()
    model = (truth, plain(channels=1))
    scorer = OpinionScorer(critic, (0.43, 7.1))  # the odds of a high level hardly move
    teach(scorer, model, grey(64, seed=1))
    parts = scorer.observe(model, grey(32, seed=2), cond(*range(32))).parts
    assert len(parts) == scorer.width == 2
    assert float(parts[0].std()) > 20 * float(parts[1].std())
    weighed = [c(part) for c, part in zip(scorer.blend.calibrations, parts, strict=True)]
    assert [float(w.mean()) for w in weighed] == pytest.approx([0, 0], abs=0.1)
    assert [float(w.std()) for w in weighed] == pytest.approx([1, 1], abs=0.15)
    torch.testing.assert_close(scorer.weigh(parts), (weighed[0] + weighed[1]) / 2)


def real(seed: int = 0, **options) -> Critic:
    torch.manual_seed(seed)
    return Critic(Discriminator(in_channels=1, width=8, multipliers=(1, 2), **options), CHAIN)


def test_a_real_discriminator_judges_each_row_by_itself(plain, truth) -> None:
    critic = real(classes=3)
    for _ in range(2):  # it has seen a batch, so that its own statistics are those of training
        critic(grey(4), grey(4, 1), CHAIN[1], Cond(label=torch.tensor([0, 1, 2, 0])))
    scorer, model, image = OpinionScorer(critic, (0.95, 3.4)), (truth, plain(channels=1)), grey(3)
    with pytest.raises(RefusalError, match=r"neighbours.*critic\.eval\(\)"):
        scorer.observe(model, image, Cond(label=torch.tensor([0, 1, 2]), noise=PerImageNoise([1, 2, 3])))
    critic.eval()
    every = scorer.observe(
        model, image, Cond(label=torch.tensor([0, 1, 2]), noise=PerImageNoise([1, 2, 3]))
    ).parts
    single = scorer.observe(model, image[1:2], Cond(label=torch.tensor([1]), noise=PerImageNoise([2]))).parts
    other = scorer.observe(model, image[1:2], Cond(label=torch.tensor([0]), noise=PerImageNoise([2]))).parts
    for a, b, c in zip(every, single, other, strict=True):
        assert a.shape == (3, 1, 4, 4)
        torch.testing.assert_close(b, a[1:2], rtol=1e-4, atol=1e-6)
        assert (c - b).abs().max() > 1e-5  # the label is told


def test_a_map_adds_up_to_the_logit(plain, truth) -> None:
    critic = real().eval()
    image = grey(2)
    found = OpinionScorer(critic, (float(CHAIN[0]),)).observe((truth, plain(channels=1)), image, cond(1, 2))
    source = PerImageNoise([1, 2])
    z = 2 * image - 1
    source(z)
    logit = critic(z, z + float(CHAIN[0]) * source(z), CHAIN[0])  # below the lowest level y_next is z
    torch.testing.assert_close(found.parts[0].sum((1, 2, 3)), -logit, rtol=1e-4, atol=1e-5)


def test_the_critics_weights_are_not_the_scorers(plain, truth) -> None:
    critic = real().eval()
    model, image = (truth, plain(channels=1)), grey(2)
    learnt, fresh = OpinionScorer(critic, (0.95,)), OpinionScorer(critic, (0.95,))
    teach(learnt, model, grey(16, seed=1))
    assert not list(learnt.parameters())
    assert all("blend" in key for key in learnt.state_dict())
    fresh.load_state_dict(learnt.state_dict())
    assert torch.equal(learnt(model, image, cond(1, 2)), fresh(model, image, cond(1, 2)))
    learnt.train()
    assert not critic.training


@pytest.mark.parametrize("first", [True, False])
def test_it_fuses_with_a_restoration(plain, truth, normals, first: bool) -> None:
    torch.manual_seed(0)
    critic = Critic(Discriminator(in_channels=3, width=8, multipliers=(1, 2)), CHAIN).eval()
    scorers: list[Scorer] = [
        RestorationScorer(OneStep(0.5, draws=2), [Latent()]),
        OpinionScorer(critic, (0.95, 3.4), draws=3),
    ]
    fused = Fused(scorers if first else scorers[::-1], weights=(2, 1))
    model = (truth, plain())
    teach(fused, model, normals(16, seed=1))
    truth.calls = 0
    observed = fused.observe(model, normals(2, seed=2), cond(1, 2))
    assert truth.calls == fused.evaluations == 2
    assert fused.opinions == 6
    assert len(observed.parts) == fused.width == 3
    assert observed.restored is not None
    assert observed.restored.shape == (2, 3, 16, 16)
    assert fused.weigh(observed.parts).shape == (2, 1, 16, 16)


def test_a_predictor_of_no_evaluation(plain, truth) -> None:
    """Nothing divides by the evaluations, noise is keyed by the picture, and a batch is its rows."""

    def normals(seed: int) -> Iterator[Tensor]:
        yield from grey(24, seed=seed).split(8)

    critic, _ = odds()
    predictor = Predictor(
        plain(channels=1),
        truth,
        OpinionScorer(critic, (0.43, 0.95), draws=2),
        smooth=Smooth(0.0),
        calibration=GlobalCalibration(),
        pool=Maximum(),
        threshold=Quantile(0.9),
        mask_threshold=Quantile(0.9),
    ).eval()
    teaching.learn(predictor, lambda: normals(1), lambda: normals(2))
    assert predictor.evaluations == 0
    image = grey(3, seed=3)
    image[1, :, 3:5, 3:5] = 0.95
    scored = predictor(image)
    assert scored.restored is None
    assert scored.score.argmax() == 1
    assert scored.score[1] > scored.threshold[1]
    torch.testing.assert_close(predictor(image[1:2]).score, scored.score[1:2])


def test_refusals(plain, truth) -> None:
    critic, _ = odds()
    model = (truth, plain(channels=1))
    with pytest.raises(ConfigError, match=r"a level and a draw, got levels=\(\), draws=1"):
        OpinionScorer(critic, ())
    with pytest.raises(ConfigError, match="draws=0"):
        OpinionScorer(critic, (0.5,), draws=0)
    with pytest.raises(RefusalError, match="PerImageNoise"):
        OpinionScorer(critic, (0.5,)).observe(model, grey(1), Cond())
    with pytest.raises(RefusalError, match=r"from 0\.42\d* to 152"):
        OpinionScorer(critic, (0.1,)).observe(model, grey(1), cond(1))
