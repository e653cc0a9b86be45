"""Evidence marked by a learnt head, beside the evidence it was fed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anodiff.cond import Cond
from anodiff.detect.encoded import Encoded
from anodiff.detect.restore import Model
from anodiff.detect.scorer import Maps, Observation, Observations, Parts, Scorer
from anodiff.detect.surprise import Surprise
from anodiff.errors import ConfigError

SURE = 20.0
"""Logits beyond this say nothing more, and their odds stay within float32 and what `Surprise` can tell apart."""


class Headed(Scorer):
    """Another scorer's map, and a head's marks on what that one observed, both as surprises; codec resolution.

        odds = exp(head(evidence))          evidence = the inner scorer's parts and the code z, channels joined
        map = (inner + weight * surprise(odds)) / (1 + weight)

    The head has learnt on painted defects what defects look like, and never saw a real one: its odds are believed as
    far as they are rare on normals, not as they are. An observation has one more part, the code. The picture is encoded
    once, for both; the denoiser is asked no more often.

    Args:
        inner: a scorer whose parts are of the codec's resolution and whose map is a mean of surprises.
        head: evidence [B, c, h, w] -> logits [B, 1, h, w]. Whoever holds the scorer owns it, moves it and saves it: its
            weights are no part of this module.
        weight: of the head beside the inner scorer's 1; 0: the inner scorer's map alone.
    """

    def __init__(self, inner: Scorer, head: nn.Module, *, weight: float = 1.0) -> None:
        super().__init__()
        if weight < 0:
            raise ConfigError(f"Expected a weight of the head of 0 or above, got {weight}.")
        self.inner = inner
        self._head = (head,)  # in a tuple, where a module does not see a child
        self.share = weight / (1 + weight)
        self.width = inner.width + 1
        self.surprise = Surprise()

    @property
    def evaluations(self) -> int:
        """Those of the inner scorer."""
        return self.inner.evaluations

    @property
    def opinions(self) -> int:
        """Those of the inner scorer."""
        return self.inner.opinions

    def observe(self, model: Model, image: Tensor, cond: Cond) -> Observation:
        """What the inner scorer observes, and the code z [B, c, h, w] after it."""
        denoiser, codec = model
        z = codec.encode(image)  # [B, c, h, w]
        found = self.inner.observe((denoiser, Encoded(codec, z)), image, cond)
        return Observation((*found.parts, z), found.restored)

    def weigh(self, parts: Parts) -> Tensor:
        """The map [B, 1, h, w]."""
        return self.maps(parts).score

    @property
    def places(self) -> bool:
        """Whether the inner scorer has a map of its own that shows where; the head's marks count for that too."""
        return self.inner.places

    def maps(self, parts: Parts) -> Maps:
        """Both maps."""
        plain = self.inner.maps(parts[:-1])
        marks = self.surprise(self.odds(parts)) * self.share
        score = plain.score * (1 - self.share) + marks
        return Maps(score, plain.place * (1 - self.share) + marks if self.places else score)

    def learn(self, observations: Observations) -> None:
        """Teach the inner scorer, then what odds are usual; the head learns nothing here."""
        self.inner.learn(lambda: (parts[:-1] for parts in observations()))
        self.surprise.learn(self.odds(parts) for parts in observations())

    def temper(self, strangers: Observations) -> None:
        """Correct the inner scorer, then how far the head is believed."""
        self.inner.temper(lambda: (parts[:-1] for parts in strangers()))
        self.surprise.temper(self.odds(parts) for parts in strangers())

    def odds(self, parts: Parts) -> Tensor:
        """The head's odds of a defect at each place [B, 1, h, w], above 0."""
        (head,) = self._head
        return head(self.evidence(parts)).clamp(-SURE, SURE).exp()

    def evidence(self, parts: Parts) -> Tensor:
        """What the head is shown of an observation whose first parts are these, [B, c, h, w]."""
        return torch.cat(parts[: self.width], dim=1)
