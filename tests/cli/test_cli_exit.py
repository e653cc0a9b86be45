"""From how a verb ended to an exit code and a message."""

from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from anodiff import errors
from anodiff.cli.exit import guarded
from anodiff.errors import AnodiffError


def outcome(raised: BaseException, *, debug: bool = False) -> int:
    def verb(_: argparse.Namespace) -> int:
        raise raised

    return guarded(verb, argparse.Namespace(debug=debug))


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("ConfigError", 2),
        ("RefusalError", 2),
        ("TrainingError", 2),
        ("DataError", 3),
        ("ModelFileError", 4),
        ("DeviceError", 5),
        ("GateError", 12),
    ],
)
def test_each_error_has_its_code(kind: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(getattr(errors, kind)("expected this, got that, do so")) == code
    assert capsys.readouterr().err == "error: expected this, got that, do so\n"


def test_a_missing_extra_gives_the_line_to_install_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(errors.MissingExtraError("ELPV", "elpv")) == 6
    assert "pip install 'anodiff[elpv]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
        ),
    ],
)
def test_out_of_memory_says_what_to_make_smaller(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(error) == 5
    assert "smaller --batch" in capsys.readouterr().err


def test_a_real_lack_of_memory_is_recognised(capsys: pytest.CaptureFixture[str]) -> None:
    def verb(_: argparse.Namespace) -> int:
        torch.empty(2**60, dtype=torch.uint8)
        return 0

    assert guarded(verb, argparse.Namespace()) == 5
    assert "Out of memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [(errno.ENOSPC, 5, "The disk is full"), (errno.EROFS, 2, "cannot be written"), (errno.EIO, 1, "bug")],
)
def test_errors_of_the_disk_deep_inside(
    number: int, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(OSError(number, os.strerror(number), "runs/a/model.anodiff")) == code
    assert says in capsys.readouterr().err


def test_a_bug_is_called_one_and_debug_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(ZeroDivisionError("division by zero")) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "This is a bug in anodiff: ZeroDivisionError: division by zero (test_cli_exit.py, line" in said
    assert outcome(ZeroDivisionError("division by zero"), debug=True) == 1
    assert "Traceback" in capsys.readouterr().err


def test_interruption_is_130_and_passes_its_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(KeyboardInterrupt("interrupted; checkpoint saved in R/checkpoints")) == 130
    assert "checkpoint saved in R/checkpoints" in capsys.readouterr().err
    assert outcome(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def _warn(where: str) -> Callable[[argparse.Namespace], int]:
    def verb(_: argparse.Namespace) -> int:
        warnings.warn_explicit("one picture only", UserWarning, where, 1)
        return 0

    return verb


def test_our_warnings_are_sentences_and_those_of_libraries_are_silent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    import anodiff

    warnings.simplefilter("always")
    assert guarded(_warn(f"{Path(anodiff.__file__).parent}/data/index.py"), argparse.Namespace()) == 0
    assert capsys.readouterr().err == "warning: one picture only\n"
    assert guarded(_warn("/lib/kornia/x.py"), argparse.Namespace()) == 0
    assert capsys.readouterr().err == ""
    assert guarded(_warn("/lib/kornia/x.py"), argparse.Namespace(debug=True)) == 0
    assert "kornia" in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = "import sys; from anodiff.cli.main import main; sys.exit(main(['config', 'schema']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()  # before anything is written
    assert process.stderr.read() == ""
    assert process.wait() == 0


def test_usage_errors_are_2(capsys: pytest.CaptureFixture[str]) -> None:
    from anodiff.cli.main import main

    for words in ([], ["paint"], ["fit"], ["fit", "x", "-o", "y", "--max-time", "soon"], ["score", "m"]):
        assert main(words) == 2
    assert "expected a span of time such as 90s, 5m or 1h30m, got 'soon'" in capsys.readouterr().err


def test_every_error_class_has_a_code_of_the_table() -> None:
    codes = {kind.exit_code for kind in AnodiffError.__subclasses__()}
    assert codes <= {2, 3, 4, 5, 6, 12}
