"""Guidance of a denoiser that draws x0: what it compares comes of one draw, or it says why it cannot."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anodiff.cond import Cond
from anodiff.diffusion.denoiser import X0Denoiser
from anodiff.diffusion.gan import DDGANDenoiser, FixedLatent
from anodiff.diffusion.guidance import CFG, Autoguide, Bind, Clamp, Guide, Inpaint, Pull
from anodiff.diffusion.levels import spaced
from anodiff.diffusion.sampling import ddim
from anodiff.diffusion.schedule import table
from anodiff.errors import RefusalError
from anodiff.noise import PerImageNoise

TABLE = table("vp", 8)
SIGMA = TABLE[3]


class Known:
    """x0 = label / 10 + gain w + .1 x_t, the label 0 where it is dropped; what came as w is kept."""

    reads = frozenset({"label"})

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain
        self.seen: list[Tensor] = []

    def __call__(self, x_t: Tensor, t: Tensor, w: Tensor, cond: Cond | None) -> Tensor:
        self.seen.append(w)
        label = torch.zeros(len(x_t)) if cond is None or cond.label is None else cond.label.float()
        if cond is not None and cond.keep is not None:
            label = label * cond.keep
        return 0.1 * (label + self.gain * 10 * w.mean(1)).reshape(-1, 1, 1, 1) + 0.1 * x_t


def drawing(gain: float = 1.0, latent: int = 2) -> tuple[DDGANDenoiser, Known]:
    net = Known(gain)
    return DDGANDenoiser(net, TABLE, latent=latent), net


def picture() -> Tensor:
    return torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))


def cond(**fields: Tensor) -> Cond:
    return Cond(noise=PerImageNoise([1, 2, 3]), **fields)


LABEL = torch.tensor([1, 2, 3])


@pytest.mark.parametrize("scale", [0.0, 2.0, 7.5])
@pytest.mark.parametrize("reference", [None, Cond(label=torch.tensor([4, 4, 4]))], ids=["null", "negative"])
def test_classifier_free_guidance_moves_a_draw_by_its_condition_alone(
    scale: float, reference: Cond | None
) -> None:
    """With one latent for both, x0 = the draw, its label's share replaced by ref + scale (label - ref), exactly."""
    inner, net = drawing()
    y = picture()
    guided = CFG(inner, scale, reference)(y, SIGMA, cond(label=LABEL))
    assert len(net.seen) == 2
    assert torch.equal(net.seen[0], net.seen[1])
    away = 0.0 if reference is None else 4.0
    plain = inner(y, SIGMA, cond(label=torch.zeros(3)))  # the same seeds, the same draw
    shift = 0.1 * (away + scale * (LABEL - away)).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(guided, plain + shift, atol=2e-6, rtol=0)


def test_the_next_evaluation_draws_anew() -> None:
    inner, net = drawing()
    grid = spaced(inner.levels, 4)
    guided = Bind(CFG(inner, 3.0), cond(label=LABEL))
    ddim(guided, grid[0] * picture(), grid, eta=1.0, noise=PerImageNoise([7, 8, 9]))
    seen = torch.stack(net.seen).reshape(4, 2, 3, 2)  # [step, evaluation, row, latent]
    assert torch.equal(seen[:, 0], seen[:, 1])
    assert len({float(value) for value in seen[:, 0].flatten()}) == 4 * 3 * 2


def test_a_weaker_model_draws_from_the_same_latent() -> None:
    """w_2 x0_2 + (1 - w_2) x0_1 of two affine nets: the latent's gain is extrapolated, not its chance added up."""
    (strong, ours), (weak, theirs) = drawing(1.0), drawing(0.5)
    y = picture()
    guided = Autoguide(strong, weak, 3.0)(y, SIGMA, cond())
    assert torch.equal(ours.seen[0], theirs.seen[0])
    expected = drawing(3 * 1.0 - 2 * 0.5)[0](y, SIGMA, cond())
    torch.testing.assert_close(guided, expected, atol=2e-6, rtol=0)


