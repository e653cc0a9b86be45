"""Painting: pictures follow the model's law under every sampler, each by itself, and options without sense are told."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anodiff import compose
from anodiff.cond import Cond
from anodiff.config import load
from anodiff.detect.predictor import Predictor, bare
from anodiff.detect.steering import Steering
from anodiff.diffusion.gan import DDGANDenoiser
from anodiff.diffusion.guidance import Autoguide, Guide
from anodiff.diffusion.levels import Levels, level
from anodiff.diffusion.schedule import table
from anodiff.errors import ConfigError, RefusalError
from anodiff.guiding import Guiding, guiding
from anodiff.nets.generator import Generator
from anodiff.nets.unet import UNet
from anodiff.noise import PerImageNoise
from anodiff.painting import STEPS, paint, usual_eta, usual_steps

SMALL = (
    "data.size=16", "data.channels=1", "codec.patch=1", "net.width=8", "net.multipliers=[1]", "net.attention=[]",
    "family.kind=eps", "family.schedule.steps=100", "score.steps=4", "score.distances={l1: 1.0}",
)  # fmt: skip
CPU = torch.device("cpu")


class Gaussian(nn.Module):
    """The ideal denoiser of pixels that are `label / 10` and independent Gaussian noise of deviation `std` about it."""

    def __init__(self, like: Levels, *, std: float) -> None:
        super().__init__()
        self.levels = like
        self.std = std
        self.visited: list[float] = []

    def forward(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        self.visited.append(float(level(sigma)))
        centre = torch.zeros(len(y)) if cond is None or cond.label is None else cond.label / 10
        centre = centre[:, None, None, None]
        return centre + (self.std**2 / (self.std**2 + float(level(sigma)) ** 2)) * (y - centre)


@pytest.fixture(scope="module")
def untrained() -> Predictor:
    config = load(preset="pixels", overrides=SMALL)
    predictor = compose.predictor(config, target_fpr=0.05, shape=(16, 16), weights=compose.LEARNT)
    with torch.no_grad():  # its last layer begins at zero, after which every picture would be its noise
        for value in predictor.denoiser.parameters():
            chance = torch.Generator().manual_seed(value.numel())
            value.add_(0.02 * torch.randn(value.shape, generator=chance))
    return predictor


@pytest.fixture
def ideal(untrained: Predictor) -> Predictor:
    config = load(preset="pixels", overrides=[*SMALL, "family.schedule.steps=1000"])
    predictor = compose.predictor(config, target_fpr=0.05, shape=(16, 16), weights=compose.LEARNT)
    predictor.denoiser = Gaussian(predictor.denoiser.levels, std=0.2)
    predictor.wrap = bare
    return predictor


def painted(predictor: Predictor, **options: Any) -> np.ndarray:
    """The pictures [count, h, w, C] as whole numbers."""
    given = {"count": 3, "steps": 4, "device": CPU, **options}
    pictures = list(paint(predictor, given.pop("shape", (16, 16)), **given))
    assert all(picture.dtype == np.uint8 for picture in pictures)
    return np.stack(pictures).astype(int)


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": "ddim", "steps": 1000},
        {"sampler": "ddim", "steps": 1000, "eta": 0.5},
        {"sampler": "ddpm", "steps": 1000, "spacing": "all"},
        {"sampler": "ddpm", "steps": 1000, "variance": "large"},
        {"sampler": "heun", "steps": 30, "spacing": "karras"},
        {"sampler": "dpmpp_2m", "steps": 30, "spacing": "karras"},
    ],
    ids=lambda options: f"{options['sampler']}-{options.get('variance', options.get('eta', 0))}",
)
def test_every_sampler_paints_the_law_of_the_model(ideal: Predictor, options: dict[str, Any]) -> None:
    shown = painted(ideal, count=8, **options) / 255 * 2 - 1  # as the codec has it
    assert shown.shape == (8, 16, 16, 1)
    # 2048 values: the mean errs by .2 / 45, the deviation by .2 / 64; grid and rounding add less
    assert shown.mean() == pytest.approx(0, abs=0.015)
    assert shown.std() == pytest.approx(0.2, abs=0.015)


@pytest.mark.parametrize("options", [{}, {"eta": 0.5}, {"sampler": "heun"}, {"sampler": "dpmpp_2m"}])
def test_a_picture_depends_on_its_number_and_the_seed_alone(
    untrained: Predictor, options: dict[str, Any]
) -> None:
    three = painted(untrained, **options)
    five = painted(untrained, count=5, batch=2, **options)
    assert five.shape == (5, 16, 16, 1)
    assert np.abs(three - five[:3]).max() <= 1
    assert min(np.abs(three[i] - five[j]).max() for i in range(3) for j in range(5) if i != j) > 10
    assert np.abs(three - painted(untrained, seed=1, **options)).max() > 10


def test_ddpm_is_ddim_at_eta_1(untrained: Predictor) -> None:
    ddpm = painted(untrained, sampler="ddpm")
    assert np.array_equal(ddpm, painted(untrained, sampler="ddim", eta=1.0))
    assert not np.array_equal(ddpm, painted(untrained, sampler="ddim"))
    assert not np.array_equal(ddpm, painted(untrained, sampler="ddpm", variance="large"))


def test_a_learned_variance_lies_between_the_fixed_ones() -> None:
    config = load(preset="pixels", overrides=[*SMALL, "family.variance=learned", "train.loss=hybrid"])
    predictor = compose.predictor(config, target_fpr=0.05, shape=(16, 16), weights=compose.LEARNT)
    names = ("small", "large", "learned")
    shown = {name: painted(predictor, sampler="ddpm", variance=name) for name in names}
    # the fresh network answers 0: half the way between the logarithms of both
    gap = {name: np.abs(shown[name] - shown["learned"]).mean() for name in ("small", "large")}
    assert 0 < gap["small"] < np.abs(shown["small"] - shown["large"]).mean()
    assert 0 < gap["large"] < np.abs(shown["small"] - shown["large"]).mean()


def test_conditions_belong_to_the_numbers_of_the_pictures(ideal: Predictor) -> None:
    asked: list[range] = []

    def cond_of(numbers: range) -> Cond:
        asked.append(numbers)
        return Cond(label=torch.tensor([5.0 * (number % 2) for number in numbers]))

    shown = painted(ideal, count=5, batch=2, steps=50, cond_of=cond_of) / 255 * 2 - 1
    assert asked == [range(2), range(2, 4), range(4, 5)]
    assert shown.mean(axis=(1, 2, 3)) == pytest.approx([0, 0.5, 0, 0.5, 0], abs=0.06)


def test_guidance_may_take_gradients(ideal: Predictor) -> None:
    """N(0, s^2) with log p(c | x) = 10 sum(x) is N(10 s^2, s^2); seen at a level it is 10 sum(E[x | y])."""

    def log_prob(y: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor:
        return 10 * (0.04 / (0.04 + float(level(sigma)) ** 2) * y).flatten(1).sum(1)

    ideal.wrap = lambda inner: Guide(inner, log_prob, 1.0)
    shown = painted(ideal, count=8, steps=100) / 255 * 2 - 1
    assert shown.mean() == pytest.approx(0.4, abs=0.02)


def test_the_walk_begins_at_the_top_unless_the_spacing_says_otherwise(ideal: Predictor) -> None:
    table = ideal.denoiser.levels.table
    assert table is not None
    first: dict[str, float] = {}
    for spacing in ("trailing", "linspace", "quadratic", "karras", "leading"):
        ideal.denoiser.visited.clear()
        painted(ideal, count=1, steps=10, spacing=spacing)
        assert len(ideal.denoiser.visited) == 10
        first[spacing] = ideal.denoiser.visited[0]
    assert first.pop("leading") == pytest.approx(float(table[900]))
    assert list(first.values()) == pytest.approx([float(table[999])] * 4)


def test_nothing_is_painted_before_it_is_asked_for(ideal: Predictor) -> None:
    pictures = paint(ideal, (16, 16), count=6, steps=4, batch=2, device=CPU)
    assert ideal.denoiser.visited == []
    next(iter(pictures))
    assert len(ideal.denoiser.visited) == 4


def test_batches_can_be_counted(ideal: Predictor) -> None:
    seen = []

    def counted(chunks: Sequence[range]) -> Iterator[range]:
        for chunk in chunks:
            yield chunk
            seen.append(chunk)

    assert len(painted(ideal, count=5, batch=2, counted=counted)) == 5
    assert seen == [range(2), range(2, 4), range(4, 5)]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"count": 0}, "count should be at least 1, got 0"),
        ({"batch": 0}, "batch should be at least 1, got 0"),
        ({"steps": 0}, "steps should be at least 1, got 0"),
        ({"steps": 101}, "only 100 noise levels.*use at most 100"),
        ({"spacing": "all", "steps": 50}, "visits 100 levels, got steps 50"),
        ({"spacing": "wide"}, "unknown spacing 'wide'"),
        ({"sampler": "euler"}, "Unknown sampler 'euler'.*ddim, ddpm, heun, dpmpp_2m"),
        ({"eta": 1.5}, "from 0 to 1, got 1.5"),
        ({"eta": 0.5, "sampler": "heun"}, "heun draws no noise"),
        ({"eta": 0.5, "sampler": "dpmpp_2m"}, "dpmpp_2m draws no noise"),
        ({"eta": 0.5, "sampler": "ddpm"}, "ddpm is ddim at eta 1, got eta 0.5"),
        ({"variance": "huge", "sampler": "ddpm"}, "Unknown variance 'huge'"),
        ({"variance": "large"}, "ddim at eta 0 draws none"),
        ({"variance": "learned", "sampler": "heun"}, "heun draws none"),
        ({"variance": "learned", "sampler": "ddpm"}, "fitted with a fixed one.*family.variance=learned"),
    ],
)
def test_options_without_sense_are_told_before_anything_is_painted(
    untrained: Predictor, options: dict[str, Any], told: str
) -> None:
    given = {"count": 3, "steps": 4, **options}
    with pytest.raises(ConfigError, match=told):
        paint(untrained, (16, 16), device=CPU, **given)


def test_a_denoiser_that_draws_has_no_ode(ideal: Predictor) -> None:
    ideal.denoiser.levels = replace(ideal.denoiser.levels, draws=True)
    with pytest.raises(RefusalError, match="draws x0"):
        paint(ideal, (16, 16), count=1, steps=4, sampler="heun", device=CPU)
    assert painted(ideal, count=1, sampler="ddpm").shape == (1, 16, 16, 1)


class Posterior:
    """The ideal generator of N(0, .2^2) pixels: x0 ~ p(x0 | x_t), one number of the latent a pixel."""

    def __init__(self, chain: Tensor) -> None:
        self.chain = chain
        self.visited: list[int] = []

    def __call__(self, x_t: Tensor, t: Tensor, w: Tensor, cond: Cond | None) -> Tensor:
        index = int(t[0])
        self.visited.append(index)
        square = float(self.chain[index]) ** 2
        gain = 0.04 / (0.04 + square)
        return gain * x_t * (1 + square) ** 0.5 + (gain * square) ** 0.5 * w.reshape(x_t.shape)


@pytest.mark.parametrize("count", [1, 2, 4, 16])
def test_a_chain_of_draws_paints_the_law_in_as_many_steps_as_it_has_levels(
    ideal: Predictor, count: int
) -> None:
    """Nobody says steps or eta: every level once, from the top, and the law is exact however few they are."""
    chain = table("vp", 16)[16 // count - 1 :: 16 // count]
    net = Posterior(chain)
    ideal.denoiser = DDGANDenoiser(net, chain, latent=256)
    shown = painted(ideal, count=16, batch=16, steps=None) / 255 * 2 - 1
    assert net.visited == list(range(count))[::-1]
    assert shown.mean() == pytest.approx(0, abs=0.01)  # 4096 values: .2 / 64 for the mean
    assert shown.std() == pytest.approx(0.2, abs=0.01)
    said = painted(ideal, count=16, batch=16, steps=count, eta=1.0)
    assert np.array_equal(said, painted(ideal, count=16, batch=16, steps=None))
    assert np.array_equal(said, painted(ideal, count=16, batch=16, steps=None, spacing="all"))
    assert np.array_equal(said, painted(ideal, count=16, batch=16, steps=None, sampler="ddpm"))


@pytest.fixture
def generator(untrained: Predictor) -> Iterator[Predictor]:
    """A predictor whose denoiser is a real generator of four levels."""
    before, wrap = untrained.denoiser, untrained.wrap
    torch.manual_seed(0)
    net = UNet(in_channels=1, out_channels=1, width=8, multipliers=(1,), blocks=1, groups=4)
    untrained.denoiser = DDGANDenoiser(
        Generator(net, latent=8, layers=2, hidden=16, limit=1.0), table("vp", 4), latent=8
    )
    yield untrained
    untrained.denoiser, untrained.wrap = before, wrap


def test_a_generators_pictures_are_their_own_and_fewer_steps_or_less_noise_are_others(
    generator: Predictor,
) -> None:
    three = painted(generator, steps=None)
    five = painted(generator, steps=None, count=5, batch=2)
    assert np.abs(three - five[:3]).max() <= 1
    assert min(np.abs(three[i] - five[j]).max() for i in range(3) for j in range(5) if i != j) > 10
    for options in ({"steps": 1}, {"steps": 2}, {"eta": 0.0}, {"eta": 0.5}):
        assert np.abs(three - painted(generator, **{"steps": None, **options})).max() > 10


def test_samples_are_draws_also_where_the_score_holds_the_latent(generator: Predictor) -> None:
    plain = Steering(clamp=True)
    held = replace(plain, fixed=True)
    generator.wrap = plain
    drawn = painted(generator, steps=None)
    generator.wrap = held
    assert np.array_equal(drawn, painted(generator, steps=None))
    assert np.array_equal(drawn, painted(generator, steps=None, guided=guiding(generator, ())))
    assert np.array_equal(drawn, painted(generator, steps=None, guided=Guiding(held)))
    away = replace(held, weaker=copy.deepcopy(generator.denoiser), auto=2.0)
    assert np.array_equal(
        drawn, painted(generator, steps=None, guided=Guiding(away))
    )  # of itself: one draw in both
    assert generator.wrap == held  # scores still hold it
    y, seeds = torch.ones(2, 1, 16, 16), [1, 2]
    with torch.no_grad():
        one, two = held(generator.denoiser)(y, torch.tensor(3.413), Cond(noise=PerImageNoise(seeds)))
        assert torch.equal(one, two)
        one, two = plain(generator.denoiser)(y, torch.tensor(3.413), Cond(noise=PerImageNoise(seeds)))
        assert not torch.equal(one, two)


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"steps": 5}, ConfigError, "steps=5, but only 4 noise levels.*use at most 4"),
        ({"sampler": "heun"}, RefusalError, "heun follows.*mean of x0.*use the ddim sampler"),
        ({"sampler": "dpmpp_2m"}, RefusalError, "dpmpp_2m follows.*draws x0 at random"),
        ({"spacing": "karras"}, RefusalError, "only the levels of its table.*'trailing' or 'all'"),
        ({"eta": 1.0, "sampler": "heun"}, ConfigError, "heun draws no noise"),
    ],
)
def test_what_a_generator_cannot_do_is_told(
    generator: Predictor, options: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        paint(generator, (16, 16), count=1, device=CPU, **options)


def test_the_usual_steps_are_fifty_or_the_whole_of_a_shorter_table(ideal: Predictor) -> None:
    long, short = table("linear", 1000), table("linear", 20)
    assert usual_steps(Levels(0.01, 80.0)) == STEPS == 50
    for chain, draws, steps, most in (
        (long, False, 50, 50), (short, False, 20, 50), (short, False, 9, 9),
        (long, True, 1000, 50), (short, True, 20, 9),
    ):  # fmt: skip
        levels = Levels(float(chain[0]), float(chain[-1]), chain, draws=draws)
        assert usual_steps(levels, most=most) == steps
        assert [usual_eta(levels, s) for s in ("ddim", "heun", "ddpm")] == [float(draws), 0, 0]
    for levels, steps in (
        (Levels(float(short[0]), float(short[-1]), short), 20),
        (ideal.denoiser.levels, 50),
    ):
        ideal.denoiser = Gaussian(levels, std=0.2)
        deterministic = painted(ideal, count=1, steps=steps, eta=0.0)
        ideal.denoiser.visited.clear()
        assert np.array_equal(deterministic, painted(ideal, count=1, steps=None))
        assert len(ideal.denoiser.visited) == steps


def test_a_weaker_model_that_draws_changes_nothing_of_the_walk(ideal: Predictor) -> None:
    """The usual numbers are those of the model that paints: a mean of a thousand levels goes on to take fifty."""
    chain = ideal.denoiser.levels.table
    assert chain is not None
    ideal.wrap = lambda inner: Autoguide(inner, DDGANDenoiser(Posterior(chain), chain, latent=256), 1.1)
    assert painted(ideal, count=1, steps=None).shape == (1, 16, 16, 1)
    assert len(ideal.denoiser.visited) == 50


def test_features_are_not_painted_and_cells_not_cut() -> None:
    config = load(preset="tiny", overrides=["data.size=64"])
    features = compose.predictor(config, target_fpr=0.05, shape=(64, 64), weights=compose.LEARNT)
    with pytest.raises(RefusalError, match=r"paints nothing.*--preset pixels"):
        paint(features, (64, 64), count=1, steps=2, device=CPU)
    config = load(preset="pixels", overrides=[*SMALL, "codec.patch=4"])
    patches = compose.predictor(config, target_fpr=0.05, shape=(16, 16), weights=compose.LEARNT)
    with pytest.raises(ConfigError, match="multiples of 4, got 16 x 18"):
        paint(patches, (16, 18), count=1, steps=2, device=CPU)
    assert painted(patches, shape=(16, 20)).shape == (3, 16, 20, 1)
