"""A batch of pictures whose codes are there already."""

from __future__ import annotations

from torch import Tensor

from anodiff.codec.protocol import Codec
from anodiff.errors import ConfigError


class Encoded:
    """A codec that has encoded the batch at hand already, so that nobody encodes it again."""

    def __init__(self, inner: Codec, z: Tensor) -> None:
        self.inner = inner
        self.z = z  # [B, c, h, w]
        self.paints, self.bounded = inner.paints, inner.bounded

    @property
    def channels(self) -> int:
        """As the inner codec."""
        return self.inner.channels

    @property
    def stride(self) -> int:
        """As the inner codec."""
        return self.inner.stride

    def encode(self, image: Tensor) -> Tensor:
        """The code of the batch at hand, whose pictures alone may be asked about.

        Raises:
            ConfigError: another number of pictures.
        """
        if len(image) != len(self.z):
            raise ConfigError(
                f"Expected the {len(self.z)} pictures that were encoded, got {len(image)}: a scorer whose code "
                "is shared may encode the pictures it is given, and no others."
            )
        return self.z

    def decode(self, z: Tensor) -> Tensor:
        """As the inner codec."""
        return self.inner.decode(z)

    def shrink(self, mask: Tensor) -> Tensor:
        """As the inner codec."""
        return self.inner.shrink(mask)
