"""What is loaded before a verb runs: next to nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import anodiff
from anodiff import artefact
from anodiff.cli.main import VERBS

HEAVY = (
    "torch",
    "numpy",
    "pandas",
    "pydantic",
    "lightning",
    "cv2",
    "timm",
    "matplotlib",
    "safetensors",
    "yaml",
)


def loaded(code: str, *words: object) -> tuple[set[str], str]:
    """The heavy modules in a fresh interpreter that ran `code`, and what it printed."""
    told = f"{code}\nimport sys, json; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", told, *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
        check=True,
    )
    *text, last = done.stdout.splitlines()
    return set(json.loads(last)), "\n".join(text)


def test_importing_the_package_loads_nothing() -> None:
    found, _ = loaded("import anodiff; dir(anodiff); anodiff.ConfigError")
    assert found == set()


@pytest.mark.parametrize("words", [["--help"], ["fit", "--help"], ["data", "make-demo", "--help"]])
def test_help_loads_nothing(words: list[str]) -> None:
    found, text = loaded(
        "import sys; from anodiff.cli.main import main; assert main(sys.argv[1:]) == 0", *words
    )
    assert found == set()
    assert "Usage: anodiff" in text


def test_config_and_info_load_no_torch(tmp_path: Path) -> None:
    import torch

    path = artefact.write(tmp_path / "m.anodiff", {"a": torch.zeros(2)}, {"config": {"seed": 3}})
    run = "import sys; from anodiff.cli.main import main; assert main(sys.argv[1:]) == 0"
    found, _ = loaded(run, "config", "show", "--preset", "tiny")
    assert not found & {"torch", "numpy", "pandas", "lightning", "cv2"}
    found, text = loaded(run, "info", path)
    assert found == set()
    assert "config.seed" in text


def test_every_public_name_is_there() -> None:
    for name in anodiff.__all__:
        assert getattr(anodiff, name) is not None
    assert issubclass(anodiff.DataError, anodiff.AnodiffError)


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "anodiff", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"anodiff {anodiff.__version__}"


def test_every_verb_has_its_file() -> None:
    folder = Path(anodiff.__file__).parent / "cli"
    assert all((folder / f"{verb.__name__.rsplit('.', 1)[-1]}.py").is_file() for verb in VERBS)
