"""The same picture, or the same part, in two places."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from anodiff.data.decode import decode, header
from anodiff.data.image import to_unit
from anodiff.data.table import rows_where
from anodiff.errors import DataError

NEAR = 0.06
"""Distance below which two pictures pass for the same part; see `duplicates`."""

_SIDE = 32  # pixels of a thumbnail's side
_FLOOR = 1e-2  # of a thumbnail's length: below it, what is left is noise
_BLOCK = 512

PAIR_COLUMNS = ("kind", "image_a", "image_b", "distance", "split_a", "split_b")


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What duplicates are found by, and the facts of the file that come with reading it."""

    digest: str  # of shape, type and pixels
    thumbnail: np.ndarray  # [1024] of length 1, or 0 for an even picture
    height: int
    width: int
    channels: int
    bits: int


def fingerprints(paths: Iterable[str]) -> dict[str, Fingerprint | DataError]:
    """A fingerprint a picture, or the error of the picture that cannot be read.

    The thumbnail is the logarithm of the grey picture, 32 x 32, less its mean, scaled to length 1: the exposure is a
    factor on the pixels, so a summand in the logarithm, and drops out.
    """
    return {path: _fingerprint(path) for path in dict.fromkeys(paths)}


def duplicates(
    table: pd.DataFrame, *, near: float = NEAR, prints: Mapping[str, Fingerprint | DataError] | None = None
) -> pd.DataFrame:
    """Pairs of pictures that show the same: columns kind, image_a, image_b, distance, split_a, split_b.

    Exact: the same pixels, whatever the file. Each copy is paired once, with a training picture where there is one.
    Near: within a category, `distance = 1 - corr(a - m, b - m)` of thumbnails is at most `near`, where m is the mean of
    all *other* pictures of the category. Without m, any two pictures of an aligned part would be alike. Of
    two pictures alone there is no m, and the limit is a twentieth.

    Args:
        table: as `index` gives it.
        near: largest distance of a near pair; 0 finds exact ones only.
        prints: of `fingerprints`, when they are at hand; unreadable pictures are passed over.
    """
    prints = fingerprints(table["image"]) if prints is None else prints
    split = dict(zip(table["image"], table["split"], strict=True))
    good = {path: found for path in split if isinstance(found := prints[path], Fingerprint)}
    pairs = [("exact", a, b, 0.0) for a, b in _exact(good, split)]
    if near > 0:
        for _, part in table.groupby("category", sort=True):
            paths = [path for path in dict.fromkeys(part["image"]) if path in good]
            pairs += [
                ("near", a, b, distance)
                for a, b, distance in _near(paths, np.array([good[path].thumbnail for path in paths]), near)
                if good[a].digest != good[b].digest
            ]
    rows = [(kind, a, b, distance, split[a], split[b]) for kind, a, b, distance in pairs]
    return pd.DataFrame(rows, columns=list(PAIR_COLUMNS))


def leaks(pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs with one picture in train and the other in test: what makes a test easier than the world."""
    sides = [{a, b} == {"train", "test"} for a, b in zip(pairs["split_a"], pairs["split_b"], strict=True)]
    return rows_where(pairs, sides)


def grouped(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """The table with `group` set so that pictures linked by a pair, or by a group they had, are in one group.

    Linked means directly or through others, so a few wrong pairs can chain many parts into one group: a division
    by such groups stays clean but gets coarse. Pairs of a smaller `near` chain less. Every picture gets a group,
    "0", "1", ... in the order of the table.
    """
    place = {path: i for i, path in enumerate(table["image"])}
    links = [(place[a], place[b]) for a, b in zip(pairs["image_a"], pairs["image_b"], strict=True)]
    first: dict[object, int] = {}
    for i, group in enumerate(table["group"]):
        if not pd.isna(group):
            links.append((first.setdefault(group, i), i))
    ends = np.array(links, dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(table), len(table)))
    _, names = connected_components(graph, directed=False)
    order = {name: str(i) for i, name in enumerate(dict.fromkeys(names.tolist()))}
    return table.assign(
        group=pd.Series([order[name] for name in names.tolist()], index=table.index, dtype=object)
    )


def _fingerprint(path: str) -> Fingerprint | DataError:
    try:
        facts, array = header(path), decode(path)
        unit = to_unit(array).mean(axis=2)  # [H, W]
    except DataError as error:
        return error
    digest = hashlib.blake2b(
        f"{array.shape}{array.dtype}".encode() + array.tobytes(), digest_size=16
    ).hexdigest()
    small = np.log(cv2.resize(unit, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).ravel() + 0.02)
    small = (small - small.mean()).astype(np.float64)
    length = float(np.linalg.norm(small))
    return Fingerprint(
        digest=digest,
        thumbnail=small / length if length > 1e-6 else np.zeros_like(small),
        height=array.shape[0],
        width=array.shape[1],
        channels=1 if array.ndim == 2 else array.shape[2],
        bits=facts.bits,
    )


def _exact(good: Mapping[str, Fingerprint], split: Mapping[str, str]) -> list[tuple[str, str]]:
    copies: dict[str, list[str]] = {}
    for path in sorted(good, key=lambda path: split[path] != "train"):
        copies.setdefault(good[path].digest, []).append(path)
    return [(paths[0], other) for paths in copies.values() for other in paths[1:]]


def _near(paths: list[str], x: np.ndarray, near: float) -> list[tuple[str, str, float]]:
    """Pairs by 1 - correlation about the mean of all others; x [n, 1024].

    With S the sum of all rows, m = (S - a - b) / (n - 2); every product of a - m and b - m follows from a.b, a.S, S.S.
    """
    n = len(paths)
    if n < 2:
        return []
    near, share = (near, 1.0 / (n - 2)) if n > 2 else (near / 20, 0.0)
    total = x.sum(axis=0)
    own, to_total, of_total = (x * x).sum(axis=1), x @ total, float(total @ total)
    found = []
    for start in range(0, n, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, n))
        ab = x[rows] @ x.T  # [block, n]
        aa, bb, a_s, b_s = own[rows, None], own[None], to_total[rows, None], to_total[None]
        am, bm = share * (a_s - aa - ab), share * (b_s - ab - bb)
        mm = share**2 * (of_total + aa + bb - 2 * a_s - 2 * b_s + 2 * ab)
        floor = _FLOOR**2
        length_a, length_b = (np.sqrt(np.maximum(v, 0) + floor) for v in (aa - 2 * am + mm, bb - 2 * bm + mm))
        distance = np.maximum(1 - (ab - am - bm + mm + floor) / (length_a * length_b), 0.0)
        hits = np.argwhere((distance <= near) & (np.arange(n)[None] > rows[:, None]))
        found += [(paths[rows[i]], paths[j], float(distance[i, j])) for i, j in hits]
    return found
