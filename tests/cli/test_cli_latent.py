"""Models of codes that are told words, boxes or pictures: scored, painted and edited with, and what they refuse."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from cli_pictures import Command
from cli_runs import LATENT, TOLD

import anodiff
from anodiff.train.progress import Silent

pytestmark = pytest.mark.xdist_group("cli-latent")  # the fitted models are shared

Told = Callable[[str], Path]
SAMPLE = ("--steps", 3, "--device", "cpu", "--count", 2)
PROMPT = ("--prompt", "a brass washer and a steel bolt")


def pictures(folder: Path) -> np.ndarray:
    """The samples in a folder in order, whole numbers [n, h, w, C]."""
    return np.stack([cv2.imread(str(path), -1) for path in sorted(folder.glob("0*.png"))]).astype(int)


@pytest.fixture
def sample(told: Told, tmp_path: Path, command: Command) -> Callable[..., np.ndarray]:
    """Paints with the model that is told `kind`, and gives the pictures."""

    def call(kind: str, *words: object) -> np.ndarray:
        out = tmp_path / f"samples-{len(list(tmp_path.iterdir()))}"
        said = command("sample", told(kind), "-o", out, *SAMPLE, *words)
        assert said.code == 0, said.err
        return pictures(out)

    return call


@pytest.mark.parametrize("kind", TOLD)
def test_every_kind_of_model_scores_alike_again(
    kind: str, told: Told, machine: Path, command: Command
) -> None:
    said = [
        command("score", told(kind), machine.parent / "images", "--json", "--batch", batch)
        for batch in (8, 3)
    ]
    found = [[json.loads(line)["score"] for line in one.out.splitlines()] for one in said]
    assert len(found[0]) == 24
    assert np.isfinite(found[0]).all()
    assert np.std(found[0]) > 0
    np.testing.assert_allclose(found[0], found[1], rtol=2e-4)


@pytest.mark.parametrize("kind", ["layout", "lowres", "masked", "semantic"])
def test_they_paint_without_being_told(kind: str, sample: Callable[..., np.ndarray]) -> None:
    shown = sample(kind)
    assert [picture.shape for picture in shown] == [(32, 32, 3)] * 2
    assert (shown[0] != shown[1]).any()


def test_words_weights_and_what_is_led_away_from_change_the_picture(
    sample: Callable[..., np.ndarray],
) -> None:
    shown = {
        "plain": sample("text", *PROMPT),
        "others": sample("text", "--prompt", "three copper gears"),
        "weighed": sample("text", "--prompt", "a (brass:4) washer and a steel bolt"),
        "masked": sample("text", "--prompt", "a (brass:0) washer and a steel bolt"),
        "stronger": sample("text", *PROMPT, "--scale", 4),
        "away": sample("text", *PROMPT, "--scale", 4, "--negative", "three copper gears"),
    }
    names = list(shown)
    assert all((shown[a] != shown[b]).any() for a in names for b in names if a < b)
    for same in (PROMPT, ("--prompt", "a (brass:1) washer and a steel bolt"), (*PROMPT, "--scale", 1)):
        assert np.array_equal(shown["plain"], sample("text", *same))


def test_unknown_words_are_named_and_a_known_text_is_not_blamed(
    told: Told, tmp_path: Path, command: Command
) -> None:
    one = command("sample", told("text"), "-o", tmp_path, *SAMPLE, "--prompt", "a zylonit washer")
    assert "warning: the model has hardly met the words zylonit" in one.err
    other = command("sample", told("text"), "-o", tmp_path, *SAMPLE, "--prompt", "a (washer:2)")
    assert "hardly met" not in other.err


def test_an_edit_comes_beside_the_picture_of_its_prompt(sample: Callable[..., np.ndarray]) -> None:
    pairs = sample("text", *PROMPT, "--edit", "a copper washer and a steel bolt")
    assert len(pairs) == 4
    np.testing.assert_allclose(pairs[:2], sample("text", *PROMPT), atol=1)
    assert (pairs[2] != pairs[0]).any()
    blended = sample(
        "text", *PROMPT, "--edit", "a copper washer and a steel bolt", "--blend", "washer", "--window", 0.1, 5
    )
    assert len(blended) == 4
    np.testing.assert_allclose(blended[:2], pairs[:2], atol=1)
    changed = []
    for share in (0, 1):  # everywhere, and at the one place that the word looks at most
        made = sample("text", *PROMPT, "--edit", "a copper bolt", "--blend", "washer", "--blend-from", share)
        changed.append((made[2:] != made[:2]).mean())
    assert changed[1] < changed[0] / 2


@pytest.mark.parametrize(
    ("words", "rows", "columns"),
    [
        ((), 2, 8),
        (("--edit", "a copper washer", "--blend", "washer", "--scale", 2), 4, 8),
        (("--batch", 1), 1, 8),
    ],
)
def test_where_words_look_is_drawn(
    words: tuple[object, ...], rows: int, columns: int, told: Told, tmp_path: Path, command: Command
) -> None:
    said = command("sample", told("text"), "-o", tmp_path, *SAMPLE, *PROMPT, "--attention", *words)
    assert said.code == 0, said.err
    assert "attention.png" in said.out
    sheet = cv2.imread(str(tmp_path / "attention.png"))
    assert sheet.shape[1] / sheet.shape[0] == pytest.approx(columns * 1.3 / (rows * 1.6), rel=0.02)
    plain = command("sample", told("text"), "-o", tmp_path / "plain", *SAMPLE, *PROMPT, *words)
    assert plain.code == 0
    assert not (tmp_path / "plain" / "attention.png").exists()
    assert np.array_equal(pictures(tmp_path), pictures(tmp_path / "plain"))  # watching changes nothing


def test_a_layout_moves_what_is_painted(sample: Callable[..., np.ndarray], tmp_path: Path) -> None:
    shown = []
    for number, box in enumerate((["bolt", 0.0, 0.0, 0.4, 0.4], ["bolt", 0.5, 0.5, 1.0, 1.0])):
        file = tmp_path / f"layout{number}.json"
        file.write_text(json.dumps([box]))
        shown.append(sample("layout", "--layout", file, "--scale", 3))
    assert (shown[0][0] != shown[1][0]).any()


def test_pictures_to_enlarge_say_how_many_come(told: Told, tmp_path: Path, command: Command) -> None:
    chance = np.random.default_rng(0)
    files = [tmp_path / f"small{number}.png" for number in range(3)]
    for file in files:
        cv2.imwrite(str(file), chance.integers(0, 255, (8, 8, 3), dtype=np.uint8))
    said = command("sample", told("lowres"), "-o", tmp_path / "s", "--steps", 2, "--superres", *files)
    assert said.code == 0, said.err
    shown = pictures(tmp_path / "s")
    assert [picture.shape for picture in shown] == [(32, 32, 3)] * 3


@pytest.mark.parametrize("kind", ["masked", "text"])
@pytest.mark.parametrize("size", [(32, 32), (51, 40)])
def test_known_pixels_stay_to_the_last_bit(
    kind: str, size: tuple[int, int], sample: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    hidden = np.zeros(size, np.uint8)
    hidden[8:20, 10:25] = 255
    cv2.imwrite(str(tmp_path / "part.png"), picture)
    cv2.imwrite(str(tmp_path / "mask.png"), hidden)
    for shown in sample(kind, "--inpaint", tmp_path / "part.png", "--mask", tmp_path / "mask.png"):
        assert np.array_equal(shown[hidden == 0], picture[hidden == 0])
        assert (shown[hidden > 0] != picture[hidden > 0]).mean() > 0.9


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Path]:
    """Files that a refused command names."""
    files = {
        "part.png": np.full((32, 32, 3), 90, np.uint8),
        "mask.png": np.eye(32, dtype=np.uint8) * 255,
        "large.png": np.eye(40, dtype=np.uint8) * 255,
        "none.png": np.zeros((32, 32), np.uint8),
    }
    for name, picture in files.items():
        cv2.imwrite(str(tmp_path / name), picture)
    (tmp_path / "outside.json").write_text('[["bolt", 0.5, 0.5, 1.4, 0.9]]')
    (tmp_path / "foreign.json").write_text('[["cat", 0.1, 0.1, 0.4, 0.9]]')
    names = (*files, "outside.json", "foreign.json")
    return {name: tmp_path / name for name in names}


@pytest.mark.parametrize(
    ("kind", "words", "code", "sentence"),
    [
        ("layout", PROMPT, 2, "this model reads no words"),
        ("text", ("--layout", "outside.json"), 2, "this model reads no boxes"),
        ("layout", ("--layout", "outside.json"), 3, "box 1"),
        ("layout", ("--layout", "foreign.json"), 2, "knows no class 'cat'"),
        ("text", ("--edit", "a copper washer"), 2, "give --prompt"),
        ("layout", (*PROMPT, "--edit", "a copper washer"), 2, "changes the picture of a prompt"),
        ("text", (*PROMPT, "--edit", "a gear", "--blend", "lever"), 2, "stands in neither text"),
        ("text", (*PROMPT, "--edit", "a gear", "--blend", "washer", "--blend-from", 2), 2, "share of a map"),
        ("text", (*PROMPT, "--edit", "a gear", "--window", 3, 1), 2, "lower noise level first"),
        ("text", ("--prompt", "a (brass washer"), 2, "does not close it"),
        ("text", ("--prompt", "brass " * 40), 2, "shorten"),
        ("text", ("--attention",), 2, "--attention together with --prompt"),
        ("masked", ("--attention",), 2, "tokens.kind=text"),
        ("text", ("--superres", "part.png"), 2, "beside.kind=lowres"),
        ("masked", ("--inpaint", "part.png"), 2, "give both --inpaint and --mask"),
        ("masked", ("--mask", "mask.png"), 2, "give both --inpaint and --mask"),
        ("masked", ("--inpaint", "part.png", "--mask", "large.png"), 3, "they should be of one size"),
        ("text", ("--inpaint", "part.png", "--mask", "none.png"), 3, "The mask hides nothing"),
        ("lowres", ("--inpaint", "part.png", "--mask", "mask.png", "--superres", "part.png"), 2, "Choose one"),
    ],
)  # fmt: skip
def test_what_a_model_cannot_do_is_told_in_a_sentence(
    kind: str,
    words: tuple[object, ...],
    code: int,
    sentence: str,
    given: dict[str, Path],
    told: Told,
    tmp_path: Path,
    command: Command,
) -> None:
    named = [given.get(str(word), word) for word in words]
    said = command("sample", told(kind), "-o", tmp_path / "out", *SAMPLE, *named)
    assert said.code == code, said.err
    assert sentence in said.err
    assert not list((tmp_path / "out").glob("*.png"))


@pytest.mark.parametrize(
    ("moment", "place"),
    [
        (1, "codec/checkpoints"),
        (2, "codec/checkpoints"),  # heard after the last step
        (3, "codec/checkpoints"),  # after the last look at it
        (4, "checkpoints"),
        (6, "checkpoints"),
    ],
)
def test_an_interrupted_fit_ends_with_the_model_of_one_that_was_not(
    moment: int,
    place: str,
    told: Told,
    machine: Path,
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three steps of the autoencoder come before three of the denoiser; one more, if any, is done after Ctrl-C."""
    count = iter(range(1, 100))

    class Interrupts(Silent):
        def update(self, step: int, loss: float, seconds: float) -> None:
            if next(count) == moment:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("anodiff.train.progress.progress", lambda label: Interrupts())
    words = [part for word in TOLD["layout"] for part in ("--set", word)]
    fit = ("fit", machine, "-o", tmp_path, *LATENT, *words, "--no-samples")
    said = command(*fit)
    assert said.code == 130
    assert f"checkpoint saved in {tmp_path / place}; resume with --resume auto" in said.err
    assert not (tmp_path / "model.anodiff").exists()
    said = command(*fit, "--resume", "auto")
    assert said.code == 0, said.err
    assert next(count) == 7  # no step was done twice
    found = anodiff.load(tmp_path / "model.anodiff", device="cpu")
    assert found.model_id == anodiff.load(told("layout"), device="cpu").model_id
    assert len(found.alarms) == 2  # of what the autoencoder loses
    assert all(f"warning: {alarm}" in said.err for alarm in found.alarms)


