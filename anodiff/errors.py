"""Errors a person can act on, each with the exit code of its kind."""

from __future__ import annotations


class AnodiffError(Exception):
    """A mistake that is not a bug; its message says what was expected, what came and what to do."""

    exit_code = 1


class ConfigError(AnodiffError, ValueError):
    """A wrong option, configuration key or combination of them (exit code 2)."""

    exit_code = 2


class DataError(AnodiffError, ValueError):
    """A missing, empty or unreadable picture, folder or table (exit code 3)."""

    exit_code = 3


class ModelFileError(AnodiffError):
    """A model file that is missing, damaged, foreign or of another version (exit code 4)."""

    exit_code = 4


class DeviceError(AnodiffError):
    """A device that is absent, full or not able to do what was asked (exit code 5)."""

    exit_code = 5


class MissingExtraError(AnodiffError, ImportError):
    """An optional package that is not installed (exit code 6)."""

    exit_code = 6

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional package: pip install 'anodiff[{extra}]'")


class TrainingError(AnodiffError):
    """A training run that cannot go on, such as a loss that is not a number (exit code 2)."""

    exit_code = 2


class RefusalError(AnodiffError, TypeError):
    """A combination that has no meaning, refused by a stated promise of its parts (exit code 2)."""

    exit_code = 2


class GateError(AnodiffError):
    """A quality gate that was not reached (exit code 12)."""

    exit_code = 12
