"""A denoising diffusion GAN from the command line: fitted, scored, evaluated and painted with, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from cli_pictures import Command, Said
from cli_runs import CHAIN, CHAIN_OF_FEATURES, FROZEN, table

import anodiff
from anodiff import artefact
from anodiff.cli.main import main
from anodiff.cond import Cond
from anodiff.diffusion.guidance import Bind, Inpaint
from anodiff.diffusion.levels import spaced
from anodiff.diffusion.sampling import ddim, heun, repaint
from anodiff.errors import RefusalError
from anodiff.noise import PerImageNoise

pytestmark = pytest.mark.xdist_group("cli-chain")  # the fitted models are shared

ROOT = Path(__file__).parents[2]
SPOKEN = "4 evaluations of the generator and 2 of the discriminator a picture"
ALARM = "what the chain draws varies 0."


@pytest.fixture(scope="session")
def run(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a chain of pixels."""
    folder = tmp_path_factory.mktemp("runs") / "chain"
    torch.set_num_threads(1)
    assert main(["fit", str(demo), "-o", str(folder), *CHAIN]) == 0
    return folder


@pytest.fixture
def chain(run: Path) -> Path:
    return run / "model.anodiff"


@pytest.fixture(scope="session")
def shades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Black and white pictures to learn from, others of them to judge, and grey ones, which are not good."""
    folder = tmp_path_factory.mktemp("shades")
    for place, side, values in (
        ("train", 48, (0, 255)),
        ("judged/good", 40, (0, 255)),
        ("judged/bad", 40, (90, 160)),
    ):
        (folder / place).mkdir(parents=True)
        for number in range(12):
            picture = np.full((side, side + number), values[number % 2], np.uint8)
            cv2.imwrite(str(folder / place / f"{number:02}.png"), picture)
    return folder


@pytest.fixture(scope="session")
def frozen(shades: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """A chain that training left as it began, and what the fit said of it."""
    folder = tmp_path_factory.mktemp("runs") / "frozen"
    words = ["fit", str(shades / "train"), "-o", str(folder), *FROZEN, "--no-samples", "--json"]
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = main(words)
    return folder / "model.anodiff", Said(code, out.getvalue(), err.getvalue())


def scores(said: Said) -> list[float]:
    assert said.code == 0, said.err
    return [json.loads(line)["score"] for line in said.out.splitlines()]


def test_scores_are_the_same_twice_and_whatever_the_batch(chain: Path, demo: Path, command: Command) -> None:
    once = scores(command("score", chain, demo / "test", "--json"))
    assert len(set(once)) == 9
    assert scores(command("score", chain, demo / "test", "--json")) == once
    for batch in (1, 4):
        again = scores(command("score", chain, demo / "test", "--json", "--batch", batch))
        assert again == pytest.approx(once, rel=1e-4)


def test_steps_of_a_chain_are_its_levels(chain: Path, demo: Path, tmp_path: Path, command: Command) -> None:
    good = demo / "test" / "good"
    two, one = (scores(command("score", chain, good, "--json", "--steps", n)) for n in (2, 1))
    assert two == scores(command("score", chain, good, "--json"))
    assert one != two
    refused = command("score", chain, good, "-o", tmp_path / "s", "--steps", 3)
    assert refused.code == 2
    assert "only 2 noise levels lie up to the start, sigma 3.413; use at most 2" in refused.err
    assert refused.out == ""


def test_what_a_picture_costs_is_told_of_both_players(
    chain: Path, demo: Path, tmp_path: Path, command: Command
) -> None:
    said = command("eval", chain, demo, "-o", tmp_path / "e", "--gate", "opinions_per_image<=2")
    assert said.code == 0, said.err
    assert SPOKEN in said.out
    costs = {"evaluations_per_image": 4, "opinions_per_image": 2}
    assert costs.items() <= json.loads((tmp_path / "e" / "metrics.json").read_text()).items()
    page = (tmp_path / "e" / "report.html").read_text()
    assert "<dt>generator evaluations a picture</dt><dd>4</dd>" in page
    assert "<dt>discriminator evaluations a picture</dt><dd>2</dd>" in page
    assert "network evaluations" not in page
    assert "Warning from training" not in page
    assert command("score", chain, demo / "test" / "good", "-o", tmp_path / "s").code == 0
    assert costs.items() <= json.loads((tmp_path / "s" / "run.json").read_text()).items()
    info = command("info", chain)
    assert SPOKEN in info.out
    assert "warning" not in info.out + info.err
    assert costs.items() <= json.loads(command("info", chain, "--json").out).items()
    assert costs.items() <= anodiff.load(chain, device="cpu").info.items()
    missed = command("eval", chain, demo, "-o", tmp_path / "e", "--gate", "opinions_per_image<2")
    assert missed.code == 12


def test_a_model_without_a_discriminator_tells_nothing_of_one(
    painter: Path, demo: Path, tmp_path: Path, command: Command
) -> None:
    said = command("eval", painter, demo, "-o", tmp_path / "e", "--gate", "opinions_per_image<=0")
    assert said.code == 0, said.err
    info = command("info", painter)
    assert "evaluations_per_image" in info.out
    page = (tmp_path / "e" / "report.html").read_text()
    assert "<dt>network evaluations a picture</dt><dd>4</dd>" in page
    for text in (
        said.out,
        info.out,
        page,
        *((tmp_path / "e" / f).read_text() for f in ("metrics.json", "run.json")),
    ):
        for word in ("generator", "discriminator", "opinions_per_image", "Warning from", '"alarms"'):
            assert word not in text


def test_a_chain_takes_all_its_levels_at_eta_1_unless_told(
    chain: Path, tmp_path: Path, command: Command
) -> None:
    shown = {}
    for name, words in {
        "usual": [],
        "said": ["--steps", 4, "--eta", 1],
        "ddpm": ["--sampler", "ddpm"],
        "all": ["--spacing", "all"],
        "two": ["--steps", 2],
        "one": ["--steps", 1],
        "less": ["--eta", 0],
    }.items():
        said = command("sample", chain, "-o", tmp_path / name, "--count", 2, *words)
        assert said.code == 0, said.err
        shown[name] = (tmp_path / name / "0001.png").read_bytes()
    assert shown["usual"] == shown["said"] == shown["ddpm"] == shown["all"]
    assert len({shown[name] for name in ("usual", "two", "one", "less")}) == 4
    for words, told in (
        (["--steps", 5], "use at most 4"),
        (["--steps", 0], "--steps should be at least 1, got 0"),
        (["--sampler", "heun"], "this denoiser draws x0 at random; use the ddim sampler"),
        (["--sampler", "dpmpp_2m"], "this denoiser draws x0 at random; use the ddim sampler"),
        (["--spacing", "karras"], "use spacing 'trailing' or 'all'"),
        (["--scale", 2], "fitted without labels"),
        (["--classifier-scale", 2], "fitted without one"),
    ):
        refused = command("sample", chain, "-o", tmp_path / "no", "--count", 1, *words)
        assert refused.code == 2
        assert told in refused.err
    assert not list((tmp_path / "no").iterdir())


def test_the_samples_of_a_fit_are_the_usual_ones(
    run: Path, chain: Path, tmp_path: Path, command: Command
) -> None:
    said = command("sample", chain, "-o", tmp_path / "again", "--count", 9, "--steps", 4, "--eta", 1)
    assert said.code == 0, said.err
    for name in ("0000.png", "0008.png"):
        assert (tmp_path / "again" / name).read_bytes() == (run / "samples" / name).read_bytes()


def test_away_from_a_weaker_chain(
    chain: Path, frozen: tuple[Path, Said], tmp_path: Path, command: Command
) -> None:
    weaker, _ = frozen
    shown = {}
    for name, words in {
        "alone": [],
        "itself": ["--weaker", chain],
        "once": ["--weaker", weaker, "--weaker-scale", 1],
        "away": ["--weaker", weaker, "--weaker-scale", 3],
    }.items():
        said = command("sample", chain, "-o", tmp_path / name, "--count", 1, *words)
        assert said.code == 0, said.err
        shown[name] = (tmp_path / name / "0000.png").read_bytes()
    assert shown["alone"] == shown["itself"] == shown["once"]
    assert shown["alone"] != shown["away"]


def test_every_guidance_of_a_chain_with_labels(parts: Path, tmp_path: Path, command: Command) -> None:
    model = tmp_path / "run" / "model.anodiff"
    labelled = (
        "labels.kind=category",
        "guidance={kind: classifier, net: {width: 8, multipliers: [1, 2], attention: [1], steps: 4}}",
    )
    words = [part for word in labelled for part in ("--set", word)]
    fitted = command("fit", parts, "-o", tmp_path / "run", *CHAIN, *words, "--no-samples")
    assert fitted.code == 0, fitted.err
    shown = {}
    for name, words in {
        "turn": ["--classifier-scale", 0],
        "brick": ["--classifier-scale", 0, "--label", "brick"],
        "grass": ["--classifier-scale", 0, "--label", "grass"],
        "own": ["--label", "brick"],
        "score": ["--classifier-scale", 9, "--label", "brick"],
        "mean": ["--classifier-scale", 9, "--label", "brick", "--form", "mean", "--sampler", "ddpm"],
        "free": ["--classifier-scale", 0, "--scale", 3, "--label", "brick"],
        "negative": ["--classifier-scale", 0, "--scale", 3, "--label", "brick", "--negative", "grass"],
    }.items():
        said = command("sample", model, "-o", tmp_path / name, "--count", 2, *words)
        assert said.code == 0, said.err
        shown[name] = [(tmp_path / name / f"000{i}.png").read_bytes() for i in range(2)]
    assert shown["turn"] == [shown["brick"][0], shown["grass"][1]]
    assert len({pictures[0] for name, pictures in shown.items() if name != "turn"}) == len(shown) - 1
    good = parts / "grass" / "test" / "good"
    once = scores(command("score", model, good, "--json"))
    assert once == pytest.approx(scores(command("score", model, good, "--json", "--batch", 1)), rel=1e-4)


def test_a_chain_of_features_scores_by_residual_and_opinion(
    demo: Path, tmp_path: Path, command: Command
) -> None:
    model = tmp_path / "run" / "model.anodiff"
    fitted = command("fit", demo, "-o", tmp_path / "run", *CHAIN_OF_FEATURES, "--json")
    assert fitted.code == 0, fitted.err
    costs = {"evaluations_per_image": 1, "opinions_per_image": 1}
    assert costs.items() <= json.loads(fitted.out).items()
    assert "alarms" not in json.loads(fitted.out)
    assert "1 evaluation of the generator and 1 of the discriminator a picture" in command("info", model).out
    once = scores(command("score", model, demo / "test", "--json"))
    assert len(set(once)) == 9
    again = scores(command("score", model, demo / "test", "--json", "--batch", 2))
    assert again == pytest.approx(once, rel=1e-4)
    painted = command("sample", model, "-o", tmp_path / "s")
    assert painted.code == 2
    assert "paints nothing" in painted.err


def test_each_kind_of_part_has_its_opinion(parts: Path, tmp_path: Path, command: Command) -> None:
    model = tmp_path / "run" / "model.anodiff"
    words = ("--set", "labels.kind=category")
    fitted = command("fit", parts, "-o", tmp_path / "run", *CHAIN_OF_FEATURES, *words, "--json")
    assert fitted.code == 0, fitted.err
    costs = {"evaluations_per_image": 1, "opinions_per_image": 1}  # of one kind: a picture is of one
    assert costs.items() <= json.loads(fitted.out).items()
    said = command("score", model, parts / "grass" / "test", "-o", tmp_path / "s")
    assert said.code == 0, said.err
    assert {row["category"] for row in table(tmp_path / "s" / "predictions.csv")} == {"grass"}


def test_what_went_wrong_in_training_is_told_wherever_the_model_is(
    frozen: tuple[Path, Said], shades: Path, tmp_path: Path, command: Command
) -> None:
    model, fitted = frozen
    assert fitted.code == 0, fitted.err
    (alarm,) = json.loads(fitted.out)["alarms"]
    assert alarm.startswith(ALARM)
    assert fitted.err.splitlines()[-1] == f"warning: {alarm}"
    info = command("info", model)
    assert info.out.splitlines()[-1] == f"warning: {alarm}"
    assert info.out.count(alarm) == 1
    assert json.loads(command("info", model, "--json").out)["provenance"]["alarms"] == [alarm]
    assert anodiff.load(model, device="cpu").alarms == (alarm,)
    said = command("eval", model, shades / "judged", "-o", tmp_path / "e")
    assert said.code == 0, said.err
    assert (tmp_path / "e" / "report.html").read_text().count(f"</b> {alarm}</p>") == 1
    again = command("report", tmp_path / "e", tmp_path / "e", "-o", tmp_path / "both.html")
    assert again.code == 0, again.err
    assert (tmp_path / "both.html").read_text().count(f"</b> {alarm}</p>") == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["score.levels=[0.95]"],
            "score.levels: 0.95 is no noise level of this model, which has 0.9537, 3.413",
        ),
        (["score.steps=3"], "use at most 2"),
        (["score={kind: opinion, levels: [0.5]}"], "score.levels: 0.5 is no noise level"),
        (["family.schedule.steps=2"], "only 1 noise level lies up to the start, sigma 3.413; use at most 1"),
    ],
)
def test_levels_that_the_chain_does_not_have_are_told_before_anything_is_read(
    tmp_path: Path, command: Command, words: list[str], told: str
) -> None:
    sets = [part for word in words for part in ("--set", word)]
    said = command("fit", tmp_path / "not there", "-o", tmp_path / "r", *CHAIN, *sets)
    assert said.code == 2
    assert told in said.err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "configs").rglob("ddgan*.yaml")),
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_the_configurations_give_models(path: Path, demo: Path, tmp_path: Path, command: Command) -> None:
    words = ("--config", path, "--size", 64, "--device", "cpu", "--set", "train.steps=2", "--no-samples")
    fitted = command("fit", demo, "-o", tmp_path / "run", *words)
    assert fitted.code == 0, fitted.err
    said = command("score", tmp_path / "run" / "model.anodiff", demo / "test" / "good", "--json")
    assert len(set(scores(said))) == 4
    assert command("info", tmp_path / "run" / "model.anodiff").out.count("ddgan") == 1


def test_a_fitted_chain_repairs_what_is_not_known(chain: Path) -> None:
    """No command masks a picture; from Python the wrapper stands around a fitted chain as around any denoiser."""
    predictor = anodiff.load(chain, device="cpu").predictor
    z = predictor.codec.encode(torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)))
    known = torch.zeros(1, 1, 8, 8)
    known[..., :4] = 1
    sigmas = spaced(predictor.denoiser.levels, 4)

    def repaired(seeds: list[int], walk: Callable[..., torch.Tensor]) -> torch.Tensor:
        noise = PerImageNoise(seeds)
        mended = Inpaint(Bind(predictor.denoiser, Cond(noise=noise)), z, known)
        return walk(mended, z + sigmas[0].to(z) * noise(z), sigmas, eta=1.0, noise=noise)

    with torch.no_grad():
        for walk in (ddim, partial(repaint, resamples=2, jump=2)):
            found = repaired([1, 2], walk)
            torch.testing.assert_close(found * known, z * known)
            assert torch.equal(found, repaired([1, 2], walk))
            other = repaired([3, 4], walk)
            assert ((found - other) * (1 - known)).abs().max() > 0.01
        with pytest.raises(RefusalError, match="draws x0 at random"):
            heun(Inpaint(predictor.denoiser, z, known), z, sigmas)


def test_a_file_says_what_a_picture_costs_without_torch(chain: Path) -> None:
    about = artefact.read_header(chain)
    assert (about["evaluations_per_image"], about["opinions_per_image"]) == (4, 2)
