"""Pictures that look unlike the rest are named by their scores, and good ones are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anodiff.detect.crossed import Kept, crossed_maps
from anodiff.detect.scorer import Maps
from anodiff.detect.suspects import Suspect, Suspicion, named
from anodiff.detect.verdicts import FEWEST, HELD, LOGARITHMS, RATE, SURPRISES, TAUGHT, Verdicts, verdicts

SIMULATED = 300


def both(shown, held, **more) -> tuple[Verdicts, Verdicts]:
    """What is said of those that taught and of those held out."""
    found = verdicts({TAUGHT: shown, HELD: held}, **more)
    return found[TAUGHT], found[HELD]


def drawn(count: int, seed: int) -> np.ndarray:
    return np.exp(0.4 * np.random.default_rng(seed).normal(size=count))


def rows(shown: np.ndarray, held: np.ndarray) -> tuple[list[int], list[int]]:
    first, second = both(shown, held)
    return first.named(RATE), second.named(RATE)


@pytest.mark.parametrize("count", [12, 40, 160])
def test_good_pictures_alone_are_rarely_named(count: int) -> None:
    found = [rows(drawn(count, seed), drawn(count // 4, 9000 + seed)) for seed in range(SIMULATED)]
    any_of = np.array([[bool(shown), bool(held)] for shown, held in found]).mean(0)
    assert (any_of < RATE + 0.06).all()


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1])
def test_defects_are_named_and_few_others(share: float) -> None:
    found, wrong = [], []
    for seed in range(40):
        scores = [drawn(160, seed), drawn(40, 9000 + seed)]
        bad = [set(range(max(1, round(share * len(part))))) for part in scores]
        for part, rows_of in zip(scores, bad, strict=True):
            part[list(rows_of)] *= 6
        for told, rows_of in zip(rows(*scores), bad, strict=True):
            found.append(len(rows_of & set(told)) / len(rows_of))
            wrong.append(len(set(told) - rows_of) / max(1, len(told)))
    assert np.mean(found) > 0.8
    assert np.mean(wrong) < RATE + 0.03


def surprises(count: int, seed: int) -> np.ndarray:
    """Of good pictures: half normal above 1.4, next to nothing below, as fused maps are."""
    x = np.random.default_rng(seed).normal(size=count)
    return np.where(x > 0, 1.4 + x, 1.4 * np.exp(x) - 0.1)


def test_surprises_ask_for_another_law_than_logarithms() -> None:
    found, wrong, missed = [], [], []
    for seed in range(40):
        shown, held = surprises(140, seed), surprises(40, 9000 + seed)
        shown[:8] = np.linspace(5.5, 9.5, 8)
        told = set(both(shown, held, law=SURPRISES)[0].named(RATE))
        found.append(len(told & set(range(8))) / 8)
        wrong.append(len(told - set(range(8))) / max(1, len(told)))
        missed.append(len(both(shown, held, law=LOGARITHMS)[0].named(RATE)))
    assert np.mean(found) > 0.9
    assert np.mean(wrong) < RATE
    assert np.mean(missed) < 1
    clean = [both(surprises(140, seed), surprises(40, 9000 + seed), law=SURPRISES) for seed in range(200)]
    assert np.mean([bool(first.named(RATE)) for first, _ in clean]) < RATE + 0.06
    assert np.mean([bool(second.named(RATE)) for _, second in clean]) < RATE + 0.06


def test_few_held_out_pictures_are_judged_by_their_own_spread_if_it_is_larger() -> None:
    shown = 3 + 0.2 * np.random.default_rng(0).normal(size=27)
    held = np.array([-1.1, 4.1, 5.8, 6.9, 7.2, 7.6, 11.7, 11.7, 11.8])
    assert both(shown, held, law=SURPRISES)[1].named(RATE) == []


def test_those_kept_apart_are_judged_by_themselves_and_not_by_the_held_out() -> None:
    shown, apart = drawn(80, 0), 3 * drawn(20, 1)
    scores = {TAUGHT: shown, HELD: drawn(20, 2), "apart": apart}
    found = verdicts(scores)
    assert found["apart"].named(RATE) == []
    assert np.array_equal(found[TAUGHT].z, both(shown, scores[HELD])[0].z)
    apart[4] *= 20
    found, other = verdicts(scores), verdicts(scores | {HELD: 50 * drawn(20, 3)})
    assert found["apart"].named(RATE) == [4]
    assert np.array_equal(found["apart"].z, other["apart"].z)
    names = {split: [f"{split}/{row}.png" for row in range(len(part))] for split, part in scores.items()}
    (suspect,) = named(names, scores, found)
    assert (suspect.image, suspect.split) == ("apart/4.png", TAUGHT)  # one of those that were to train on


def test_what_is_said_of_those_that_taught_does_not_look_at_the_held_out() -> None:
    shown = drawn(60, 0)
    shown[3] *= 8
    one, _ = both(shown, drawn(15, 1))
    other, _ = both(shown, 50 * drawn(15, 2))
    assert np.array_equal(one.z, other.z)
    assert np.array_equal(one.q_value, other.q_value)
    assert not np.array_equal(one.p_value, other.p_value)


def test_an_offset_of_all_held_out_scores_makes_none_suspicious() -> None:
    shown, held = drawn(80, 0), 3 * drawn(20, 1)
    assert rows(shown, held)[1] == []


def test_conformal_p_values_are_their_definition() -> None:
    shown, held = drawn(20, 0), drawn(9, 1)
    first, second = both(shown, held)
    assert first.p_value == pytest.approx([(1 + (held >= s).sum()) / 10 for s in shown])
    assert second.p_value == pytest.approx([(held >= s).sum() / 9 for s in held])


def test_few_pictures_equal_scores_and_scores_below_zero_are_borne() -> None:
    few = both(drawn(FEWEST - 1, 0), drawn(3, 1))
    assert all(part.named(RATE) == [] for part in few)
    equal = both(np.ones(20), np.ones(5))
    assert all(part.named(RATE) == [] for part in equal)
    below = np.random.default_rng(0).normal(-3, 1, 60)
    below[7] = 9
    assert both(below, below[:5])[0].named(RATE) == [7]
    assert both(drawn(20, 0), np.empty(0))[1].named(RATE) == []


def test_labels_are_judged_by_themselves() -> None:
    calm, rough = drawn(40, 0), 50 * drawn(40, 1)
    calm[5] = 50.0  # usual for the rough ones
    label = np.repeat([0, 1], 40)
    shown = np.concatenate([calm, rough])
    held = np.concatenate([drawn(10, 2), 50 * drawn(10, 3)])
    found, _ = both(shown, held, labels={TAUGHT: label, HELD: np.repeat([0, 1], 10)})
    assert found.named(RATE) == [5]


def test_suspects_have_names_and_reasons() -> None:
    shown, held = drawn(40, 0), drawn(10, 1)
    shown[2] *= 20
    held[4] *= 20
    names = {"train": [f"a/{n}.png" for n in range(40)], "holdout": [f"a/{n + 40}.png" for n in range(10)]}
    scores = {"train": shown, "holdout": held}
    first, second = both(shown, held)
    found = named(names, scores, {"train": first, "holdout": second})
    assert {(suspect.image, suspect.split) for suspect in found} == {
        ("a/2.png", "train"),
        ("a/44.png", "holdout"),
    }
    assert "robust deviations" in found[0].reason
    told = Suspicion(found, 50, threshold=7.0, threshold_without=3.0)
    assert told.to_dict()["found"][0]["image"] in ("2.png", "44.png")
    assert Suspect(**told.to_dict()["found"][0]).q_value == found[0].q_value
    assert told.says[0].startswith("2 of 50 pictures given as good look unlike the rest")
    assert "it is 7, and 3 without" in told.says[1]
    assert Suspicion((), 50, threshold=7.0).says == ()


def observations(values: torch.Tensor, label: torch.Tensor | None = None) -> Kept:
    """In batches of three."""
    return Kept(
        [
            ((values[first : first + 3],), None if label is None else label[first : first + 3])
            for first in range(0, len(values), 3)
        ]
    )


class Mean:
    """Learns the mean of the first part; the map is the distance from it."""

    def __init__(self) -> None:
        self.seen: list[list[float]] = []

    def teach(self, observed) -> None:
        self.seen.append(torch.cat([parts[0] for parts, _ in observed()]).tolist())

    def maps(self, parts, label) -> Maps:
        away = (parts[0] - torch.tensor(self.seen[-1]).mean()).abs().view(-1, 1, 1, 1)
        return Maps(away, 2 * away)


def test_no_picture_is_judged_by_itself() -> None:
    values = torch.arange(11.0)
    model = Mean()
    found = crossed_maps(observations(values), model.teach, model.maps, folds=5)
    assert found is not None
    for fold, seen in enumerate(model.seen):
        inside = [value for row, value in enumerate(values.tolist()) if row % 5 == fold]
        assert sorted(seen + inside) == values.tolist()
    expected = [
        abs(value - np.mean([other for k, other in enumerate(values.tolist()) if k % 5 != row % 5]))
        for row, value in enumerate(values.tolist())
    ]
    assert found.maps.score.flatten().tolist() == pytest.approx(expected)
    assert torch.equal(found.maps.place, 2 * found.maps.score)
    assert found.fold.tolist() == [row % 5 for row in range(11)]
    chosen, _ = found.rows(found.fold == 2)
    assert chosen.score.flatten().tolist() == pytest.approx(expected[2::5])


def test_a_label_with_too_few_pictures_or_too_much_to_keep_is_not_crossed() -> None:
    model, values = Mean(), torch.arange(12.0)
    kept = observations(values)
    assert crossed_maps(lambda: iter(kept.batches), model.teach, model.maps) is None
    rare = observations(values, torch.tensor([0] * 8 + [1] * 4))
    assert crossed_maps(rare, model.teach, model.maps) is None
    assert model.seen == []
    assert crossed_maps(observations(values, torch.tensor([0, 1] * 6)), model.teach, model.maps) is not None
