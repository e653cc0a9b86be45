"""Edits of attention: what one picture of a pair looked at, carried over to the other (prompt-to-prompt).

Each is an `AttentionEdit`, `(probs [B, heads, N, L], place, sigma [B]) -> probs`, for `Cond.edit`. The rows of a batch
are pairs: the first half are the sources, the second half, in the same order, the targets, which start from the same
noise and are told another text. Sources are never changed. The paper counts the steps in which it edits; here the
window is one of noise levels, both ends inside, so that it means the same on every grid.

A word's weight is `Cond.token_gain`. Source: Hertz 2022, arXiv:2208.01626 section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from anodiff.cond import AttentionEdit
from anodiff.errors import ConfigError, RefusalError


@dataclass(frozen=True, eq=False)
class Replace:
    """The target's cross-attention is the source's while `low <= sigma <= high`: a word swapped for another.

    Without an alignment the source's map is taken place by place, for texts of equally many pieces. With one,
    `M[j] = M_source[A(j)] / n`, n the number of places that share `A(j)`, and nothing where there is no `A(j)`.

    Args:
        low: lowest noise level of the window.
        high: highest.
        alignment: A, [L] for all pairs or [pairs, L], the source's place of every place of the target, -1 = none.

    Raises:
        ConfigError: `low` above `high`.
        RefusalError: an odd number of rows.
    """

    low: float
    high: float
    alignment: Tensor | None = None

    def __call__(self, probs: Tensor, place: str, sigma: Tensor) -> Tensor:
        """The probabilities [B, heads, N, L] with the targets' replaced."""
        if not place.endswith(".cross"):
            return probs
        source, target = halves(probs)
        if self.alignment is None:
            moved = source
        else:
            moved, mapped = _aligned(source, self.alignment)
            moved = moved * mapped
        return torch.cat((source, torch.where(_window(self, sigma), moved, target)))


@dataclass(frozen=True, eq=False)
class Refine:
    """Words that both texts have look where the source's do, new ones where they will, while `low <= sigma <= high`.

    `M[j] = M_source[A(j)] / n` where the alignment has an `A(j)`, n the number of places that share it; the target's
    own elsewhere. A position's probabilities then no longer add up to 1, as in the paper.

    Args:
        low: lowest noise level of the window.
        high: highest.
        alignment: A, [L] for all pairs or [pairs, L], the source's place of every place of the target, -1 = none.

    Raises:
        ConfigError: `low` above `high`.
        RefusalError: an odd number of rows.
    """

    low: float
    high: float
    alignment: Tensor

    def __call__(self, probs: Tensor, place: str, sigma: Tensor) -> Tensor:
        """The probabilities [B, heads, N, L] with the targets' refined."""
        if not place.endswith(".cross"):
            return probs
        source, target = halves(probs)
        moved, mapped = _aligned(source, self.alignment)
        return torch.cat((source, torch.where(_window(self, sigma) & mapped, moved, target)))


@dataclass(frozen=True, eq=False)
class KeepShape:
    """The target's self-attention is the source's while `low <= sigma <= high`, on coarse maps: the shape of things.

    Args:
        low: lowest noise level of the window.
        high: highest.
        most: positions of the largest map it is done on; finer ones are left to the target.

    Raises:
        ConfigError: `low` above `high`.
        RefusalError: an odd number of rows.
    """

    low: float
    high: float
    most: int = 256

    def __call__(self, probs: Tensor, place: str, sigma: Tensor) -> Tensor:
        """The probabilities [B, heads, N, N] with the targets' replaced."""
        if not place.endswith(".self") or probs.shape[-2] > self.most:
            return probs
        source, target = halves(probs)
        return torch.cat((source, torch.where(_window(self, sigma), source, target)))


class Both:
    """Several edits, one after the other."""

    def __init__(self, *edits: AttentionEdit) -> None:
        self.edits = edits

    def __call__(self, probs: Tensor, place: str, sigma: Tensor) -> Tensor:
        """The probabilities after the last edit."""
        for edit in self.edits:
            probs = edit(probs, place, sigma)
        return probs


