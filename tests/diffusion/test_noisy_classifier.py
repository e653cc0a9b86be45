"""The noisy classifier: what its network is fed, its log-probabilities, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from truth import Gaussian

from anodiff.cond import Cond
from anodiff.diffusion.classifier import NoisyClassifier
from anodiff.diffusion.guidance import Bind, Guide
from anodiff.diffusion.levels import Levels, karras, spaced
from anodiff.diffusion.sampling import ddim
from anodiff.diffusion.schedule import abar_of, table
from anodiff.errors import ConfigError, RefusalError

F64 = torch.float64
TABLE = table("linear")
DISCRETE = Levels(low=float(TABLE[0]), high=float(TABLE[-1]), table=TABLE)
CONTINUOUS = Levels(low=0.01, high=80.0)
MEANS, STD = (-0.6, 0.2, 0.7), 0.15


def picture(seed: int = 0, shape=(2, 2, 4, 4)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def labels(*values: int) -> Cond:
    return Cond(label=torch.tensor(values))


def bayes(x_t, t, cond=None):
    """The ideal classifier of three equally frequent Gaussians, each N(mean_k, STD^2) at every element."""
    square = TABLE[t.long()].to(x_t.dtype).square()
    y = x_t * (1 + square).sqrt().reshape(-1, 1, 1, 1)
    gap = y.unsqueeze(-1) - x_t.new_tensor(MEANS)  # [B, C, h, w, K]
    return (-gap.square() / (2 * (STD**2 + square)).reshape(-1, 1, 1, 1, 1)).sum((1, 2, 3))


def test_the_network_sees_unit_variance_and_the_index_of_the_table():
    """Law: parameterisation; reference: x_t = sqrt(abar) y, written out"""
    seen = []
    classifier = NoisyClassifier(lambda *a: seen.append(a) or torch.zeros(2, 3, dtype=F64), DISCRETE)
    y, t, cond = picture(), torch.tensor([3, 700]), labels(0, 1)
    classifier(y, TABLE[t], cond)
    assert (seen[0][0] - y * abar_of(TABLE[t]).sqrt().reshape(-1, 1, 1, 1)).abs().max() <= 1e-15
    assert torch.equal(seen[0][1], t.double())
    assert seen[0][2] is cond


def test_continuous_levels_are_fed_a_quarter_of_their_logarithm():
    seen = []
    classifier = NoisyClassifier(lambda *a: seen.append(a) or torch.zeros(2, 3), CONTINUOUS)
    classifier(picture().float(), torch.tensor(0.5))
    assert torch.allclose(seen[0][1], torch.full((2,), math.log(0.5) / 4))
    assert torch.allclose(seen[0][0].double(), picture() / math.sqrt(1.25), atol=1e-6)


def test_log_prob_is_bayes_rule():
    """Law: guidance; reference: Bayes' rule for three Gaussians (torch.distributions)"""
    sigma, y = TABLE[[50, 400]], 0.3 * picture()
    spread = (STD**2 + sigma.square()).sqrt().reshape(-1, 1, 1, 1)
    joint = torch.stack(
        [torch.distributions.Normal(m, spread).log_prob(y).sum((1, 2, 3)) for m in MEANS], dim=1
    )
    expected = (joint - joint.logsumexp(1, keepdim=True))[torch.arange(2), torch.tensor([2, 0])]
    ours = NoisyClassifier(bayes, DISCRETE).log_prob(y, sigma, labels(2, 0))
    assert ours.shape == (2,)
    assert (ours - expected).abs().max() <= 1e-11


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_guidance_leads_a_mixture_to_the_class_that_was_asked_for(wanted):
    """The whole way: three classes, their ideal classifier, and the denoiser of all three together."""

    class Whole:
        levels = DISCRETE

        def __call__(self, y, sigma, cond=None):
            t = DISCRETE.index(sigma).expand(len(y))
            x_t = y / (1 + sigma.square()).sqrt()
            share = bayes(x_t, t).softmax(1)  # of each class in each row
            parts = torch.stack([Gaussian(m, STD)(y, sigma) for m in MEANS], dim=-1)
            return (parts * share.reshape(-1, 1, 1, 1, 3)).sum(-1)

    classifier = NoisyClassifier(bayes, DISCRETE)
    rows = 32
    guided = Bind(Guide(Whole(), classifier.log_prob, 1.0), Cond(label=torch.full((rows,), wanted)))
    grid = spaced(DISCRETE, 100)
    sample = ddim(guided, grid[0] * picture(1, (rows, 1, 3, 3)), grid)
    means = sample.mean((1, 2, 3))
    assert float((means - MEANS[wanted]).abs().max()) < 4 * STD / 3
    plain = ddim(Whole(), grid[0] * picture(1, (rows, 1, 3, 3)), grid).mean((1, 2, 3))
    assert len({int(v) for v in (plain[:, None] - torch.tensor(MEANS)).abs().argmin(1)}) == 3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_every_dtype_gives_log_probabilities_of_enough_digits(dtype):
    net = nn.Linear(32, 3, dtype=dtype)
    classifier = NoisyClassifier(lambda x, t, cond: net(x.flatten(1)), DISCRETE)
    y = picture().to(dtype).requires_grad_()
    value = classifier.log_prob(y, TABLE[[5, 6]], labels(0, 2))
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    (slope,) = torch.autograd.grad(value.sum(), y)
    assert slope.dtype == dtype
    assert slope.isfinite().all()


