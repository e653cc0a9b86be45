from __future__ import annotations

import pytest
import torch

from anodiff.cond import Cond
from anodiff.detect.blend import Blend
from anodiff.detect.calibrate import NoCalibration
from anodiff.detect.encoded import Encoded
from anodiff.detect.nearest import OFFERED, Memory, NearestScorer, furthest
from anodiff.detect.onestep import ResidualScorer, one_steps
from anodiff.detect.residual import ResidualCovariance
from anodiff.detect.scorer import Fused
from anodiff.detect.surprise import Surprise
from anodiff.errors import ConfigError, DataError


def codes(count: int, seed: int, *, channels: int = 6, size: int = 4) -> torch.Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


def brute(code: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    rows = code.movedim(1, -1).flatten(0, 2)
    found = torch.cdist(rows.double(), places.double()).amin(1).square() / rows.shape[1]
    return found.view(len(code), 1, *code.shape[-2:])


def test_distances_are_those_of_a_search_over_all() -> None:
    memory = Memory(20)
    memory.learn(lambda: codes(10, 0).split(2))
    assert len(memory.places) == 20
    got = memory(codes(3, 1)).double()
    torch.testing.assert_close(got, brute(codes(3, 1), memory.places), atol=1e-5, rtol=1e-5)


def test_few_good_places_are_not_all_remembered() -> None:
    memory = Memory(10_000)
    memory.learn(lambda: codes(6, 0, size=8).split(4))
    assert len(memory.places) == 6 * 8 * 8 // OFFERED
    assert set(memory.source.tolist()) == set(range(6))


def test_stages_are_compared_in_pairs_at_the_positions_of_the_deeper_one(plain) -> None:
    def shapes(**options) -> list[tuple[int, ...]]:
        scorer = NearestScorer(3, **options)
        z = torch.rand(2, sum(options.get("groups") or (8,)), 12, 12)
        codec = Encoded(plain(), z)
        found = scorer.observe((None, codec), torch.rand(2, 3, 12, 12), Cond()).parts
        assert scorer.width == len(scorer.memories) == len(found)
        return [tuple(part.shape[1:]) for part in found]

    assert shapes() == [(8, 6, 6)]
    assert shapes(groups=(4,)) == [(4, 6, 6)]
    assert shapes(groups=(4, 2, 3)) == [(6, 6, 6), (5, 6, 6)]
    deep = {"groups": (8, 4, 2), "coarse": (1, 1, 3)}
    assert shapes(**deep, folds=(2, 2, 1)) == [(3, 12, 12), (3, 4, 4)]
    assert shapes(**deep, folds=(2, 2, 1), first=1) == [(3, 4, 4)]
    assert shapes(**deep) == [(12, 6, 6), (6, 4, 4)]


def test_what_was_learnt_is_near_itself_and_not_without_itself() -> None:
    memory, good = Memory(10_000), codes(4, 0)
    memory.store("places", good.movedim(1, -1).flatten(0, 2))
    memory.store("source", torch.arange(4).repeat_interleave(16))
    assert float(memory(good).max()) < 1e-5
    others = memory(good, without=range(4))
    others_places = [good[[k for k in range(4) if k != i]].movedim(1, -1).flatten(0, 2) for i in range(4)]
    want = torch.cat([brute(good[i : i + 1], others_places[i]) for i in range(4)])
    torch.testing.assert_close(others.double(), want, atol=1e-5, rtol=1e-5)


def test_a_single_picture_is_compared_with_its_own_places() -> None:
    memory = Memory(50)
    memory.learn(lambda: [codes(1, 0)])
    assert torch.isfinite(memory(codes(1, 0), without=[0])).all()


def test_few_places_reach_further_than_as_many_drawn() -> None:
    draw = torch.Generator().manual_seed(0)
    cloud = torch.cat([torch.randn(900, 5, generator=draw), torch.randn(9, 5, generator=draw) + 12])
    kept = cloud[furthest(cloud, 40, draw)]
    drawn = cloud[torch.randperm(len(cloud), generator=draw)[:40]]
    assert torch.cdist(cloud, kept).amin(1).max() < 0.6 * torch.cdist(cloud, drawn).amin(1).max()
    assert len({tuple(row.tolist()) for row in kept}) == 40


def test_no_picture_and_no_place_are_told() -> None:
    with pytest.raises(ConfigError, match="1 place or more"):
        Memory(0)
    with pytest.raises(DataError, match="got none"):
        Memory(3).learn(list)
    with pytest.raises(ConfigError, match="learnt nothing"):
        Memory(3)(codes(1, 0))


def test_a_map_does_not_depend_on_its_neighbours() -> None:
    memory = Memory(30)
    memory.learn(lambda: [codes(6, 0, channels=40, size=8)])
    batch = codes(5, 3, channels=40, size=8)
    together = memory(batch)
    for i in range(5):
        assert torch.equal(memory(batch[i : i + 1])[0], together[i])


def teach(scorer, model, image, noise) -> None:
    parts = [
        scorer.observe(model, batch, Cond(noise=noise(len(batch), i))).parts
        for i, batch in enumerate(image.split(8))
    ]
    scorer.learn(lambda: iter(parts))


def test_it_finds_the_spot_without_a_denoiser(truth, normals, plain, unit_noise) -> None:
    scorer, model = NearestScorer(64, calibration=Surprise(), geometric=True), (truth, plain())
    teach(scorer, model, normals(24, seed=1), unit_noise)
    image = normals(3, seed=2)
    image[1, :, 6:10, 6:10] = torch.tensor([0.9, 0.1, 0.2])[:, None, None]
    truth.calls = 0
    found = scorer(model, image, Cond())
    assert (truth.calls, scorer.evaluations) == (0, 0)
    assert found.shape == (3, 1, 8, 8)
    assert found[1, 0, 3:5, 3:5].mean() > found[1, 0, 6:].mean() + 2 * found[[0, 2]].std()


def test_beside_the_residual_the_picture_is_encoded_once(truth, normals, plain, unit_noise) -> None:
    class Counting:
        def __init__(self, inner) -> None:
            self.inner, self.calls = inner, 0
            self.paints, self.bounded = inner.paints, inner.bounded
            self.channels, self.stride = inner.channels, inner.stride

        def encode(self, image):
            self.calls += 1
            return self.inner.encode(image)

        def decode(self, z):
            return self.inner.decode(z)

    def made(shared: bool) -> Fused:
        parts = [
            ResidualScorer(one_steps((0.3,)), ResidualCovariance(), calibration=Surprise()),
            NearestScorer(32, calibration=Surprise()),
        ]
        return Fused(parts, calibration=NoCalibration(), weights=[1, 1], geometric=True, shared=shared)

    image = normals(12, seed=1)
    found = []
    for shared, times in ((True, 1), (False, 2)):
        codec = Counting(plain())
        scorer = made(shared)
        teach(scorer, (truth, codec), image, unit_noise)
        codec.calls = 0
        found.append(scorer((truth, codec), image[:2], Cond(noise=unit_noise(2, 5))))
        assert codec.calls == times
    assert torch.equal(*found)


def test_a_code_that_is_there_belongs_to_its_batch(plain) -> None:
    codec = plain()
    image = torch.rand(2, 3, 16, 16)
    encoded = Encoded(codec, codec.encode(image))
    assert torch.equal(encoded.encode(image), codec.encode(image))
    with pytest.raises(ConfigError, match="Expected the 2 pictures"):
        encoded.encode(image[:1])


def test_the_geometric_mean_is_high_where_all_maps_are() -> None:
    blend = Blend(2, NoCalibration(), weights=[3, 1], geometric=True)
    a, b = torch.tensor([16.0, 16.0, 0.0]), torch.tensor([1.0, 16.0, 16.0])
    found = blend([m.view(1, 1, 1, 3) for m in (a, b)]).flatten()
    torch.testing.assert_close(found[:2], torch.tensor([8.0, 16.0]))
    assert float(found[2]) < 1e-3
