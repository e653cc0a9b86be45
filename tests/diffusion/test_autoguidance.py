"""Guidance by a weaker model, what a denoiser says it reads, and the sentences of what has no meaning."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from truth import Conditional, Drawing, Gaussian, Mixture

from anodiff.cond import Cond
from anodiff.diffusion.classifier import NoisyClassifier
from anodiff.diffusion.denoiser import EpsDenoiser, KarrasDenoiser, VDenoiser, X0Denoiser, reads
from anodiff.diffusion.guidance import CFG, Autoguide, Bind, Clamp, Guide, Inpaint, Pull
from anodiff.diffusion.levels import Levels, spaced
from anodiff.diffusion.sampling import ddim, dpmpp_2m, heun
from anodiff.diffusion.schedule import table
from anodiff.errors import ConfigError, RefusalError

F64 = torch.float64
TABLE = table("linear")
DISCRETE = Levels(low=float(TABLE[0]), high=float(TABLE[-1]), table=TABLE)
SIGMA = TABLE[[10, 500]]


def picture(seed: int = 0, shape=(2, 2, 4, 4)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


class Reading(nn.Module):
    """A network that says what it reads, with a learned variance."""

    def __init__(self, *fields: str, scale: float = 0.5) -> None:
        super().__init__()
        self.reads = frozenset(fields)
        self.scale = scale

    def forward(self, x_t, t, cond):
        shift = 0.0 if cond is None or cond.label is None else cond.label.reshape(-1, 1, 1, 1) * 0.1
        return torch.cat((x_t * self.scale + shift, x_t * 0 + self.scale), 1)


# --- autoguidance
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 1.0, 1.7, 3.0])
def test_autoguidance_is_its_line_in_eps(scale):
    """w eps_1 + (1 - w) eps_0 of the paper's guided score.

    Law: guidance; reference: arXiv:2406.02507 section 3 in eps, written out
    """
    strong, weak, y = Gaussian(0.3, 0.4), Gaussian(0.1, 0.7), picture()
    sigma = SIGMA.reshape(-1, 1, 1, 1)
    eps = [(y - d(y, SIGMA)) / sigma for d in (strong, weak)]
    expected = y - sigma * (scale * eps[0] + (1 - scale) * eps[1])
    assert (Autoguide(strong, weak, scale)(y, SIGMA) - expected).abs().max() <= 1e-12


def test_autoguidance_of_one_is_the_inner_denoiser_in_one_evaluation():
    calls = []

    class Counting(Gaussian):
        def __call__(self, y, sigma, cond=None):
            calls.append(1)
            return super().__call__(y, sigma, cond)

    inner, y = Gaussian(0.3, 0.4), picture()
    assert torch.equal(Autoguide(inner, Counting(), 1.0)(y, SIGMA), inner(y, SIGMA))
    assert not calls
    assert not torch.equal(Autoguide(inner, Counting(), 2.0)(y, SIGMA), inner(y, SIGMA))
    assert len(calls) == 1


def test_autoguidance_undoes_what_the_weaker_model_does_worse():
    """The strong one is .1 off, the weak one .2: at scale 2 the guided mean is right and the spread is kept."""
    levels = Levels(low=0.01, high=80)
    right, strong, weak = (Gaussian(m, 0.3, levels=levels) for m in (0.5, 0.4, 0.3))
    y, grid = 80 * picture(0, (1, 1, 40, 40)), spaced(levels, 60)
    for sampler in (ddim, heun, dpmpp_2m):
        guided = sampler(Autoguide(strong, weak, 2.0), y, grid)
        assert (guided - sampler(right, y, grid)).abs().max() < 1e-10
        assert abs(float(sampler(strong, y, grid).mean()) - 0.4) < 0.02


def test_autoguidance_takes_conditions_and_keeps_the_inner_variance():
    strong = EpsDenoiser(Reading("label"), TABLE, learned_variance=True)
    weak = EpsDenoiser(Reading("label", scale=0.9), TABLE, learned_variance=True)
    cond, y = Cond(label=torch.tensor([0, 1])), picture()
    guided = Autoguide(strong, weak, 2.0)
    x0, fraction = guided.moments(y, SIGMA, cond)
    assert torch.equal(fraction, strong.moments(y, SIGMA, cond)[1])
    assert torch.allclose(x0, 2 * strong(y, SIGMA, cond) - weak(y, SIGMA, cond))
    assert not torch.equal(x0, guided(y, SIGMA))
    bound = Bind(guided, cond)
    assert torch.equal(bound(y, SIGMA), x0)


def test_a_weaker_model_of_fewer_levels_is_refused():
    narrow = Gaussian(levels=Levels(low=0.01, high=50.0))
    wide = Gaussian(levels=Levels(low=1e-4, high=500.0))
    inner = Gaussian(levels=DISCRETE)
    with pytest.raises(RefusalError, match=r"weaker denoiser knows noise levels 0\.01 to 50"):
        Autoguide(inner, narrow, 2.0)(picture(), SIGMA)
    assert Autoguide(inner, wide, 2.0)(picture(), SIGMA).isfinite().all()
    assert Autoguide(inner, wide, 2.0).levels.table is TABLE


def test_a_weaker_model_that_draws_makes_the_guided_one_draw():
    drawing = Drawing(Mixture(levels=DISCRETE), torch.Generator())
    guided = Autoguide(Mixture(levels=DISCRETE), drawing, 1.5)
    with pytest.raises(RefusalError, match="draws x0"):
        heun(guided, picture(), spaced(DISCRETE, 3))
    assert ddim(guided, picture(), spaced(DISCRETE, 3), eta=1).isfinite().all()


# --- what is read
# -------------------------------------------------------------------------------------------------


def families(net):
    return [
        EpsDenoiser(net, TABLE),
        VDenoiser(net, TABLE),
        X0Denoiser(net, TABLE),
        KarrasDenoiser(net, std=0.5, low=0.01, high=80),
    ]


def stacks(d):
    y = picture()
    return [
        Bind(d, Cond()),
        CFG(d, 2.0),
        Autoguide(d, d, 2.0),
        Guide(d, lambda x, s, c: x.sum((1, 2, 3)), 1.0),
        Pull(d, y, 0.5),
        Inpaint(d, y, torch.ones(1, 1, 1, 1)),
        Clamp(d),
        Clamp(Bind(CFG(d, 2.0), Cond())),
    ]


@pytest.mark.parametrize("fields", [(), ("label",), ("label", "image")])
def test_denoisers_and_wrappers_say_what_their_network_reads(fields):
    for family in families(Reading(*fields)):
        assert family.reads == frozenset(fields)
        for stack in stacks(family):
            assert reads(stack) == frozenset(fields)


def test_a_network_that_does_not_say_is_unknown():
    for family in families(lambda x, t, c: x):
        assert family.reads is None
        for stack in stacks(family):
            assert reads(stack) is None
    assert reads(Clamp(Gaussian())) is None


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_cfg_refuses_an_unconditional_model(scale):
    guided = CFG(EpsDenoiser(Reading(), TABLE, learned_variance=True), scale)
    with pytest.raises(RefusalError, match="trained without any"):
        guided(picture(), SIGMA, Cond(label=torch.tensor([0, 1])))
    with pytest.raises(RefusalError, match="trained without any"):
        ddim(Clamp(Bind(guided, Cond(label=torch.tensor([0, 1])))), picture(), spaced(DISCRETE, 3))


def test_cfg_refuses_conditions_that_the_model_does_not_read():
    guided = CFG(EpsDenoiser(Reading("label", "image"), TABLE, learned_variance=True), 2.0)
    with pytest.raises(RefusalError, match=r"reads \(image, label\)"):
        guided(picture(), SIGMA, Cond(tokens=torch.zeros(2, 1, 3)))
    assert guided(picture(), SIGMA, Cond(label=torch.tensor([0, 1]))).isfinite().all()


# --- scales
# -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda s: Bind(CFG(Conditional(), s), Cond(label=torch.tensor([0, 1]))), "classifier-free guidance"),
        (lambda s: Autoguide(Gaussian(), Gaussian(), s), "autoguidance"),
        (lambda s: Guide(Gaussian(), lambda x, a, c: x.sum((1, 2, 3)), s), "classifier guidance"),
        (lambda s: Pull(Gaussian(), picture(), s), "pull towards a target"),
    ],
)
def test_a_scale_that_is_no_number_is_refused(wrap, said, scale):
    with pytest.raises(ConfigError, match=f"{said} expects a finite number"):
        wrap(scale)(picture(), SIGMA)


def test_a_classifier_is_not_asked_about_noise_when_guidance_goes_through_the_denoiser():
    classifier = NoisyClassifier(lambda x, t, c: x.flatten(1)[:, :3], Levels(low=1e-3, high=0.5))
    cond = Cond(label=torch.tensor([0, 1]))

    def clean(x0, sigma, c):
        return classifier.log_prob(x0, torch.tensor(1e-3), c)

    inner = Gaussian(levels=DISCRETE)
    assert Guide(inner, clean, 1.0, through=True)(picture(), SIGMA, cond).isfinite().all()
    with pytest.raises(RefusalError, match="classifier knows"):
        Guide(inner, classifier.log_prob, 1.0)(picture(), SIGMA, cond)
