"""What a row is told beside its label: words, boxes, a picture; made by the caller, stacked and checked here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from anodiff.errors import ConfigError, DataError

Told = Callable[[int, int], Mapping[str, Tensor]]
"""(row, seed) -> the fields of `Cond` of that row, without the batch dimension.

`seed` is the one that `Items.item(row, seed)` is given for the same row of the same step, so that what is told can be
made from the very picture, augmented alike. A pure function of both, or a resumed run is another run.
"""

FIELDS = {
    "words": "[L] int64",
    "boxes": "[N, 5]",
    "tokens": "[L, D]",
    "token_mask": "[L] bool",
    "image": "[C, h, w]",
}
"""The fields of `Cond` that a row can be told, and their shapes."""

LOOKED = 64
"""Rows, evenly chosen, that are looked at before a run; the others are when their step comes."""


def check_told(told: Told, rows: int, seed_of: Callable[[int], int]) -> None:
    """Nothing, when what up to `LOOKED` of the rows are told can be stacked and has fields that a row can be told.

    Args:
        told: what a row is told.
        rows: how many rows there are.
        seed_of: row -> a seed for `told`.

    Raises:
        ConfigError: a field that no row can be told, or none at all.
        DataError: a field of another shape or type than it has, or rows that are told unlike things.
    """
    every = -(-rows // LOOKED)
    chosen = range(0, rows, every)
    found = [told(row, seed_of(row)) for row in chosen]
    for row, fields in zip(chosen, found, strict=True):
        _check_fields(row, fields)
    stacked(found, chosen)


def stacked(found: Sequence[Mapping[str, Tensor]], rows: Sequence[int]) -> dict[str, Tensor]:
    """The fields of several rows as one batch, each [B, ...]; `rows` are their numbers.

    Raises:
        DataError: two rows are told other fields, or fields of other shapes or types.
    """
    first = found[0]
    for row, fields in zip(rows, found, strict=True):
        if _form(fields) != _form(first):
            raise DataError(
                f"all rows must be told the same fields in the same shapes, but row {rows[0]} is told "
                f"{_said(first)} and row {row} {_said(fields)}; pad what is shorter, and resize pictures"
            )
    return {name: torch.stack([fields[name] for fields in found]) for name in first}


def _check_fields(row: int, fields: Mapping[str, Tensor]) -> None:
    unknown = sorted(fields.keys() - FIELDS.keys())
    if unknown or not fields:
        raise ConfigError(
            f"a row can be told {', '.join(FIELDS)}, but row {row} is told {', '.join(unknown) or 'nothing'}; "
            "a class goes into labels"
        )
    for name, value in fields.items():
        fits = isinstance(value, Tensor) and {
            "words": value.ndim == 1 and value.dtype == torch.int64,
            "boxes": value.ndim == 2 and value.shape[-1] == 5 and value.is_floating_point(),
            "tokens": value.ndim == 2 and value.is_floating_point(),
            "token_mask": value.ndim == 1 and value.dtype == torch.bool,
            "image": value.ndim == 3 and value.is_floating_point(),
        }.get(name)
        if not fits:
            what = _of(value) if isinstance(value, Tensor) else repr(value)
            raise DataError(f"{name} of a row are {FIELDS[name]}, but row {row} is told {what}")


def _form(fields: Mapping[str, Tensor]) -> dict[str, object]:
    return {name: (value.shape, value.dtype) for name, value in fields.items()}


def _of(value: Tensor) -> str:
    return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"


def _said(fields: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {_of(value)}" for name, value in fields.items()) or "nothing"
