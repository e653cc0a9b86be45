"""Repair: what is hidden is told by its surroundings alone, and in the limit as a Gaussian law tells it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from anodiff.cond import Cond
from anodiff.detect.distance import L1, SSIM, Latent, Spread
from anodiff.detect.onestep import ResidualScorer
from anodiff.detect.repair import Repair, around, groups
from anodiff.detect.resampled import Resampled
from anodiff.detect.residual import ResidualSquares
from anodiff.detect.restore import Inversion, OneStep, PartialNoise, Restorer
from anodiff.detect.scorer import RestorationScorer
from anodiff.diffusion.levels import Levels
from anodiff.errors import ConfigError, RefusalError
from anodiff.noise import PerImageNoise

F64 = torch.float64
WIDE = Levels(1e-2, 100.0)
SILENT = Cond(noise=torch.zeros_like)
"""Without noise a linear denoiser's walk is the mean over all noises, exactly."""


@dataclass(eq=False)
class Field:
    """The ideal denoiser of one channel whose positions are jointly N(0, exp(-distance / reach))."""

    height: int
    width: int
    reach: float = 4.0
    levels: Levels = WIDE
    calls: int = 0
    images: list[Tensor | None] | None = None

    @cached_property
    def covariance(self) -> Tensor:
        rows = torch.cartesian_prod(torch.arange(self.height), torch.arange(self.width)).to(F64)
        return (-torch.cdist(rows, rows) / self.reach).exp()  # [h w, h w]

    @cached_property
    def axes(self) -> tuple[Tensor, Tensor]:
        return torch.linalg.eigh(self.covariance)

    def __call__(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        self.calls += 1
        if self.images is not None:
            self.images.append(None if cond is None else cond.image)
        values, vectors = self.axes
        gain = (vectors * (values / (values + float(sigma) ** 2))) @ vectors.mT  # S (S + sigma^2 I)^-1
        return (y.flatten(1) @ gain.to(y)).view_as(y)

    def draw(self, count: int, seed: int = 0) -> Tensor:
        root = torch.linalg.cholesky(self.covariance)
        white = torch.randn(count, len(root), generator=torch.Generator().manual_seed(seed), dtype=F64)
        return (white @ root.mT).view(count, 1, self.height, self.width)

    def told(self, z: Tensor, hidden: Tensor) -> Tensor:
        """E[z at hidden | z elsewhere], elsewhere z itself."""
        h = hidden.flatten()
        weights = torch.linalg.solve(self.covariance[~h][:, ~h], self.covariance[~h][:, h])
        found = z.flatten(1).clone()
        found[:, h] = found[:, ~h] @ weights
        return found.view_as(z)


RESTORERS: list[Restorer] = [
    Repair(PartialNoise((0.9,), steps=4), cell=3),
    Repair(PartialNoise((0.9, 2.0), steps=3, sampler="ddpm", draws=2), cell=2, masks=4),
    Repair(PartialNoise((0.9,), steps=3, sampler="heun"), cell=2),
    Repair(PartialNoise((0.9,), steps=3, sampler="dpmpp_2m"), cell=2),
    Repair(Resampled(0.9, steps=3, resamples=3, draws=2), cell=2, masks=4),
    Repair(Resampled(0.9, steps=5, resamples=2, jump=2, eta=0.5), cell=2),
    Repair(OneStep(0.9, draws=2), cell=2),
]


@pytest.mark.parametrize("masks", [2, 4])
@pytest.mark.parametrize(("height", "width", "cell"), [(8, 8, 2), (7, 10, 3), (1, 9, 4), (5, 2, 1)])
def test_every_position_is_hidden_once_and_cells_as_a_whole(
    height: int, width: int, cell: int, masks: int
) -> None:
    found = groups(height, width, cell=cell, masks=masks)
    assert len(found) == masks
    assert (torch.stack(found).sum(0) == 1).all()
    for hidden in found:
        for top in range(0, height, cell):
            for left in range(0, width, cell):
                block = hidden[top : top + cell, left : left + cell]
                assert block.all() or not block.any()
                if block.any():  # none of the four cells beside it is hidden with it
                    assert not hidden[top : top + cell, left + cell : left + cell + 1].any()
                    assert not hidden[top + cell : top + cell + 1, left : left + cell].any()


@pytest.mark.parametrize("masks", [2, 4])
@pytest.mark.parametrize(("height", "width", "cell"), [(8, 8, 2), (7, 10, 3), (1, 9, 4), (5, 2, 1)])
def test_a_hidden_cell_starts_from_the_mean_of_what_is_known_nearby(
    height: int, width: int, cell: int, masks: int
) -> None:
    z = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0), dtype=F64)
    for hidden in groups(height, width, cell=cell, masks=masks):
        known = (~hidden).expand(2, 1, -1, -1)
        found = around(z, known, cell)
        flat = around(torch.full_like(z, 0.7), known, cell)[..., hidden]
        torch.testing.assert_close(flat, torch.full_like(flat, 0.7))
        for row, column in hidden.nonzero().tolist():
            window = (
                slice(max(0, row - cell), row + cell + 1),
                slice(max(0, column - cell), column + cell + 1),
            )
            expected = z[..., *window][..., ~hidden[window]].mean(-1)
            assert (found[..., row, column] - expected).abs().max() <= 1e-13