def test_a_size_that_the_stride_does_not_divide_is_rounded_and_a_small_one_told_at_once(
    machine: Path, tmp_path: Path, command: Command
) -> None:
    words = ("--set", "codec.stride=8", "--set", "codec.defect=4", "--no-samples")
    said = command("fit", machine, "-o", tmp_path / "run", *LATENT, *words, "--size", 20)
    assert said.code == 0, said.err
    shape = anodiff.load(tmp_path / "run" / "model.anodiff", device="cpu").shape
    assert shape in ((16, 16), (24, 24))
    said = command("fit", machine, "-o", tmp_path / "no", *LATENT, "--size", 16, "--set", "codec.defect=20")
    assert said.code == 3
    assert "expected pictures of 20 px a side or more" in said.err
    assert "training" not in said.err


def test_a_fit_is_not_resumed_with_other_boxes(machine: Path, tmp_path: Path, command: Command) -> None:
    words = [part for word in TOLD["layout"] for part in ("--set", word)]
    fit = ("-o", tmp_path / "run", *LATENT, *words, "--no-samples")
    assert command("fit", machine, *fit).code == 0
    other = machine.with_name("other.csv")
    lines = machine.read_text().splitlines()
    rows = list(csv.reader(lines))
    column = rows[0].index("boxes")
    for row in rows[1:]:
        row[column] = json.dumps([*json.loads(row[column]), ["bolt", 0.1, 0.1, 0.2, 0.2]])
    with other.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    said = command("fit", other, *fit, "--resume", "auto")
    assert said.code == 2, said.err
    assert "captions, boxes or maps was" in said.err
