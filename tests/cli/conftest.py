"""A way to call the command in this process."""

from __future__ import annotations

import pytest
from cli_pictures import Command, Said

from anodiff.cli.main import main


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
