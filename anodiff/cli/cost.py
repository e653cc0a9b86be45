"""What a picture costs, in words."""

from __future__ import annotations


def spoken(evaluations: int, opinions: int) -> str:
    """The evaluations a picture of a model that asks its discriminator too."""
    plural = "" if evaluations == 1 else "s"
    return f"{evaluations} evaluation{plural} of the generator and {opinions} of the discriminator a picture"
