"""Finds what is not normal in pictures with diffusion models trained on good parts only.

The names below are loaded when they are first used, so that importing the package costs next to nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
