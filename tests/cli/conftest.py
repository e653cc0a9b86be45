"""A way to call the command in this process, and the models that its tests share: each is fitted once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from cli_pictures import Command, Said
from cli_runs import LATENT, PAINTER, SHORT, TOLD

from anodiff.cli.main import main
from anodiff.data.demo import make_demo
from anodiff.data.parts import make_parts


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Calls `anodiff` in this process; no command may show a traceback."""

    def call(*words: object) -> Said:
        capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in err, err
        return Said(code, out, err)

    return call


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    make_demo(folder, categories=("brick",), train=14, good=4, bad=5)
    return folder / "brick"


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two kinds of parts."""
    folder = tmp_path_factory.mktemp("parts")
    make_demo(folder, categories=("brick", "grass"), train=14, good=3, bad=3)
    return folder


@pytest.fixture(scope="session")
def fitted(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a short fit."""
    folder = tmp_path_factory.mktemp("runs") / "brick"
    torch.set_num_threads(1)
    assert main(["fit", str(demo), "-o", str(folder), *SHORT, "--set", "train.steps=12"]) == 0
    return folder


@pytest.fixture
def model(fitted: Path) -> Path:
    return fitted / "model.anodiff"


@pytest.fixture(scope="session")
def evaluated(fitted: Path, demo: Path) -> Path:
    assert main(["eval", str(fitted / "model.anodiff"), str(demo), "-o", str(fitted / "eval")]) == 0
    return fitted / "eval"


@pytest.fixture(scope="session")
def painter(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of pixels, trained for three steps: it paints noise, but it paints."""
    folder = tmp_path_factory.mktemp("runs") / "pixels"
    assert main(["fit", str(demo), "-o", str(folder), *PAINTER]) == 0
    return folder / "model.anodiff"


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of pictures of machine parts, with captions, boxes and maps of classes."""
    return make_parts(tmp_path_factory.mktemp("machine"), count=24, size=32)


@pytest.fixture(scope="session")
def told(machine: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """By what it is told, a model of codes; each is fitted when it is first asked for."""
    runs = tmp_path_factory.mktemp("told")

    @cache
    def of(kind: str) -> Path:
        torch.set_num_threads(1)
        words = [part for word in TOLD[kind] for part in ("--set", word)]
        assert main(["fit", str(machine), "-o", str(runs / kind), *LATENT, *words, "--no-samples"]) == 0
        return runs / kind / "model.anodiff"

    return of