def drift(rho: float, turns: float, top: float) -> float:
    """Where the mean of a hidden pixel ends whose neighbour is 1, after `turns` walks down of every stretch.

    With u = sigma^2 and d(u) = (1 + u)^2 - rho^2 the ideal denoiser of two pixels with correlation rho moves the mean
    by dm/du = turns ((1 + u) m - rho) / d; a start at 1, and the known pixel at 1 in the mean at every level, give
    m(0) = (d(0) / d(U))^(turns / 2) + turns rho d(0)^(turns / 2) integral of d^(-turns / 2 - 1) from 0 to U.
    """

    def d(u: float) -> float:
        return (1 + u) ** 2 - rho**2

    integral = quad(lambda u: d(u) ** (-turns / 2 - 1), 0, top**2, limit=200)[0]
    return (d(0) / d(top**2)) ** (turns / 2) + turns * rho * d(0) ** (turns / 2) * integral


@pytest.mark.parametrize("top", [0.95, 30.0])
@pytest.mark.parametrize("turns", [0.5, 1, 3])
def test_the_mean_of_a_hidden_pixel_is_where_its_equation_ends(turns: float, top: float) -> None:
    """DDIM is half a turn, DDPM one, r resamples are r of them. 500 steps, first order in their length.

    Law: reverse equations of a Gaussian, integrated by quadrature
    """
    pair = Field(1, 2, reach=-1 / float(np.log(0.8)), levels=Levels(1e-3, 100.0))
    assert float(pair.covariance[0, 1]) == pytest.approx(0.8)
    inner: Restorer = Resampled(top, steps=500, resamples=3)
    if turns < 3:
        inner = PartialNoise((top,), steps=500, sampler="ddim", eta=2 * turns - 1)
    z = torch.tensor([1.0, 1.0], dtype=F64).view(1, 1, 1, 2)
    found = Repair(inner, cell=1).estimate(pair, z, SILENT)
    expected = drift(0.8, turns, top)
    if turns == 1 and top == 30:  # the same in closed form, from far above
        assert expected == pytest.approx((1 - (1 - 0.8**2) ** 0.5) / 0.8, abs=2e-3)
    assert found.flatten().tolist() == pytest.approx([expected] * 2, abs=0.01)


def test_with_more_turns_a_hidden_cell_tends_to_its_conditional_mean() -> None:
    """A field of 6 x 6, cells of 2 x 2: the error of the mean estimate falls with the turns, to 2 % of its size."""
    field = Field(6, 6)
    z = field.draw(4)
    expected = z.clone()
    for hidden in groups(6, 6, cell=2, masks=2):
        expected = torch.where(hidden, field.told(z, hidden), expected)
    errors = [
        float(
            (Repair(Resampled(2.0, 8, turns), cell=2).estimate(field, z, SILENT) - expected).square().mean()
        )
        for turns in (1, 4, 16, 64)
    ]
    assert errors[0] > 2 * errors[1] > 4 * errors[2] > 8 * errors[3]
    assert errors[3] < 0.02**2 * float(expected.square().mean())


