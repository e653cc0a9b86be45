"""The configuration of a run, checked before anything heavy is loaded."""

from anodiff.config.load import dump, load, parse, presets
from anodiff.config.schema import RunConfig

__all__ = ["RunConfig", "dump", "load", "parse", "presets"]
