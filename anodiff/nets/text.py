"""Words as tokens: the text encoder that is trained with the model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anodiff.errors import ConfigError
from anodiff.nets.sequence import SequenceEncoder


class TextEncoder(nn.Module):
    """The numbers of a text's words as tokens for cross-attention.

    `tokens = encoder(word[w_i] + position[i])`, both tables learnt. Number 0 is padding: no token sees it, and what
    stands in its place is zero. Source: Rombach et al., arXiv:2112.10752, section 4.3.1: a transformer that is
    trained together with the U-Net.
    """

    def __init__(self, vocabulary: int, channels: int, depth: int, heads: int, length: int) -> None:
        """Build the layers.

        Args:
            vocabulary: How many numbers there are, 0 among them.
            channels: Of a token.
            depth: Layers of the transformer.
            heads: Of each; they divide the channels.
            length: The most words of a text.

        Raises:
            ConfigError: a number is too small, or the heads do not divide the channels.
        """
        super().__init__()
        if vocabulary < 2 or length < 1:
            raise ConfigError(
                f"a text encoder needs a vocabulary of 2 (padding is one of them) and a length of 1 at least, "
                f"got vocabulary={vocabulary} and length={length}"
            )
        self.vocabulary = vocabulary
        self.channels = channels
        self.length = length
        self.word = nn.Embedding(vocabulary, channels, padding_idx=0)
        self.position = nn.Parameter(0.1 * torch.randn(length, channels))
        self.encoder = SequenceEncoder(channels, depth=depth, heads=heads)

    def forward(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens `[B, L, channels]` and the mask `[B, L]`, True where a word is.

        A row's tokens depend on its own words alone; more padding behind them changes nothing but L.

        Args:
            words: `[B, L]` int64 in `[0, vocabulary)`, 0 = padding; L is at most `length`.

        Raises:
            ConfigError: there are more words than `length`, they are not whole numbers in two dimensions, or (on the
                CPU, where looking is free) one is not in the vocabulary.
        """
        self._check(words)
        words = words.long().to(self.word.weight.device)
        mask = words != 0  # [B, L]
        h = self.word(words) + self.position[: words.shape[1]]  # [B, L, channels]
        return self.encoder(h, mask), mask

    def _check(self, words: Tensor) -> None:
        if words.ndim != 2 or words.is_floating_point() or words.dtype == torch.bool:
            raise ConfigError(
                f"expected words of shape [B, L] in whole numbers, got {list(words.shape)} of "
                f"{str(words.dtype).removeprefix('torch.')}"
            )
        if words.shape[1] > self.length:
            raise ConfigError(
                f"this text encoder reads {self.length} words at most, got {words.shape[1]}: shorten the text, "
                "or train a model with a longer tokens.length"
            )
        if words.device.type != "cpu":
            return
        if bad := words[(words < 0) | (words >= self.vocabulary)].tolist():
            raise ConfigError(
                f"this text encoder knows the words 0 to {self.vocabulary - 1}, got {bad[0]}: "
                "number the text with the vocabulary that the model was trained with"
            )
