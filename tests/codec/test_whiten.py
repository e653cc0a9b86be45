import numpy as np
import pytest
import torch
import torch.nn.functional as F

from anodiff.codec.whiten import ChannelMoments, Whiten, whitening
from anodiff.errors import ConfigError, DataError


def correlated(count: int, channels: int, seed: int = 0) -> torch.Tensor:
    """Maps `[count, channels, 6, 7]` whose channels are mixed and far from zero."""
    rng = torch.Generator().manual_seed(seed)
    mix = torch.randn(channels, channels, generator=rng)
    z = torch.einsum("cd,bdhw->bchw", mix, torch.randn(count, channels, 6, 7, generator=rng))
    return z + 100 * torch.randn(channels, generator=rng)[:, None, None]


def rows(z: torch.Tensor) -> np.ndarray:
    return z.double().permute(1, 0, 2, 3).flatten(1).numpy()


@pytest.mark.parametrize("sizes", [[9], [1] * 9, [2, 3, 4], [8, 1]])
def test_the_streamed_moments_are_those_of_numpy(sizes):
    z = correlated(9, 5)
    first, *rest = [ChannelMoments.of(part) for part in z.split(sizes)]
    total = sum(rest, first)
    assert total.count == 9 * 42
    np.testing.assert_allclose(total.mean, rows(z).mean(1), rtol=1e-12)
    np.testing.assert_allclose(total.covariance, np.cov(rows(z), bias=True), rtol=1e-9)


def test_a_large_mean_does_not_drown_a_small_variance():
    torch.manual_seed(0)
    z = 1e6 + torch.randn(4, 2, 8, 8).double()
    total = ChannelMoments.of(z[:1]) + ChannelMoments.of(z[1:])
    np.testing.assert_allclose(total.covariance, np.cov(rows(z), bias=True), rtol=1e-7)


def settled(z: torch.Tensor, **choices) -> Whiten:
    net = Whiten(**choices)
    net.settle(ChannelMoments.of(z))
    return net


def test_whitened_normals_have_mean_zero_and_unit_covariance():
    z = correlated(20, 6)
    out = rows(settled(z, floor=1e-9)(z))
    np.testing.assert_allclose(out.mean(1), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(out, bias=True), np.eye(6), atol=1e-3)


def test_per_channel_whitening_leaves_the_correlations():
    z = correlated(20, 6)
    out = rows(settled(z, mode="channel", floor=1e-9)(z))
    np.testing.assert_allclose(out.std(1), 1, atol=1e-4)
    np.testing.assert_allclose(np.corrcoef(out), np.corrcoef(rows(z)), atol=1e-4)


def test_the_whitening_is_the_inverse_root_of_the_covariance():
    covariance = ChannelMoments.of(correlated(20, 6)).covariance
    matrix = whitening(covariance, mode="full", floor=1e-12)
    torch.testing.assert_close(matrix, matrix.T)
    torch.testing.assert_close(matrix @ covariance @ matrix, torch.eye(6).double(), atol=1e-6, rtol=0)


def test_the_floor_keeps_what_normals_hardly_use_from_being_blown_up():
    covariance = torch.diag(torch.tensor([3.0, 1.0, 1e-9])).double()
    for mode in ("full", "channel"):
        matrix = whitening(covariance, mode=mode, floor=0.03)
        scale = matrix if mode == "channel" else matrix.diagonal()
        want = 1 / torch.tensor([3.0, 1.0, 0.03 * 4 / 3]).double().sqrt()
        torch.testing.assert_close(scale, want, rtol=1e-6, atol=0)


@pytest.mark.parametrize("mode", ["full", "channel"])
def test_one_small_picture_and_one_that_never_varies_are_enough(mode):
    few = correlated(1, 60)  # 42 positions for 60 channels: a covariance without full rank
    out = settled(few, mode=mode)(few)
    assert out.isfinite().all()
    assert out.abs().max() < 20
    flat = torch.full((1, 3, 4, 4), 7.0)
    assert not settled(flat, mode=mode)(flat).any()


@pytest.mark.parametrize("mode", ["full", "channel"])
def test_a_fresh_module_takes_the_state(mode):
    z = correlated(5, 4)
    net = settled(z, mode=mode)
    fresh = Whiten(mode=mode)
    with pytest.raises(ConfigError, match="learnt nothing yet"):
        fresh(z)
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(fresh(z), net(z))


def test_nothing_learnt_is_refused_and_so_is_what_is_not_a_number():
    with pytest.raises(ConfigError, match="Whiten has learnt nothing yet: teach it"):
        Whiten()(torch.zeros(1, 2, 3, 3))
    with pytest.raises(DataError, match="finite"):
        settled(torch.full((1, 2, 3, 3), torch.nan))


def test_stages_are_whitened_by_themselves():
    z = correlated(30, 6)
    stages = settled(z, mode="stage", floor=1e-9, groups=(2, 4))
    out = stages(z)
    for block in (slice(0, 2), slice(2, 6)):
        alone = settled(z[:, block], floor=1e-9)
        torch.testing.assert_close(out[:, block], alone(z[:, block]), rtol=1e-4, atol=1e-4)
    assert np.abs(np.cov(rows(out), bias=True)[:2, 2:]).max() > 0.05  # what they share stays


@pytest.mark.parametrize("mode", ["stage", "channel"])
def test_stages_whitened_at_their_own_size_are_the_joined_ones(mode):
    fine, coarse = correlated(6, 3), correlated(6, 4, seed=1)[..., :3, :4]

    def joined(a, b):
        return torch.cat([a, F.interpolate(b, size=(6, 7), mode="bilinear", align_corners=False)], dim=1)

    net = Whiten(mode=mode, groups=(3, 4))
    net.settle(ChannelMoments.of(joined(fine, coarse)))
    torch.testing.assert_close(
        joined(*net.each([fine, coarse])), net(joined(fine, coarse)), atol=2e-4, rtol=1e-4
    )


def test_the_full_covariance_has_no_stages_of_its_own():
    with pytest.raises(ConfigError, match="join their maps first"):
        settled(correlated(5, 4)).each([correlated(5, 4)])