def test_latents_of_unlike_length_are_refused_unless_held() -> None:
    (strong, _), (weak, _) = drawing(latent=2), drawing(latent=3)
    with pytest.raises(RefusalError, match=r"differ by chance.*equally long, or hold them fixed"):
        Autoguide(strong, weak, 2.0)(picture(), SIGMA, cond())
    fixed = FixedLatent(strong), FixedLatent(weak)
    held = Autoguide(*fixed, 2.0)(picture(), SIGMA, cond())
    x0, x0_weaker = (one(picture(), SIGMA) for one in fixed)
    torch.testing.assert_close(held, 2 * x0 - x0_weaker)


def test_a_mean_guided_by_a_model_that_draws_and_the_other_way_round() -> None:
    inner, net = drawing()
    mean = X0Denoiser(lambda x_t, t, cond: 0.3 * x_t, TABLE)
    y = picture()
    x0, draw = mean(y, SIGMA), inner(y, SIGMA, cond())
    torch.testing.assert_close(Autoguide(mean, inner, 2.0)(y, SIGMA, cond()), 2 * x0 - draw)
    torch.testing.assert_close(Autoguide(inner, mean, 2.0)(y, SIGMA, cond()), 2 * draw - x0)
    assert len(net.seen) == 3
    assert Autoguide(mean, inner, 2.0).levels.draws


def test_the_whole_stack_has_one_latent_an_evaluation() -> None:
    """Guide through > Autoguide > CFG of two drawing models: eight calls, one draw."""
    (strong, ours), (weak, theirs) = drawing(), drawing(0.2)
    stack: Guide | Clamp = Guide(
        Autoguide(CFG(strong, 2.0), CFG(weak, 2.0), 1.5),
        lambda x0, sigma, c: -(x0**2).sum((1, 2, 3)),
        0.001,
        through=True,
    )
    stack = Clamp(Inpaint(Pull(stack, picture(), 0.5), picture(), torch.zeros(1, 1, 4, 4)))
    assert stack(picture(), SIGMA, cond(label=LABEL)).isfinite().all()
    seen = [*ours.seen, *theirs.seen]
    assert len(seen) == 8  # (2 + 2) for x0, as many for its gradient
    assert all(torch.equal(w, seen[0]) for w in seen)
    assert float(seen[0].std()) > 0


def test_guidance_through_a_draw_follows_that_draw() -> None:
    """x0 + s sigma^2 d/dy log p(x0(y, w)) with the w of x0 itself: by hand for an affine net."""
    inner, _ = drawing()
    y = picture()
    target, scale = 0.4, 0.02
    guided = Guide(inner, lambda x0, sigma, c: -((x0 - target) ** 2).sum((1, 2, 3)), scale, through=True)
    x0 = inner(y, SIGMA, cond())
    slope = -2 * (x0 - target) * 0.1 / float((1 + SIGMA**2).sqrt())
    torch.testing.assert_close(guided(y, SIGMA, cond()), x0 + scale * float(SIGMA) ** 2 * slope)


def test_rows_are_theirs_alone_under_guidance() -> None:
    inner, _ = drawing()
    y = picture()
    every = CFG(inner, 3.0)(y, SIGMA, cond(label=LABEL))
    single = CFG(inner, 3.0)(y[1:2], SIGMA, Cond(label=LABEL[1:2], noise=PerImageNoise([2])))
    torch.testing.assert_close(single, every[1:2])


def test_without_noise_a_draw_is_refused_in_a_stack_too() -> None:
    inner, _ = drawing()
    with pytest.raises(RefusalError, match="no noise to draw with"):
        CFG(inner, 2.0)(picture(), SIGMA, Cond(label=LABEL))
    assert CFG(inner, 2.0)(picture(), SIGMA, cond(label=LABEL)).isfinite().all()
