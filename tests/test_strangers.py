"""Good pictures kept from the networks, and when they are worth it."""

from __future__ import annotations

import numpy as np
import pytest

from anodiff.config import load
from anodiff.fitting import STRANGERS, _divided
from anodiff.gather import gather


def good(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(count)]


@pytest.mark.parametrize(
    ("fuse", "count", "apart"), [("mean", 200, False), ("fisher", 40, True), ("agreement", 40, False),
                                 ("agreement", 200, True)],
)  # fmt: skip
def test_strangers_are_kept_where_they_are_worth_their_pictures(fuse, count, apart) -> None:
    config = load(preset="features", overrides=[f"score.fuse={fuse}"])
    gathered = gather(good(count), config)
    kept, strangers = _divided(config, gathered)
    if not apart:
        assert strangers is None
        assert kept is gathered
        return
    assert strangers is not None
    assert len(kept.train) + len(strangers.train) == len(gathered.train)
    assert (
        STRANGERS / 3 < len(strangers.train) / len(gathered.train) < 3 * STRANGERS
    )  # by a hash of the content
