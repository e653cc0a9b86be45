import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding

from anodiff.errors import ConfigError
from anodiff.nets.embed import LabelEmbedding, TimeEmbedding, or_null, sinusoidal


@pytest.mark.parametrize("dim", [4, 31, 64])
@pytest.mark.parametrize("shift", [0, 1])
def test_sinusoids_equal_those_of_diffusers_to_the_last_digit(dim, shift):
    t = torch.tensor([0.0, 0.25, 17.0, 999.0])
    want = get_timestep_embedding(t, dim, flip_sin_to_cos=True, downscale_freq_shift=shift)
    torch.testing.assert_close(sinusoidal(t, dim, shift=shift), want, atol=1e-7, rtol=0)


def test_the_shortest_sinusoids_are_numbers():
    assert sinusoidal(torch.tensor([3.0]), 2, shift=1).isfinite().all()
    assert torch.equal(sinusoidal(torch.tensor([3.0]), 1), torch.zeros(1, 1))


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


@pytest.mark.parametrize(
    ("label", "says"),
    [
        (torch.tensor([0, 5]), "labels 0 to 4, got 5"),
        (torch.tensor([-1, 0]), "labels 0 to 4, got -1"),
        (torch.tensor([0.0, 1.0]), r"shape \[2\], got \[2\] of float32"),
        (torch.tensor([True, False]), "of bool"),
        (torch.tensor([1]), r"shape \[2\], got \[1\]"),
    ],
)
def test_labels_that_name_nothing_are_refused_in_a_sentence(label, says):
    with pytest.raises(ConfigError, match=says):
        LabelEmbedding(5, 8)(label, None, batch=2)


def test_a_label_that_is_not_kept_may_be_anything():
    net = LabelEmbedding(5, 8)
    out = net(torch.tensor([-1, 3], dtype=torch.int32), torch.tensor([False, True]), batch=2)
    assert torch.equal(out, net.table.weight[[5, 3]])


def test_or_null_replaces_whole_rows_of_any_rank():
    value = torch.randn(3, 2, 4, 4)
    null = torch.randn(1, 2, 1, 1)
    out = or_null(value, null, torch.tensor([True, False, True]))
    assert torch.equal(out[0], value[0])
    assert torch.equal(out[2], value[2])
    assert torch.equal(out[1], null[0].expand(2, 4, 4))
    assert or_null(value, null, None) is value
