"""Pairs of a picture and its edit: what stays, what changes, and where words look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_model import CPU, SHAPE, TEXT, configured, made, painted

from anodiff.config import RunConfig
from anodiff.detect.predictor import Predictor
from anodiff.diffusion.levels import spaced
from anodiff.errors import ConfigError, RefusalError
from anodiff.tasks.asked import Asked
from anodiff.tasks.edited import Edit, places_of
from anodiff.tasks.looks import looks
from anodiff.tasks.task import Task, task
from anodiff.told import Teller

SOURCE, TARGET = "a brass washer and a steel bolt", "a copper washer and a steel bolt"


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return configured(*TEXT)


@pytest.fixture(scope="module")
def predictor(config: RunConfig) -> Predictor:
    return made(config)


def asked(predictor: Predictor, config: RunConfig, prompt: str | None, edit: Edit | None = None) -> Task:
    return task(predictor, config, SHAPE, asked=Asked(prompt=prompt), edit=edit, device=CPU)


def test_the_pictures_of_the_prompt_are_those_it_paints_alone(
    predictor: Predictor, config: RunConfig
) -> None:
    pairs = painted(predictor, asked(predictor, config, SOURCE, Edit(TARGET)))
    assert len(pairs) == 4
    alone = painted(predictor, asked(predictor, config, SOURCE))
    assert np.abs(pairs[:2] - alone).max() <= 1
    other = painted(predictor, asked(predictor, config, TARGET))
    assert np.abs(pairs[2:] - other).max() > 5  # held to the source's attention
    assert np.abs(pairs[2:] - pairs[:2]).max() > 5


def test_outside_of_its_window_an_edit_is_what_its_own_text_paints(
    predictor: Predictor, config: RunConfig
) -> None:
    own = painted(predictor, asked(predictor, config, TARGET))
    visited = spaced(predictor.denoiser.levels, 4, spacing="trailing")
    between = float((visited[0] + visited[1]) / 2)
    for window in ((1e-9, 1e-8), (between, between * 1.0001)):
        pairs = painted(predictor, asked(predictor, config, SOURCE, Edit(TARGET, window=window)))
        assert np.abs(pairs[2:] - own).max() <= 1
    last = (float(visited[3]) * 0.99, float(visited[2]) * 1.01)
    pairs = painted(predictor, asked(predictor, config, SOURCE, Edit(TARGET, window=last)))
    assert np.abs(pairs[2:] - own).max() > 5


def test_the_same_text_is_the_same_picture(predictor: Predictor, config: RunConfig) -> None:
    pairs = painted(predictor, asked(predictor, config, SOURCE, Edit(SOURCE)))
    assert np.abs(pairs[2:] - pairs[:2]).max() <= 1


def test_pairs_do_not_depend_on_batches(predictor: Predictor, config: RunConfig) -> None:
    wanted = asked(predictor, config, SOURCE, Edit(TARGET, blend="washer"))
    two = painted(predictor, wanted, count=3, batch=3)
    one = painted(predictor, wanted, count=3, batch=1)  # source, edit, source, edit ...
    assert np.abs(two[[0, 3, 1, 4, 2, 5]] - one).max() <= 1


def test_a_blend_keeps_what_its_word_does_not_look_at(predictor: Predictor, config: RunConfig) -> None:
    """A share above all of a map but its maximum leaves a few places; a share of 0 leaves none out."""

    def changed(threshold: float) -> int:
        edit = Edit(TARGET, blend="copper", threshold=threshold)
        pairs = painted(predictor, asked(predictor, config, SOURCE, edit))
        return int((np.abs(pairs[2:] - pairs[:2]).max(-1) > 1).sum())

    without = painted(predictor, asked(predictor, config, SOURCE, Edit(TARGET)))
    assert changed(0.0) == int((np.abs(without[2:] - without[:2]).max(-1) > 1).sum())
    assert 0 < changed(1.0) < changed(0.0) / 2


@pytest.mark.parametrize(
    ("prompt", "edit", "error", "told"),
    [
        (None, Edit(TARGET), RefusalError, "give --prompt"),
        (SOURCE, Edit(TARGET, window=(3.0, 1.0)), ConfigError, "lower noise level first, got 3 and 1"),
        (SOURCE, Edit(TARGET, window=(-1.0, 1.0)), ConfigError, "lower noise level first"),
        (SOURCE, Edit(TARGET, blend="gear"), ConfigError, "'gear' to blend stands in neither text"),
        (SOURCE, Edit("nut " * 40), ConfigError, "shorten"),
    ],
)
def test_edits_without_sense_are_told(
    prompt: str | None,
    edit: Edit,
    error: type[Exception],
    told: str,
    predictor: Predictor,
    config: RunConfig,
) -> None:
    with pytest.raises(error, match=told):
        asked(predictor, config, prompt, edit)


def test_tasks_exclude_each_other(predictor: Predictor, config: RunConfig) -> None:
    with pytest.raises(ConfigError, match="Choose one of --edit and --superres"):
        task(
            predictor,
            config,
            SHAPE,
            asked=Asked(prompt=SOURCE),
            edit=Edit(TARGET),
            superres=[Path("small.png")],
            device=CPU,
        )


def test_places_of_a_word_are_all_its_pieces_wherever_it_stands(config: RunConfig) -> None:
    reader = Teller(config).reader
    assert places_of("A", "a nut and a bolt", reader) == [1, 4]  # behind the start
    assert places_of("gear", "a nut", reader) == []
    spelled = places_of("nuts", "a nuts", reader)  # no word of a caption: nut and an s
    assert spelled == [2, 3]


# -------------------------------------------------------------------- where words look


def test_looks_are_those_of_the_first_batch_and_change_nothing(
    predictor: Predictor, config: RunConfig
) -> None:
    wanted = asked(predictor, config, SOURCE)
    alone = painted(predictor, wanted, count=6, batch=5)
    watch = looks(config, SHAPE, stride=predictor.codec.stride, prompt=SOURCE)
    watched = Task(rows_of=watch.watched(wanted.rows))
    shown = list(watch.passed(painted(predictor, watched, count=6, batch=5).astype(np.uint8)))
    assert np.array_equal(np.stack(shown).astype(int), alone)
    found = watch.found()
    assert len(found) == 4
    for number, look in enumerate(found):
        assert np.array_equal(look.picture.astype(int), alone[number])
        assert look.words == tuple(SOURCE.split())
        assert look.maps.shape == (7, 8, 8)
        assert look.maps.max(axis=(1, 2)) == pytest.approx(1)
        assert look.maps.min() >= 0
    assert np.abs(found[0].maps - found[1].maps).max() > 1e-3


def test_looks_of_an_edit_are_pairs_with_their_own_words(predictor: Predictor, config: RunConfig) -> None:
    wanted = asked(predictor, config, SOURCE, Edit("two gears", blend="washer"))
    watch = looks(config, SHAPE, stride=2, prompt="a (brass:2) washer and a steel bolt", edit="two gears")
    watched = Task(rows_of=watch.watched(wanted.rows))
    pairs = painted(predictor, watched, count=3)
    assert list(watch.passed(pairs.astype(np.uint8)))
    found = watch.found()
    assert [look.words for look in found] == [tuple(SOURCE.split()), ("two", "gears")] * 2
    for look, row in zip(found, (0, 3, 1, 4), strict=True):
        assert np.array_equal(look.picture.astype(int), pairs[row])
        assert len(look.maps) == len(look.words)


def test_attention_of_equal_keys_is_even(config: RunConfig) -> None:
    """Where the encoder tells no word apart, all of them look everywhere alike."""
    predictor = made(config)
    with torch.no_grad():
        for value in predictor.denoiser.net.encoder.parameters():
            value.zero_()
    wanted = asked(predictor, config, SOURCE)
    watch = looks(config, SHAPE, stride=2, prompt=SOURCE)
    shown = painted(predictor, Task(rows_of=watch.watched(wanted.rows)))
    assert list(watch.passed(shown.astype(np.uint8)))
    for look in watch.found():
        np.testing.assert_allclose(look.maps, 1, atol=1e-5)


def test_only_words_look(config: RunConfig) -> None:
    with pytest.raises(RefusalError, match="--attention together with --prompt"):
        looks(config, SHAPE, stride=2, prompt=None)
    with pytest.raises(RefusalError, match=r"tokens\.kind=text"):
        looks(configured(), SHAPE, stride=2, prompt=SOURCE)
    with pytest.raises(RefusalError, match="no word that could look"):
        looks(config, SHAPE, stride=2, prompt=" ")
    with pytest.raises(RefusalError, match="Nothing was painted yet"):
        looks(config, SHAPE, stride=2, prompt=SOURCE).found()
