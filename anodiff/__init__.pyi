from .detect.result import Result
from .detector import Detector, load
from .errors import (
    AnodiffError,
    ConfigError,
    DataError,
    DeviceError,
    GateError,
    MissingExtraError,
    ModelFileError,
    RefusalError,
    TrainingError,
)
from .version import __version__

__all__ = [
    "AnodiffError",
    "ConfigError",
    "DataError",
    "Detector",
    "DeviceError",
    "GateError",
    "MissingExtraError",
    "ModelFileError",
    "RefusalError",
    "Result",
    "TrainingError",
    "__version__",
    "load",
]
