"""What rows are told reaches the model with its row and step, is dropped together, and is checked before a run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_duel import GAME, players
from small_duel import PLAN as DUEL
from small_run import OBJECTIVE, PLAN, Dies, Killed, Stripes, final
from torch import nn
from torch.utils.data import DataLoader

from anodiff.cond import Cond
from anodiff.errors import ConfigError, DataError
from anodiff.train.classification import CrossEntropy
from anodiff.train.fit import fit
from anodiff.train.objective import LogUniform, Objective
from anodiff.train.plan import Plan
from anodiff.train.source import Steps
from anodiff.train.told import LOOKED, check_told, stacked

TABLE_OBJECTIVE = Objective(weight=lambda s: s**0, times=LogUniform(1, 2))


def told(row: int, seed: int) -> dict[str, torch.Tensor]:
    """The number of the row as words, and the picture of the very step at half its size."""
    image = nn.functional.avg_pool2d(Stripes().item(row, seed), 2)
    return {"words": torch.tensor([row + 1, 0, 0]), "image": image}


class Reading(nn.Module):
    """x0 as a gain on the told picture plus a vector a word; learned nulls where a row is not kept."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5))
        self.words = nn.Embedding(12, 2)
        self.null = nn.Parameter(torch.zeros(2))
        self.seen: list[Cond] = []

    def forward(self, y, sigma, cond: Cond):
        self.seen.append(cond)
        shown = nn.functional.interpolate(cond.image, size=y.shape[-2:])
        word = self.words(cond.words[:, 0])
        if cond.keep is not None:
            word = torch.where(cond.keep[:, None], word, self.null)
            shown = shown * cond.keep[:, None, None, None]
        return self.gain * shown + word.mean(1)[:, None, None, None]


# ----------------------------------------------------------------------- the batch


def test_a_row_is_told_what_is_made_of_its_own_augmented_picture():
    source = Steps(Stripes(), PLAN, OBJECTIVE, told=told)
    for step in (0, 7, 23):
        batch = source[step]
        assert torch.equal(batch.told["image"], nn.functional.avg_pool2d(batch.z, 2))
        assert batch.told["words"].shape == (4, 3)
        assert batch.told["words"].dtype == torch.int64
    assert not torch.equal(source[0].told["image"], source[1].told["image"])


def test_without_anything_told_a_batch_is_as_it_was():
    plain = Steps(Stripes(), replace(PLAN, condition_dropout=0.4), OBJECTIVE)[3]
    assert plain.told is None
    assert plain.keep is None
    assert plain.conditions == {}
    labelled = Steps(Stripes(), replace(PLAN, condition_dropout=0.4), OBJECTIVE, labels=list(range(11)))
    both = Steps(
        Stripes(), replace(PLAN, condition_dropout=0.4), OBJECTIVE, labels=list(range(11)), told=told
    )
    for step in range(5):
        one, other = labelled[step], both[step]
        for name in ("z", "u", "n", "label", "keep"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert set(one.conditions) == {"label", "keep"}
        assert set(other.conditions) == {"label", "keep", "words", "image"}


def test_rows_of_ranks_and_of_readers_are_told_the_same():
    plan = replace(PLAN, batch=6, condition_dropout=0.3)
    whole = Steps(Stripes(), plan, OBJECTIVE, told=told)[5]
    for rank in range(3):
        part = Steps(Stripes(), plan, OBJECTIVE, told=told, rank=rank, world=3)[5]
        assert torch.equal(part.keep, whole.keep[rank::3])
        for name, value in whole.told.items():
            assert torch.equal(part.told[name], value[rank::3]), name
    source = Steps(Stripes(), plan, OBJECTIVE, told=told)
    ahead = DataLoader(source, batch_size=None, sampler=range(4, 7), num_workers=1)
    for step, batch in zip(range(4, 7), ahead, strict=True):
        assert all(torch.equal(batch.told[name], value) for name, value in source[step].told.items())


def test_it_moves_with_its_batch():
    batch = Steps(Stripes(), PLAN, OBJECTIVE, told=told)[0].to(torch.device("meta"))
    assert {value.device.type for value in batch.told.values()} == {"meta"}


# ------------------------------------------------------------------------ the model


def test_words_pictures_and_the_null_reach_the_denoiser():
    """The data are the told picture enlarged, plus a tenth of the row: gain and words are learnt, and the null's."""

    class Data(Stripes):
        def item(self, index, seed, /):
            shown = nn.functional.avg_pool2d(super().item(index, seed), 2)
            return nn.functional.interpolate(shown[None], size=(8, 8))[0] + index / 10

    net = Reading()
    plan = Plan(steps=300, batch=11, learning_rate=0.05, condition_dropout=0.3)
    fit(net, Data(), plan, objective=TABLE_OBJECTIVE, told=told)
    assert net.gain.item() == pytest.approx(1, abs=0.02)
    learnt = net.words.weight.detach().mean(1)[1:]
    torch.testing.assert_close(learnt, torch.arange(11) / 10, atol=0.05, rtol=0)
    assert net.null.detach().mean().item() == pytest.approx(0.5, abs=0.15)
    kept = torch.cat([cond.keep for cond in net.seen]).float().mean()
    assert 0.65 < kept < 0.75
    assert all(cond.label is None and cond.boxes is None for cond in net.seen)


def run(folder, plan=PLAN, *, resume=None, progress=None):
    torch.manual_seed(0)
    plan = replace(plan, condition_dropout=0.3)
    return fit(
        Reading(),
        Stripes(),
        plan,
        objective=TABLE_OBJECTIVE,
        folder=folder,
        resume=resume,
        told=told,
        labels=[0] * 11,
        progress=progress,
    )


def test_killed_and_resumed_or_read_ahead_it_is_the_same_run(tmp_path):
    whole = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "cut", progress=Dies(13))
    again = run(tmp_path / "cut", resume="auto")
    ahead = run(tmp_path / "ahead", replace(PLAN, workers=1))
    assert again.losses == whole.losses == ahead.losses
    for other in ("cut", "ahead"):
        mine, theirs = final(tmp_path / other), final(tmp_path / "whole")
        for part in ("model", "ema"):
            assert all(torch.equal(getattr(mine, part)[k], v) for k, v in getattr(theirs, part).items())