class Recorder:
    """An edit that changes nothing and keeps where words look: the mean of cross-attention over heads and calls.

    It sees what edits before it (`Both`) have made of the probabilities. One recorder serves one walk of one batch.

    Args:
        shape: (h, w) of what the network is fed; the sides of a coarser map follow from its number of positions.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self._seen: dict[int, tuple[Tensor, int]] = {}  # N -> sum over calls [B, N, L] and their number

    def __call__(self, probs: Tensor, place: str, sigma: Tensor) -> Tensor:
        """The probabilities as they came.

        Raises:
            RefusalError: another number of rows than before.
        """
        if not place.endswith(".cross"):
            return probs
        seen = probs.detach().float().mean(1)  # [B, N, L]
        total, calls = self._seen.get(seen.shape[1], (torch.zeros_like(seen), 0))
        if total.shape != seen.shape:
            raise RefusalError(
                f"a recorder keeps one walk of one batch: it saw {total.shape[0]} rows of {total.shape[2]} tokens and "
                f"was shown {seen.shape[0]} of {seen.shape[2]}; make another recorder"
            )
        self._seen[seen.shape[1]] = total + seen, calls + 1
        return probs

    def maps(self, words: Sequence[Sequence[int]]) -> Tensor:
        """Where each row's word looks, [B, 1, h, w] in [0, 1]; the largest value of a row is 1.

        The probabilities of the word's places are added up, averaged over heads and calls, then over the sizes of maps
        (each brought to h x w bilinearly), and divided by the row's maximum.

        Args:
            words: for each row the places of its word in the row of tokens; a row without any has a map of zeros.

        Raises:
            RefusalError: nothing was recorded, or another number of rows.
        """
        if not self._seen:
            raise RefusalError(
                "no cross-attention was recorded: put the recorder into Cond.edit of a model that reads words"
            )
        sizes = [(total / calls, count) for count, (total, calls) in self._seen.items()]
        first = sizes[0][0]
        if len(words) != first.shape[0]:
            raise RefusalError(f"expected the places of a word for {first.shape[0]} rows, got {len(words)}")
        chosen = torch.zeros(len(words), first.shape[2], 1)  # [B, L, 1]
        for row, places in enumerate(words):
            chosen[row, list(places)] = 1
        chosen = chosen.to(first.device)
        maps = []
        for mean, count in sizes:
            small = (mean @ chosen).reshape(len(words), 1, *sides(count, self.shape))  # [B, 1, h', w']
            maps.append(F.interpolate(small, self.shape, mode="bilinear", align_corners=False))
        whole = torch.stack(maps).mean(0)  # [B, 1, h, w]
        return whole / whole.amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(whole.dtype).tiny)


def halves(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The sources and the targets of a batch of pairs, [B / 2, ...] each.

    Raises:
        RefusalError: an odd number of rows.
    """
    if rows.shape[0] % 2:
        raise RefusalError(
            f"an edit works on pairs, the sources in the first half of the batch and their targets in the second, "
            f"got {rows.shape[0]} rows"
        )
    source, target = rows.chunk(2)
    return source, target


def sides(positions: int, shape: tuple[int, int]) -> tuple[int, int]:
    """The height and width of a map with so many positions, the two whose ratio is nearest to that of `shape`.

    Raises:
        RefusalError: the nearest ratio is off by a factor of 2 or more: the map is not one of this shape.
    """
    height, width = shape
    found = [(n, positions // n) for n in range(1, positions + 1) if positions % n == 0]
    off = [abs(math.log(h / w * width / height)) for h, w in found]
    if not found or min(off) >= math.log(2):
        raise RefusalError(
            f"a map of {positions} positions is none of a network fed with {height} x {width}: give the recorder the "
            "height and width of the code that the network sees"
        )
    return found[off.index(min(off))]


def _window(edit: Replace | Refine | KeepShape, sigma: Tensor) -> Tensor:
    """Where the targets' noise level lies in an edit's window, [B / 2, 1, 1, 1] bool."""
    if not edit.low <= edit.high:
        raise ConfigError(
            f"a window of noise levels goes from low up to high, got low={edit.low} and high={edit.high}"
        )
    _, level = halves(sigma)
    return ((level >= edit.low) & (level <= edit.high)).reshape(-1, 1, 1, 1)


def _aligned(source: Tensor, alignment: Tensor) -> tuple[Tensor, Tensor]:
    """`M_source[A(j)] / n` [P, heads, N, L], and where there is an `A(j)` [P or 1, 1, 1, L] bool."""
    a = alignment.to(source.device, non_blocking=True)
    a = a.reshape(-1, a.shape[-1])  # [P or 1, L]
    if a.shape[1] != source.shape[3] or a.shape[0] not in (1, source.shape[0]):
        raise RefusalError(
            f"an alignment has an entry for each of the {source.shape[3]} tokens, for all or each of "
            f"{source.shape[0]} pairs, got shape {list(alignment.shape)}"
        )
    mapped, index = a >= 0, a.clamp(min=0)
    sharing = torch.zeros_like(a).scatter_add_(1, index, mapped.long())  # [P or 1, L] by the source's place
    share = 1 / sharing.gather(1, index).clamp(min=1)  # [P or 1, L]
    moved = source.gather(3, index[:, None, None].expand(source.shape))
    return moved * share[:, None, None].to(source.dtype), mapped[:, None, None]