@pytest.mark.parametrize("restorer", RESTORERS, ids=str)
def test_a_cell_is_told_by_the_others_alone(restorer: Repair) -> None:
    field = Field(6, 7)
    z = field.draw(2)
    noise = PerImageNoise([1, 2])
    before = restorer.estimate(field, z, Cond(noise=noise))
    changed = z.clone()
    side = restorer.cell
    changed[..., side : 2 * side, :side] += 5.0
    after = restorer.estimate(field, changed, Cond(noise=PerImageNoise([1, 2])))
    assert torch.equal(after[..., side : 2 * side, :side], before[..., side : 2 * side, :side])
    assert (after[..., :side, :side] - before[..., :side, :side]).abs().min() > 1e-3  # its neighbour was told


@pytest.mark.parametrize("restorer", RESTORERS, ids=str)
def test_evaluations_are_as_many_as_stated_and_rows_are_their_own(restorer: Restorer, plain) -> None:
    field, image = Field(6, 7), torch.rand(3, 1, 6, 7, generator=torch.Generator().manual_seed(0))
    every = restorer((field, plain(1)), image, Cond(noise=PerImageNoise([1, 2, 3])))
    assert field.calls == restorer.evaluations
    assert every.image_hat is not None
    assert every.z_hat.shape == every.z.shape == (3, 1, 6, 7)
    single = restorer((field, plain(1)), image[1:2], Cond(noise=PerImageNoise([2])))
    torch.testing.assert_close(single.z_hat, every.z_hat[1:2])


def test_a_defect_that_partial_noise_copies_is_not_copied() -> None:
    """A spot of height 3 in one cell: half of it survives noise of .3, none of it a repair from the same level."""
    field = Field(8, 8)
    clean = field.draw(8)
    z = clean.clone()
    z[..., 4:6, 2:4] += 3.0

    def kept(restorer: Restorer) -> float:
        after, before = (
            restorer.estimate(field, code, Cond(noise=PerImageNoise(range(8)))) for code in (z, clean)
        )
        return float((after - before)[..., 4:6, 2:4].mean()) / 3

    assert kept(PartialNoise((0.3,), 10)) > 0.5
    assert kept(Repair(PartialNoise((0.3,), 10), cell=2)) == 0


def test_a_defect_stands_out_of_a_repair() -> None:
    field = Field(8, 8)
    z = field.draw(8)
    z[..., 4:6, 2:4] += 3.0
    found = Repair(PartialNoise((0.95,), 10, sampler="ddpm"), cell=2).estimate(
        field, z, Cond(noise=PerImageNoise(range(8)))
    )
    residual = (z - found).abs()
    assert residual[..., 4:6, 2:4].mean() > 4 * residual[..., :3, 5:].mean()