def test_both_players_of_a_game_are_told():
    class Seen(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.conds = inner, []

        def forward(self, *args):
            self.conds.append(args[-1])
            return self.inner(*args)

        def __getattr__(self, name):
            try:
                return super().__getattr__(name)
            except AttributeError:
                return getattr(super().__getattr__("inner"), name)

    model = players()
    model.denoiser.net, model.critic.net = Seen(model.denoiser.net), Seen(model.critic.net)
    plan = replace(DUEL, steps=2, condition_dropout=0.4, warmup=0)
    fit(model, Stripes(), plan, objective=GAME, told=told)
    for player in (model.denoiser, model.critic):
        assert player.net.conds
        for cond in player.net.conds:
            assert cond.image.shape == (4, 1, 4, 4)
            assert cond.words.shape == (4, 3)
            assert cond.keep.shape == (4,)


def test_a_classifier_is_shown_its_label_alone(tmp_path):
    class Logits(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Linear(64, 2)

        def forward(self, y, sigma, *others):
            assert not others
            return self.weight(y.flatten(1))

    found = []
    for more in ({}, {"told": told}):
        torch.manual_seed(0)
        goal = CrossEntropy(times=LogUniform(0.1, 1))
        outcome = fit(Logits(), Stripes(), PLAN, objective=goal, labels=[0, 1] * 5 + [0], **more)
        found.append(outcome.losses)
    assert found[0] == found[1]
    with pytest.raises(ConfigError, match="a classifier learns the label of each row, but there are none"):
        fit(Logits(), Stripes(), PLAN, objective=goal, told=told)


# ------------------------------------------------------------------------- refusals

WORDS = torch.tensor([1, 2])


@pytest.mark.parametrize(
    ("fields", "kind", "said"),
    [
        (
            {"text": WORDS},
            ConfigError,
            "a row can be told words, boxes, tokens, token_mask, image, but row 0 is told text; a class goes",
        ),
        ({"label": WORDS, "words": WORDS}, ConfigError, "row 0 is told label; a class goes into labels"),
        ({"keep": WORDS}, ConfigError, "row 0 is told keep"),
        ({}, ConfigError, "row 0 is told nothing"),
        (
            {"words": WORDS.float()},
            DataError,
            r"words of a row are \[L\] int64, but row 0 is told \[2\] float32",
        ),
        ({"words": WORDS[None]}, DataError, r"row 0 is told \[1, 2\] int64"),
        ({"words": [1, 2]}, DataError, r"row 0 is told \[1, 2\]"),
        ({"boxes": torch.zeros(3, 4)}, DataError, r"boxes of a row are \[N, 5\], but row 0 is told \[3, 4\]"),
        (
            {"image": torch.zeros(8, 8)},
            DataError,
            r"image of a row are \[C, h, w\], but row 0 is told \[8, 8\]",
        ),
    ],
)
def test_what_no_row_can_be_told_is_refused_before_a_run(tmp_path, fields, kind, said):
    with pytest.raises(kind, match=said):
        fit(
            Reading(),
            Stripes(),
            PLAN,
            objective=TABLE_OBJECTIVE,
            told=lambda row, seed: fields,
            folder=tmp_path,
        )
    assert not list(tmp_path.iterdir())


def test_rows_that_are_told_unlike_things_are_refused_before_a_run():
    def uneven(row, seed):
        return {"words": torch.zeros(2 + (row == 7), dtype=torch.int64)}

    def other(row, seed):
        return told(row, seed) if row != 4 else {"words": WORDS}

    with pytest.raises(DataError, match=r"row 0 is told words \[2\] int64 and row 7 words \[3\] int64; pad"):
        fit(Reading(), Stripes(), PLAN, objective=TABLE_OBJECTIVE, told=uneven)
    with pytest.raises(
        DataError, match=r"row 0 is told .* image \[1, 4, 4\] float32 and row 4 words \[2\] int64"
    ):
        fit(Reading(), Stripes(), PLAN, objective=TABLE_OBJECTIVE, told=other)


def test_of_many_rows_some_are_looked_at_before_and_all_when_they_come():
    asked = []

    def counted(row, seed):
        asked.append((row, seed))
        return {"words": torch.zeros(2 + (row == 1), dtype=torch.int64)}

    check_told(counted, 1000, lambda row: -row)
    assert len(asked) <= LOOKED
    assert asked[0] == (0, 0)
    assert asked[-1][0] > 900
    assert all(seed == -row for row, seed in asked)
    with pytest.raises(DataError, match=r"row 8 is told .* and row 1 "):
        stacked([counted(8, 0), counted(1, 0)], [8, 1])


def test_there_must_be_something_to_drop():
    plan = replace(PLAN, condition_dropout=0.1)
    with pytest.raises(ConfigError, match="no condition to drop; give labels, or tell the rows something"):
        fit(Reading(), Stripes(), plan, objective=TABLE_OBJECTIVE)
