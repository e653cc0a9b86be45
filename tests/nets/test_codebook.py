import math

import pytest
import torch

from anodiff.errors import ConfigError
from anodiff.nets import codebook
from anodiff.nets.codebook import Codebook


def made(codes: int = 7, channels: int = 3, **options) -> Codebook:
    torch.manual_seed(0)
    return Codebook(codes, channels, **options)


def brute(h: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """The nearest vector of each place, by all distances in float64, [B, h, w]."""
    gap = h.double().movedim(1, -1).unsqueeze(-2) - vectors.detach().double()  # [B, h, w, K, c]
    return gap.square().sum(-1).argmin(-1)


@pytest.mark.parametrize("far", [0.0, 300.0])
@pytest.mark.parametrize("part", [2**22, 7 * 5])
def test_each_place_takes_the_nearest_code(monkeypatch, far, part):
    monkeypatch.setattr(codebook, "ENTRIES", part)
    net = made()
    with torch.no_grad():
        net.vectors += far  # all of it far from zero: the difference of large squares would lose the digits
    h = torch.randn(3, 3, 4, 5) / 4 + far
    want = brute(h, net.vectors)
    z, _, index = net(h)
    assert torch.equal(index, want)
    assert torch.equal(net.index(h), want)
    assert torch.equal(z, net.vectors[want].movedim(-1, 1))
    assert torch.equal(net.quantised(z), z)  # a code is its own nearest


def test_the_loss_is_its_definition_row_by_row():
    net = made(commitment=0.3)
    h = torch.randn(4, 3, 2, 5)
    _, loss, index = net(h)
    gap = (h - net.vectors[index].movedim(-1, 1)).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(loss, 1.3 * gap)
    for i in range(4):
        torch.testing.assert_close(net(h[i : i + 1])[1], loss[i : i + 1])


def test_the_gradient_passes_to_the_map_and_the_loss_moves_both_in_their_shares():
    net = made(commitment=0.3).double()
    h = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    slope = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    for z in (net(h)[0], net.quantised(h)):
        grad, codes = torch.autograd.grad((z * slope).sum(), [h, net.vectors], allow_unused=True)
        assert torch.equal(grad, slope)  # straight through
        assert codes is None
    _, loss, index = net(h)
    grad, codes = torch.autograd.grad(loss.sum(), [h, net.vectors])
    gap = h.detach() - net.vectors.detach()[index].movedim(-1, 1)
    elements = h[0].numel()
    torch.testing.assert_close(grad, 2 * 0.3 * gap / elements)  # commitment pulls the map
    want = torch.zeros_like(net.vectors).index_add_(
        0, index.flatten(), -2 * gap.movedim(1, -1).flatten(0, -2) / elements
    )
    torch.testing.assert_close(codes, want)  # and the codes go to it with weight 1


def test_the_use_of_codes_is_counted_in_training_alone():
    net = made(codes=4, channels=1)
    with torch.no_grad():
        net.vectors.copy_(torch.tensor([[0.0], [1.0], [2.0], [3.0]]))
    assert net.used == 0
    assert net.perplexity == 0
    net.eval()
    net(torch.zeros(1, 1, 2, 2))
    net.quantised(torch.zeros(1, 1, 2, 2))
    assert not net.count.any()
    net.train()
    net(torch.tensor([0.1, 0.9, 1.1, -4.0]).view(1, 1, 2, 2))
    net(torch.tensor([2.2, 1.8, 0.0, 1.0]).view(1, 1, 2, 2))
    assert net.count.tolist() == [3, 3, 2, 0]
    assert net.used == 0.75
    entropy = -sum(p * math.log(p) for p in (3 / 8, 3 / 8, 2 / 8))
    assert float(net.perplexity) == pytest.approx(math.exp(entropy), rel=1e-6)
    net.count.fill_(5)
    assert float(net.perplexity) == pytest.approx(4, rel=1e-6)


def test_unused_codes_are_put_on_rows_and_the_others_stay():
    net = made(codes=6, channels=2)
    net.count.copy_(torch.tensor([3, 0, 1, 0, 0, 2]))
    before = net.vectors.detach().clone()
    rows = torch.randn(10, 2)
    assert net.revive(rows, 4) == 3
    after = net.vectors.detach()
    dead = torch.tensor([1, 3, 4])
    assert torch.equal(after[[0, 2, 5]], before[[0, 2, 5]])
    places = [(rows == code).all(1).nonzero().flatten().tolist() for code in after[dead]]
    assert all(len(found) == 1 for found in places)
    assert len({found[0] for found in places}) == 3  # no row twice
    assert not net.count.any()
    net.count.copy_(torch.tensor([3, 0, 1, 0, 0, 2]))
    assert net.revive(rows[:2], 4) == 3  # fewer rows than dead codes
    assert all((rows[:2] == code).all(1).any() for code in net.vectors.detach()[dead])


def test_what_is_revived_is_a_function_of_counts_rows_and_seed():
    def revived(seed: int) -> torch.Tensor:
        net = made(codes=6, channels=2)
        net.count[2] = 1
        torch.rand(seed)  # whatever the global state is
        net.revive(torch.arange(40.0).view(20, 2), seed)
        return net.vectors.detach()

    assert torch.equal(revived(5), revived(5))
    assert not torch.equal(revived(5), revived(6))


def test_nothing_is_revived_where_nothing_was_looked_up_or_nothing_is_there():
    net = made()
    before = net.vectors.detach().clone()
    assert net.revive(torch.randn(9, 3), 0) == 0
    net.count[0] = 2
    assert net.revive(torch.randn(0, 3), 0) == 0
    assert torch.equal(net.vectors, before)
    net.count.fill_(1)
    assert net.revive(torch.randn(9, 3), 0) == 0
    assert not net.count.any()


def test_codes_and_counts_are_kept_in_the_state_and_changed_in_place():
    net = made()
    count, vectors = net.count, net.vectors
    net(torch.randn(2, 3, 4, 4))
    twin = Codebook(7, 3)
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin.count, net.count)
    for each in (net, twin):
        each.revive(torch.arange(30.0).view(10, 3), 1)
    assert torch.equal(twin.vectors, net.vectors)
    assert net.count is count
    assert net.vectors is vectors


def test_dead_codes_come_to_life_on_data_of_another_scale():
    net = made(codes=32, channels=2)
    rows = torch.randn(1, 2, 16, 16) * 3 + 20
    net(rows)
    assert net.used < 0.2  # all data is nearest to the outermost codes
    net.revive(rows.movedim(1, -1).flatten(0, -2), 0)
    net(rows)
    assert net.used > 0.9


def test_lower_precision_neither_changes_the_choice_nor_the_loss():
    net = made()
    h = torch.randn(1, 3, 8, 8).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z, loss, index = net(h)
    assert torch.equal(index, brute(h, net.vectors))
    assert z.dtype == torch.bfloat16
    assert loss.dtype == torch.float32


@pytest.mark.parametrize("options", [(1, 3, 0.25), (4, 0, 0.25), (4, 3, -1.0), (4, 3, math.nan)])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match="2 codes or more"):
        Codebook(*options)