def test_what_is_beside_the_code_is_made_anew_for_every_pass(plain) -> None:
    seen: list[Tensor] = []

    def beside(image: Tensor, z: Tensor, known: Tensor) -> Tensor:
        assert image.shape == (2, 1, 6, 6)
        assert torch.equal(z, 2 * image - 1)
        assert known.shape == (2, 1, 6, 6)
        assert known.dtype == torch.bool
        seen.append(known)
        return torch.cat((z * known, known.to(z.dtype)), 1)

    field = Field(6, 6, images=[])
    image = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    restorer = Repair(PartialNoise((0.9,), 3), cell=2, beside=beside)
    restorer((field, plain(1)), image, Cond(noise=PerImageNoise([1, 2])))
    assert field.images is not None
    assert len(seen) == 2
    assert torch.equal(seen[0], ~seen[1])
    for number, told in enumerate(field.images):
        assert told is not None
        assert torch.equal(told[:, 1:].bool(), seen[number // 3])
    with pytest.raises(RefusalError, match="call it with the picture"):
        ResidualScorer([restorer], ResidualSquares()).observe(
            (field, plain(1)), image, Cond(noise=PerImageNoise([1, 2]))
        )


def test_a_condition_of_the_batch_passes_through(plain) -> None:
    field, told = Field(6, 6, images=[]), torch.ones(1, 4, 6, 6)
    Repair(PartialNoise((0.9,), 2), cell=2).estimate(
        field, torch.zeros(1, 1, 6, 6), Cond(noise=PerImageNoise([1]), image=told)
    )
    assert field.images is not None
    assert all(image is told for image in field.images)


@dataclass
class Folded:
    """A codec of latents that paints: squares of 2 x 2 pixels as four channels, a fifth their mean; open range."""

    channels: int = 5
    stride: int = 2
    paints: bool = True
    bounded: bool = False

    def encode(self, image: Tensor) -> Tensor:
        folded = torch.nn.functional.pixel_unshuffle(image, 2) * 6 - 3
        return torch.cat((folded, folded.mean(1, keepdim=True)), 1)

    def decode(self, z: Tensor) -> Tensor:
        return torch.nn.functional.pixel_shuffle((z[:, :4] + 3) / 6, 2)

    def shrink(self, mask: Tensor) -> Tensor:
        return mask[..., ::2, ::2]


@dataclass(frozen=True)
class Mean:
    """The ideal denoiser of independent positions N(2, 1), or a draw near it."""

    levels: Levels = WIDE

    def __call__(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        square = float(sigma) ** 2
        x0 = (y + square * 2) / (1 + square)
        if not self.levels.draws:
            return x0
        assert cond is not None
        assert cond.noise is not None
        return x0 + (square / (1 + square)) ** 0.5 * cond.noise(y)


def test_latents_that_paint_are_compared_in_both_spaces() -> None:
    image = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    restorer = Repair(PartialNoise((3.0,), 4, eta=1.0, draws=2), cell=2)
    scorer = RestorationScorer(restorer, [L1(), SSIM(5), Latent(), Spread()])
    cond = Cond(noise=PerImageNoise([1, 2]))
    observed = scorer.observe((Mean(), Folded()), image, cond)
    sides = [part.shape[-1] for part in observed.parts]
    assert sides == [16, 16, 8, 8]
    assert all(part.isfinite().all() and part.std() > 0 for part in observed.parts)
    scorer.learn(lambda: iter([observed.parts]))
    assert scorer.weigh(observed.parts).shape == (2, 1, 16, 16)
    found = restorer((Mean(), Folded()), image, Cond(noise=PerImageNoise([1, 2])))
    assert found.z_hat.shape == (2, 5, 8, 8)
    assert found.z_hat.max() > 1.5  # nothing cuts latents
    assert found.image_hat is not None
    assert found.image_hat.max() <= 1


def test_a_model_that_draws_repairs_step_by_step_and_refuses_equations() -> None:
    z = torch.zeros(2, 1, 6, 6)
    drawing = Mean(Levels(0.01, 100.0, draws=True))
    for inner in (
        PartialNoise((3.0,), 4, eta=1.0),
        PartialNoise((3.0,), 4, sampler="ddpm"),
        Resampled(3.0, 4, 2),
    ):
        found = Repair(inner, cell=2).estimate(drawing, z, Cond(noise=PerImageNoise([1, 2])))
        assert found.isfinite().all()
        assert found.mean() == pytest.approx(2, abs=0.6)
    for inner in (PartialNoise((3.0,), 4, sampler="heun"), Inversion(3.0, 4)):
        with pytest.raises(RefusalError, match=r"mean of x0.*draws x0"):
            Repair(inner, cell=2).estimate(drawing, z, Cond(noise=PerImageNoise([1, 2])))


def test_refusals(plain) -> None:
    z, cond = torch.zeros(1, 1, 6, 6), Cond(noise=PerImageNoise([1]))
    with pytest.raises(ConfigError, match=r"2 or 4 groups, got masks=3"):
        Repair(PartialNoise((0.9,)), masks=3).estimate(Field(6, 6), z, cond)
    with pytest.raises(
        ConfigError, match=r"6 x 6 positions leave none in a code of 6 x 6; choose one from 1 to 5"
    ):
        Repair(PartialNoise((0.9,)), cell=6).estimate(Field(6, 6), z, cond)
    with pytest.raises(RefusalError, match="PerImageNoise"):
        Repair(Resampled(0.9), cell=2).estimate(Field(6, 6), z, Cond())
