import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding

from anodiff.nets.embed import LabelEmbedding, TimeEmbedding, or_null, sinusoidal


@pytest.mark.parametrize("dim", [2, 31, 64])
def test_sinusoids_equal_those_of_diffusers(dim):
    t = torch.tensor([0.0, 0.25, 17.0, 999.0])
    want = get_timestep_embedding(t, dim, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(sinusoidal(t, dim), want, atol=2e-4, rtol=0)


def test_the_first_frequency_is_one_and_the_last_approaches_the_period():
    row = sinusoidal(torch.tensor([1.0]), 1000)
    torch.testing.assert_close(row[0, 500].double(), torch.tensor(1.0).double().sin(), atol=1e-6, rtol=0)
    assert 1e-4 < row[0, 999] < 1.1e-4


def test_times_a_fraction_apart_are_told_apart():
    net = TimeEmbedding(32, 64)
    a, b = net(torch.tensor([3.0, 3.1]))
    assert (a - b).abs().max() > 1e-4


def test_rows_that_are_not_kept_are_the_null_row():
    net = LabelEmbedding(5, 8)
    keep = torch.tensor([True, False])
    out = net(torch.tensor([2, 3]), keep, batch=2)
    assert torch.equal(out[0], net.table.weight[2])
    assert torch.equal(out[1], net.table.weight[5])
    assert torch.equal(net(None, None, batch=2)[0], net.table.weight[5])


def test_or_null_replaces_whole_rows_of_any_rank():
    value = torch.randn(3, 2, 4, 4)
    null = torch.randn(1, 2, 1, 1)
    out = or_null(value, null, torch.tensor([True, False, True]))
    assert torch.equal(out[0], value[0])
    assert torch.equal(out[2], value[2])
    assert torch.equal(out[1], null[0].expand(2, 4, 4))
    assert or_null(value, null, None) is value
