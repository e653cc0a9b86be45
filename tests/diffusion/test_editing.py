"""Edits of attention against their equations, on a real network, and the blend of a pair along a walk."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anodiff.cond import Cond
from anodiff.diffusion.blend import LocalBlend
from anodiff.diffusion.denoiser import KarrasDenoiser
from anodiff.diffusion.editing import Both, KeepShape, Recorder, Refine, Replace, halves, sides
from anodiff.diffusion.guidance import CFG, Bind
from anodiff.diffusion.levels import Levels, spaced
from anodiff.diffusion.sampling import ddim, dpmpp_2m, heun
from anodiff.errors import ConfigError, RefusalError
from anodiff.nets.attention import Attention, Seam
from anodiff.nets.unet import UNet
from anodiff.noise import PerImageNoise

HEADS, N, L = 3, 6, 5
SIGMA = torch.tensor([1.0, 1.0, 1.0, 1.0])
EVER = (0.0, float("inf"))


def probabilities(rows: int = 4, positions: int = N, tokens: int = L, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, HEADS, positions, tokens, generator=generator).softmax(-1)


# --- the equations
# ------------------------------------------------------------------------------------------


def test_replace_takes_the_sources_map_whole():
    probs = probabilities()
    edited = Replace(*EVER)(probs, "mid.0.cross", SIGMA)
    assert torch.equal(edited[:2], probs[:2])
    assert torch.equal(edited[2:], probs[:2])


@pytest.mark.parametrize("per_pair", [False, True])
def test_replace_and_refine_are_their_equations(per_pair):
    """Attention edits against: arXiv:2208.01626 section 3.2, written out place by place"""
    a = torch.tensor([[0, 3, 1, 1, -1], [2, -1, -1, 0, 4]] if per_pair else [0, 3, 1, 1, -1])
    probs = probabilities()
    replaced = Replace(*EVER, a)(probs, "mid.0.cross", SIGMA)
    refined = Refine(*EVER, a)(probs, "mid.0.cross", SIGMA)
    for pair in range(2):
        row = (a[pair] if per_pair else a).tolist()
        for j, place in enumerate(row):
            own = probs[2 + pair, :, :, j]
            moved = probs[pair, :, :, place] / row.count(place)
            torch.testing.assert_close(replaced[2 + pair, :, :, j], moved if place >= 0 else 0 * own)
            torch.testing.assert_close(refined[2 + pair, :, :, j], moved if place >= 0 else own)
    assert torch.equal(replaced[:2], probs[:2])
    assert torch.equal(refined[:2], probs[:2])


def test_a_map_that_is_permuted_or_shared_keeps_its_sum():
    probs = probabilities()
    moved = Replace(*EVER, torch.tensor([4, 2, 0, 1, 3]))(probs, "a.cross", SIGMA)
    torch.testing.assert_close(moved.sum(-1), torch.ones(4, HEADS, N))
    source = probs.clone()
    source[..., 2:] = 0  # two words; the second one's map is shared by four places
    shared = Replace(*EVER, torch.tensor([0, 1, 1, 1, 1]))(source, "a.cross", SIGMA)
    torch.testing.assert_close(shared[2:].sum(-1), source[:2].sum(-1))


def test_keep_shape_is_for_coarse_self_attention():
    probs = probabilities(positions=N, tokens=N)
    keep = KeepShape(*EVER, most=N)
    assert torch.equal(keep(probs, "down.1.0.self", SIGMA)[2:], probs[:2])
    assert keep(probs, "down.1.0.cross", SIGMA) is probs
    assert KeepShape(*EVER, most=N - 1)(probs, "down.1.0.self", SIGMA) is probs


def test_edits_of_words_leave_self_attention_alone():
    probs = probabilities()
    for edit in (Replace(*EVER), Refine(*EVER, torch.arange(L)), Recorder((2, 3))):
        assert edit(probs, "mid.0.self", SIGMA) is probs


@pytest.mark.parametrize("edit", [Replace, lambda *w: Refine(*w, torch.arange(L)), KeepShape])
def test_a_window_has_both_its_ends_and_is_each_targets_own(edit):
    sigma = torch.tensor([0.3, 0.3, 0.3, 0.3, 0.09, 0.1, 0.7, 0.71])
    probs = probabilities(rows=8, positions=L)
    place = "mid.0.self" if edit is KeepShape else "mid.0.cross"
    edited = edit(0.1, 0.7)(probs, place, sigma)
    assert torch.equal(edited[:4], probs[:4])
    for row, inside in enumerate([False, True, True, False]):
        assert torch.equal(edited[4 + row], probs[row if inside else 4 + row])


def test_edits_follow_each_other():
    def double(probs: Tensor, place: str, sigma: Tensor) -> Tensor:
        return 2 * probs

    probs, place = probabilities(), "mid.0.cross"
    expected = 2 * Replace(*EVER)(probs, place, SIGMA)
    assert torch.equal(Both(Replace(*EVER), double)(probs, place, SIGMA), expected)
    assert torch.equal(Both()(probs, place, SIGMA), probs)


def test_an_edited_layer_gives_the_sources_weights_times_the_targets_values():
    """Attention edits against: softmax(Q K^T / sqrt(d)) of one row times V of the other, in torch"""
    torch.manual_seed(1)
    layer = Attention(8, heads=2, place="mid.0.cross", context=4).double()
    x, tokens = torch.randn(2, N, 8).double(), torch.randn(2, L, 4).double()
    got = layer(x, Seam(tokens=tokens, edit=Replace(*EVER), t=torch.ones(2)))[1]
    q = layer.query(x[0]).reshape(N, 2, 4).transpose(0, 1)
    k = layer.key_value(tokens[0])[:, :8].reshape(L, 2, 4).transpose(0, 1)
    v = layer.key_value(tokens[1])[:, 8:].reshape(L, 2, 4).transpose(0, 1)
    expected = layer.out(F.scaled_dot_product_attention(q, k, v).transpose(0, 1).reshape(N, 8))
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)


def test_what_means_nothing_is_refused():
    with pytest.raises(RefusalError, match="pairs"):
        Replace(*EVER)(probabilities(rows=3), "a.cross", SIGMA[:3])
    with pytest.raises(ConfigError, match="window"):
        Replace(2.0, 1.0)(probabilities(), "a.cross", SIGMA)
    with pytest.raises(RefusalError, match="alignment"):
        Refine(*EVER, torch.arange(L + 1))(probabilities(), "a.cross", SIGMA)
    with pytest.raises(RefusalError, match="alignment"):
        Refine(*EVER, torch.zeros(3, L).long())(probabilities(), "a.cross", SIGMA)
    with pytest.raises(RefusalError, match="pairs"):
        halves(torch.zeros(1))


# --- where words look
# ---------------------------------------------------------------------------------------


def test_the_sides_of_a_map_follow_from_its_positions():
    for shape, positions, expected in [
        ((32, 32), 256, (16, 16)),
        ((24, 16), 96, (12, 8)),
        ((16, 24), 6, (2, 3)),
        ((7, 5), 12, (4, 3)),  # a stride of 2 rounds up
        ((64, 64), 1, (1, 1)),
    ]:
        assert sides(positions, shape) == expected
    with pytest.raises(RefusalError, match="7 positions"):
        sides(7, (8, 8))


def test_a_map_is_the_mean_of_what_was_seen():
    """Attention maps against: sums over places, means over heads, calls and sizes, by hand"""
    fine, again, coarse = (probabilities(positions=n, seed=s) for n, s in ((16, 0), (16, 1), (4, 2)))
    recorder = Recorder((4, 4))
    for probs, place in ((fine, "up.0.cross"), (again, "up.1.cross"), (coarse, "mid.0.cross")):
        assert recorder(probs, place, SIGMA) is probs
    got = recorder.maps([[1, 3], [0], [], [4]])
    for row, places in enumerate([[1, 3], [0], [], [4]]):
        large = ((fine + again)[row] / 2).mean(0)[:, places].sum(-1).reshape(1, 1, 4, 4)
        small = coarse[row].mean(0)[:, places].sum(-1).reshape(1, 1, 2, 2)
        whole = (large + F.interpolate(small, (4, 4), mode="bilinear")) / 2
        expected = whole / whole.max() if places else torch.zeros(1, 1, 4, 4)
        torch.testing.assert_close(got[row : row + 1], expected)
    assert got.amax((1, 2, 3)).tolist() == [1, 1, 0, 1]


def test_a_word_that_looks_at_a_corner_has_its_map_there():
    probs = torch.zeros(2, HEADS, 16, L)
    probs[..., 0] = 1
    corner = [0, 1, 4, 5]
    probs[0, :, corner, 0], probs[0, :, corner, 2] = 0.5, 0.5
    recorder = Recorder((8, 8))
    recorder(probs, "mid.0.cross", SIGMA[:2])
    where = recorder.maps([[2], [2]])
    assert (where[0, 0, :3, :3] == 1).all()
    assert (where[0, 0, 5:] == 0).all()
    assert (where[0, 0, :, 5:] == 0).all()
    assert not where[1].any()


def test_a_recorder_keeps_no_graph_and_one_batch():
    recorder = Recorder((2, 3))
    with pytest.raises(RefusalError, match=r"Cond\.edit"):
        recorder.maps([[1]])
    recorder(probabilities().requires_grad_(), "a.cross", SIGMA)
    assert not recorder.maps([[1]] * 4).requires_grad
    with pytest.raises(RefusalError, match="another recorder"):
        recorder(probabilities(rows=2), "a.cross", SIGMA[:2])
    with pytest.raises(RefusalError, match="4 rows"):
        recorder.maps([[1]])


# --- a network
# ----------------------------------------------------------------------------------------------

TOKENS = torch.randn(2, L, 6, generator=torch.Generator().manual_seed(3))


def unet() -> KarrasDenoiser:
    torch.manual_seed(0)
    net = UNet(
        in_channels=2,
        out_channels=2,
        width=8,
        multipliers=(1, 2),
        blocks=1,
        groups=4,
        attention=(0, 1),
        token_channels=6,
    )
    for p in net.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.3)
    return KarrasDenoiser(net.eval(), std=0.5, low=0.05, high=5.0)


@torch.no_grad()
def pair(edit, tokens: Tensor = TOKENS) -> Tensor:
    """A pair from the same noise, walked down."""
    denoiser = unet()
    grid = spaced(denoiser.levels, 3)
    noise = PerImageNoise([5, 5])(torch.zeros(2, 2, 8, 8))
    return ddim(Bind(denoiser, Cond(tokens=tokens, edit=edit)), grid[0] * noise, grid)


def test_sources_are_never_changed_and_targets_are():
    plain = pair(None)
    everything = Both(Replace(*EVER), KeepShape(*EVER))
    for edit in (Replace(*EVER), Refine(*EVER, torch.tensor([0, -1, 2, 3, 4])), KeepShape(*EVER), everything):
        edited = pair(edit)
        torch.testing.assert_close(edited[0], plain[0], atol=1e-5, rtol=1e-5)
        assert (edited[1] - plain[1]).abs().max() > 1e-3
    outside = pair(Both(Replace(6.0, 9.0), KeepShape(6.0, 9.0)))  # above the walk's highest level
    torch.testing.assert_close(outside, plain, atol=1e-5, rtol=1e-5)


def test_a_pair_told_the_same_is_the_same_under_every_edit():
    same = TOKENS[:1].repeat(2, 1, 1)
    plain = pair(None, same)
    for edit in (Replace(*EVER), Refine(*EVER, torch.arange(L)), KeepShape(*EVER), Recorder((8, 8))):
        edited = pair(edit, same)
        torch.testing.assert_close(edited[1], edited[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(edited, plain, atol=1e-5, rtol=1e-5)


def test_a_recorder_behind_an_edit_sees_what_it_made():
    after, before = Recorder((8, 8)), Recorder((8, 8))
    pair(Both(before, Replace(*EVER), after))
    assert torch.equal(*after.maps([[1], [1]]))
    assert not torch.allclose(*before.maps([[1], [1]]), atol=1e-3)


# --- one place of the picture
# -------------------------------------------------------------------------------

TOY_LEVELS = Levels(low=1e-2, high=10.0)


@dataclass(frozen=True, eq=False)
class Toy:
    """x0 of each row is its number, all over; word 1 looks at the left half, word 2 at the right one."""

    levels: Levels = TOY_LEVELS

    def __call__(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        if cond is not None and cond.edit is not None:
            probs = torch.zeros(len(y), HEADS, 64, L)
            left = torch.arange(64) % 8 < 4
            probs[:, :, left, 1], probs[:, :, ~left, 2] = 0.9, 0.9
            probs[..., 0] = 0.1
            cond.edit(probs, "mid.0.cross", sigma.float().expand(len(y)))
        rows = torch.arange(len(y), dtype=y.dtype).reshape(-1, 1, 1, 1)
        return 0.3 * y + rows + y.roll(1, 1).tanh()


def walk(sampler, words, threshold=0.5, scale=1.0, **more):
    recorder = Recorder((8, 8))
    blend = LocalBlend(CFG(Toy(), scale), recorder, words, threshold)
    cond = Cond(tokens=torch.zeros(4, L, 2), edit=recorder)
    grid = spaced(Toy().levels, 6)
    start = grid[0] * PerImageNoise([1, 2, 1, 2])(torch.zeros(4, 2, 8, 8))
    seen = []
    sampler(Bind(blend, cond), start, grid, watch=lambda sigma, y, x0: seen.append((y, x0)), **more)
    return seen


@pytest.mark.parametrize("sampler", [ddim, heun, dpmpp_2m])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_outside_of_the_word_a_target_is_its_source_to_the_last_bit(sampler, scale):
    """Local edits against: the source's own walk, and the target's without a blend"""
    blended = walk(sampler, [[1]] * 4, scale=scale)
    free = walk(sampler, [[]] * 4, threshold=0.0, scale=scale)
    for (y, x0), (y_free, _) in zip(blended, free, strict=True):
        assert torch.equal(y[2:, :, :, 4:], y[:2, :, :, 4:])
        assert torch.equal(x0[2:, :, :, 4:], x0[:2, :, :, 4:])
        assert torch.equal(y[:2], y_free[:2])
        assert torch.equal(y[2:, :, :, :4], y_free[2:, :, :, :4])
    assert (blended[-1][0][2:] - blended[-1][0][:2])[..., :4].abs().min() > 0.1


def test_fresh_noise_that_a_pair_shares_keeps_it_equal():
    for y, _ in walk(ddim, [[1]] * 4, eta=1.0, noise=PerImageNoise([3, 4, 3, 4])):
        assert torch.equal(y[2:, :, :, 4:], y[:2, :, :, 4:])


def test_blending_the_estimate_is_blending_the_walk():
    """Local edits against: arXiv:2208.01626 section 3.2, y itself blended after every step"""
    grid, toy = spaced(Toy().levels, 6), Toy()
    y = grid[0] * PerImageNoise([1, 2, 1, 2])(torch.zeros(4, 2, 8, 8))
    for sigma, sigma_next in pairwise(grid):
        x0 = toy(y, sigma)
        y = x0 + sigma_next / sigma * (y - x0)
        y[2:, :, :, 4:] = y[:2, :, :, 4:]
    torch.testing.assert_close(walk(ddim, [[1]] * 4)[-1][1], y, atol=1e-6, rtol=1e-6)


def test_the_region_is_that_of_either_text():
    last = walk(ddim, [[1], [], [2], []])[-1][1]
    assert not (last[2] == last[0]).any()  # left by the source's word, right by the target's
    assert torch.equal(last[3], last[1])  # no word


@torch.no_grad()
def test_a_network_is_blended_too():
    denoiser, recorder = unet(), Recorder((8, 8))
    blend = LocalBlend(denoiser, recorder, [[1], [1]], 0.99)
    cond = Cond(tokens=TOKENS, edit=Both(Replace(*EVER), recorder))
    noise = PerImageNoise([5, 5])(torch.zeros(2, 2, 8, 8))
    x0, plain = (d(noise, torch.tensor(1.0), cond) for d in (blend, denoiser))
    region = blend.region().expand(1, 2, 8, 8)
    assert 0 < int(region.sum()) < region.numel()
    assert torch.equal(x0[1:][~region], x0[:1][~region])
    assert torch.equal(x0[:1], plain[:1])
    torch.testing.assert_close(x0[1:][region], plain[1:][region], atol=1e-5, rtol=1e-5)


def test_a_blend_without_its_recorder_is_refused():
    y, recorder = torch.zeros(2, 2, 8, 8), Recorder((8, 8))
    with pytest.raises(RefusalError, match=r"Cond\.edit"):
        LocalBlend(Toy(), recorder, [[1], [1]])(y, torch.tensor(1.0), Cond())
    with pytest.raises(ConfigError, match="threshold"):
        LocalBlend(Toy(), recorder, [[1], [1]], 1.5)(y, torch.tensor(1.0), Cond(edit=recorder))
    other = Recorder((4, 4))
    with pytest.raises(RefusalError, match="height and width"):
        LocalBlend(Toy(), other, [[1], [1]])(y, torch.tensor(1.0), Cond(edit=other))
