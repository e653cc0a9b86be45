"""How good parts lie in their pictures, measured on these alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from anodiff.data.foreground import Foreground, foreground
from anodiff.data.image import to_unit
from anodiff.data.pose import Canvas, Pose, Turn, Upright, extents, placing, pose_of, warped

CLEAR = 0.95
"""The share of pictures in which a part must stand out before they are turned upright unasked."""

GAIN = 0.8
"""Pictures are turned upright unasked where that brings them nearer to each other than this, as they were being 1."""

MARGIN = 0.1
"""Around the part, over the longer side of its box."""

SLENDER = 3.0
"""The longer side of a canvas over the shorter, at most: what lies beside a thin part is looked at too."""

_FRAME = 48  # side of the pictures that are compared, px
_SURER = 0.95  # a less simple way is taken where it comes nearer than this
_REACH = 0.95  # share of the good parts that the canvas is measured on, the smaller ones


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What was seen of good pictures.

    Attributes:
        looked_at: how many pictures.
        clear: in how many of them a part stands out.
        before: median distance of a picture to the mean of the others, as they are; NaN where fewer than two are clear.
        after: the same with each part in the middle and upright.
        upright: the pose to bring parts to; None where fewer than two are clear.
        doubt: why the angle means little, where it does.
    """

    looked_at: int
    clear: int
    before: float
    after: float
    upright: Upright | None
    doubt: str | None = None

    @property
    def helps(self) -> bool:
        """Whether pictures become clearly more alike, and nearly all of them show a part."""
        return self.clear >= CLEAR * self.looked_at and self.after < GAIN * self.before

    @property
    def sentence(self) -> str:
        """What was found, with the figures."""
        if self.upright is None:
            return (
                f"a part stands out from its ground in {self.clear} of {self.looked_at} pictures, too few to say "
                "how parts lie"
            )
        how = {
            "none": "in the middle",
            "shape": "in the middle and upright by their outline",
            "look": "in the middle and upright by their look",
        }[self.upright.turn]
        return (
            f"a part stands out in {self.clear} of {self.looked_at} pictures; they differ by {self.before:.4f} as they "
            f"are and by {self.after:.4f} with parts {how}" + (f" ({self.doubt})" if self.doubt else "")
        )


def survey(pictures: Iterable[np.ndarray], *, turn: Turn | None = None, square: bool = False) -> Survey:
    """How the parts of good pictures lie.

    Each way to turn them (`pose.Turn`) is tried. The measure is the root mean square difference of a picture's small
    copy to the mean of all others', the median over pictures; both with and without moving the parts in frames of the
    same size and scale. The simplest way that comes within a twentieth of the best is taken.

    Args:
        pictures: H x W or H x W x C, as `image.read` gives them.
        turn: the way to turn them, where it is known already.
        square: make the canvas square.
    """
    found: list[Foreground] = []
    plain, looked_at = [], 0
    for picture in pictures:
        looked_at += 1
        part = foreground(to_unit(picture))
        if part is not None:
            found.append(part)
            plain.append(_frame(part, None))
    if len(found) < 2:
        return Survey(looked_at=looked_at, clear=len(found), before=math.nan, after=math.nan, upright=None)
    ways = _WAYS if turn is None else (turn,)
    tried: dict[Turn, tuple[float, list[Pose]]] = {}
    for way in ways:
        poses = [pose_of(part, way) for part in found]
        tried[way] = (
            _apart([_frame(part, pose) for part, pose in zip(found, poses, strict=True)]),
            poses,
        )
    least = min(distance for distance, _ in tried.values())
    chosen: Turn = next(way for way in ways if tried[way][0] * _SURER <= least)
    after, poses = tried[chosen]
    return Survey(
        looked_at=looked_at,
        clear=len(found),
        before=_apart(plain),
        after=after,
        upright=Upright(canvas=_canvas(found, poses, square=square), turn=chosen),
        doubt=_doubt(poses, chosen),
    )


_WAYS: tuple[Turn, ...] = ("none", "shape", "look")  # the simplest first


def _frame(part: Foreground, pose: Pose | None) -> np.ndarray:
    """A small copy [s, s, 3] in a square that holds the picture however it is turned; None leaves it as it is."""
    height, width = part.picture.shape[:2]
    scale = _FRAME / math.hypot(height, width)
    middle = (_FRAME / 2, _FRAME / 2)
    if pose is None:
        pose = Pose(angle=0.0, centre=(width / 2, height / 2), elongation=1.0, asymmetry=0.0)
    else:
        x, y = pose.centre
        small = x * width / part.size[1], y * height / part.size[0]
        pose = Pose(angle=pose.angle, centre=small, elongation=pose.elongation, asymmetry=pose.asymmetry)
    return warped(part.picture, placing(pose, scale=scale, target=middle), (_FRAME, _FRAME))


def _apart(frames: list[np.ndarray]) -> float:
    """The median distance of a picture to the mean of the others."""
    stack = np.stack(frames).reshape(len(frames), -1).astype(np.float64)  # [n, d]
    others = (stack.sum(axis=0) - stack) / (len(stack) - 1)
    return float(np.median(np.sqrt(((stack - others) ** 2).mean(axis=1))))


def _canvas(found: list[Foreground], poses: list[Pose], *, square: bool) -> Canvas:
    """What holds the upright parts with a margin around them."""
    reach = np.array([extents(part, pose) for part, pose in zip(found, poses, strict=True)])  # [n, 4]
    left, up, right, down = (float(side) for side in np.quantile(reach, _REACH, axis=0))
    high, wide = up + down, left + right
    margin = MARGIN * max(high, wide)
    least = (max(high, wide) + 2 * margin) / (1.0 if square else SLENDER)
    across = margin + max(0.0, least - wide - 2 * margin) / 2
    along = margin + max(0.0, least - high - 2 * margin) / 2
    sides = (left + across, up + along, right + across, down + along)
    return tuple(round(side, 4) for side in sides)  # type: ignore[return-value]


def _doubt(poses: list[Pose], turn: Turn) -> str | None:
    """Why the angle means little, said of the part in the middle of those in doubt; None where most are sure."""
    doubts = [doubt for pose in poses if (doubt := pose.doubt)]
    return doubts[len(doubts) // 2] if turn != "none" and 2 * len(doubts) > len(poses) else None
