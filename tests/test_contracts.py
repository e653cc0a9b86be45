"""The directions of imports hold, and what only training or public sets need is not loaded to score."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]

TRESPASSES = {
    "cond.py": "import anodiff.nets.unet",  # upwards
    "detect/pool.py": "import anodiff.data.image",
    "train/plan.py": "import anodiff.codec.pixel",
    "report/table.py": "import torch",
    "metrics/curve.py": "import torch",
    "config/schema.py": "import numpy",
    "codec/pixel.py": "import lightning",
    "data/table.py": "import anomalib",
    "artefact.py": "import anodiff.interop.weights",
}
"""One a contract, in the order in which pyproject.toml has them."""


def judged(checkout: Path) -> dict[str, str]:
    """KEPT or BROKEN of every contract, for the package in `checkout`."""
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [str(program), "--no-logo", "--no-cache"],
        cwd=checkout,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "400"},  # names are not wrapped
    )
    found = re.findall(r"^(.+?) (KEPT|BROKEN)\b", done.stdout, flags=re.MULTILINE)
    assert done.returncode == int("BROKEN" in dict(found).values()), done.stdout + done.stderr
    return dict(found)


def copy(folder: Path) -> Path:
    """The package and its contracts somewhere else, where a cache does no harm."""
    shutil.copytree(ROOT / "anodiff", folder / "anodiff", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.mark.xdist_group("contracts")
def test_every_contract_is_kept(tmp_path: Path) -> None:
    assert judged(copy(tmp_path)) == {contract["name"]: "KEPT" for contract in CONTRACTS}


@pytest.mark.xdist_group("contracts")
def test_every_contract_can_be_broken(tmp_path: Path) -> None:
    checkout = copy(tmp_path)
    for name, line in TRESPASSES.items():
        file = checkout / "anodiff" / name
        file.write_text(f"{file.read_text('utf-8')}\n{line}\n", "utf-8")
    assert judged(checkout) == {contract["name"]: "BROKEN" for contract in CONTRACTS}


def test_scoring_loads_neither_lightning_nor_anomalib() -> None:
    code = (
        "import sys, numpy\n"
        "import anodiff.detector\n"
        "from anodiff import compose, config, scoring\n"
        "tiny = config.load(preset='tiny')\n"
        "predictor = compose.predictor(tiny, target_fpr=0.05, shape=(64, 64), weights=compose.LEARNT)\n"
        "print([name for name in ('lightning', 'pytorch_lightning', 'anomalib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