def test_far_classes_stay_finite_in_half_precision():
    logits = torch.tensor([[0.0, 600.0]], dtype=torch.float16)
    classifier = NoisyClassifier(lambda x, t, cond: logits, DISCRETE)
    assert float(classifier.log_prob(picture(0, (1, 1, 2, 2)), TABLE[5], labels(0))) == -600


def test_it_is_a_module_that_holds_its_network():
    net = nn.Module()
    net.weight = nn.Parameter(torch.ones(2))
    assert list(NoisyClassifier(net, DISCRETE).state_dict()) == ["net.weight"]


@pytest.mark.parametrize("cond", [None, Cond(), Cond(tokens=torch.zeros(2, 1, 4))])
def test_a_label_must_come(cond):
    with pytest.raises(RefusalError, match="hold none"):
        NoisyClassifier(bayes, DISCRETE).log_prob(picture(), TABLE[5], cond)


@pytest.mark.parametrize(("label", "said"), [([0, 3], "got 3"), ([-1, 0], "got -1")])
def test_a_label_out_of_range_is_named(label, said):
    with pytest.raises(ConfigError, match=f"0 to 2, but {said}"):
        NoisyClassifier(bayes, DISCRETE).log_prob(picture(), TABLE[5], labels(*label))


@pytest.mark.parametrize("label", [torch.tensor([1]), torch.tensor([0.0, 1.0]), torch.tensor([[0], [1]])])
def test_labels_are_one_whole_number_a_row(label):
    with pytest.raises(ConfigError, match="whole-number label a row"):
        NoisyClassifier(bayes, DISCRETE).log_prob(picture(), TABLE[5], Cond(label=label))


@pytest.mark.parametrize("levels", [DISCRETE, CONTINUOUS])
def test_levels_it_was_not_trained_for_are_refused(levels):
    classifier = NoisyClassifier(lambda x, t, cond: torch.zeros(2, 3), levels)
    for sigma in (1e-4, 1e4):
        with pytest.raises(RefusalError, match="were trained"):
            classifier.log_prob(picture(), torch.tensor(sigma), labels(0, 1))


def test_guide_refuses_a_classifier_of_fewer_levels():
    narrow = Levels(low=0.1, high=3.0)
    classifier = NoisyClassifier(lambda x, t, cond: torch.zeros(2, 3), narrow)
    guided = Bind(Guide(Gaussian(levels=CONTINUOUS), classifier.log_prob, 1.0), labels(0, 1))
    with pytest.raises(RefusalError, match=r"classifier knows noise levels 0\.1 to 3"):
        ddim(guided, picture(), karras(0.2, 1.0, 3))
    same = Guide(Gaussian(levels=narrow), lambda x, s, c: x.sum((1, 2, 3)) * 0, 1.0)
    assert ddim(same, picture(), karras(0.2, 1.0, 3)).isfinite().all()
