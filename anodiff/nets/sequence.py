"""A transformer over a sequence of which some places may be empty."""

from __future__ import annotations

from torch import Tensor, nn

from anodiff.errors import ConfigError


class SequenceEncoder(nn.Module):
    """Pre-norm transformer layers over the real places of a sequence, and a last LayerNorm.

    Each layer is multi-head self-attention and a feed-forward of four times the channels with a GELU, both after a
    LayerNorm and added to their input (arXiv:1706.03762, section 3; arXiv:2002.04745 for the norms' place). There is
    no dropout and no position of its own.
    """

    def __init__(self, channels: int, *, depth: int, heads: int) -> None:
        """Build the layers.

        Args:
            channels: Of a token.
            depth: Number of layers; 0 leaves the norm alone.
            heads: Of each; they divide the channels.

        Raises:
            ConfigError: they do not, or a number is too small.
        """
        super().__init__()
        if min(channels, heads) < 1 or depth < 0 or channels % heads:
            raise ConfigError(
                f"an encoder of tokens needs heads that divide its channels and no depth below 0, got "
                f"channels={channels}, heads={heads} and depth={depth}: change either"
            )
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                channels,
                heads,
                dim_feedforward=4 * channels,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(channels)

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        """The tokens `[B, L, C]`; zeros where nothing is.

        A token depends on the real ones of its own row alone.

        Args:
            h: `[B, L, C]`.
            mask: `[B, L]` True where a token is real. A row may be without any, and L may be 0.
        """
        # PyTorch's way without gradients makes a softmax over nothing no number; such a row sees its empty places.
        hidden = ~mask & mask.any(dim=1, keepdim=True)  # [B, L]
        for layer in self.layers if h.shape[1] else ():  # PyTorch's do not take a sequence of no length
            h = layer(h, src_key_padding_mask=hidden)
        return self.norm(h).masked_fill(~mask[..., None], 0.0)
