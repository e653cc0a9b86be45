"""A way to call the command in this process, and the models that its tests share: each is fitted once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cli_pictures import Command, Said
from cli_runs import PAINTER, SHORT

from anodiff.cli.main import main
from anodiff.data.demo import make_demo


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
