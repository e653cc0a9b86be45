"""The course of a head that marks painted defects: a descent without noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from anodiff.errors import ConfigError
from anodiff.train.descent import Descent
from anodiff.train.marked import Marked

if TYPE_CHECKING:
    from anodiff.train.source import Batch


class Marking(Descent):
    """A head that goes down its loss on evidence as it is: no noise levels, no noise.

    What a row is told as its `image` is how much of each of its places was painted, [1, h, w].
    """

    @property
    def ahead(self) -> bool:
        """No noise is drawn."""
        return False

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean loss of the rows of one step, []."""
        self.seeded()
        share = batch.conditions.get("image")
        if share is None:
            raise ConfigError(
                "a head learns which places of each row were painted, but the rows tell nothing; give told, a row -> "
                "{'image': the painted share of each place [1, h, w]}"
            )
        goal = self.objective
        assert isinstance(goal, Marked)
        loss = goal.loss(self.model, batch.z, share).mean()
        self.unread.append(loss.detach()[None])
        return loss
