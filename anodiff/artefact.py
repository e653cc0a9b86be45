"""The `.anodiff` file: one safetensors file whose header says what the model is; read without torch.

Layout (https://huggingface.co/docs/safetensors): 8 bytes with the length of the header, the header as JSON, the
tensors' bytes. Under the header's `__metadata__` stand three texts of ours:

| key | content |
|---|---|
| `anodiff` | JSON: `version`, `sha256` and all that was passed as `meta` (config, shape, provenance, ...) |
| `anodiff_sha256` | SHA-256 of that JSON text, so that no byte of the header changes unseen |
| `format` | "pt", as other readers of safetensors expect it |

`sha256` inside is that of the tensors: names, types, shapes and bytes, in the order of the names. `model_id` follows
from it and from the configuration alone, so two runs with the same outcome bear the same name, whenever they were made.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anodiff.atomic import replacing
from anodiff.errors import ModelFileError

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
"""Version of the layout that is written, and the newest one that is read."""

ENDING = ".anodiff"

_KEY, _CHECK = "anodiff", "anodiff_sha256"
_LENGTH = 8  # bytes before the header: its length, little-endian
_LONGEST = 100_000_000  # bytes of a header that safetensors accepts


def write(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Path:
    """The path of the model file just written, whole or not at all.

    A kill at any moment leaves the old file or the new one (`atomic.replacing`).

    Args:
        path: where to; the folder is made if needed.
        tensors: the state dict of the predictor, on any device.
        meta: plain values that JSON knows, NaN and infinity not among them. `version` and `sha256` are added.

    Raises:
        OSError: a full disk or a folder that cannot be written to; what was there stays.
    """
    from safetensors.torch import save

    path = Path(path)
    own = _own(tensors)
    about = {**meta, "version": VERSION, "sha256": sha256(own)}
    text = json.dumps(about, ensure_ascii=False, allow_nan=False, sort_keys=True)
    whole = save(own, metadata={_KEY: text, _CHECK: _sha(text.encode()), "format": "pt"})
    with replacing(path) as draft:
        draft.write_bytes(whole)
    return path


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a model file says about itself: `meta` as it was written, with `version` and `sha256`; no torch is loaded.

    The header is checked against its own SHA-256 and the file against the length the header states. The tensors are
    not read, so a flipped byte among them is found by `read` only.

    Raises:
        ModelFileError: a file that is missing, foreign, cut short, altered or of a newer version.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(_LENGTH)
            # a length that makes no sense is told from what the file begins with, so little is read of it
            head += file.read(min(int.from_bytes(head, "little"), _LONGEST))
    except OSError as error:
        raise ModelFileError(_unopened(path, error)) from None
    header, _ = _parsed(head, path, size=size)
    return _about(header, path)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a model file, on the CPU, and its `meta`; every byte of both is checked. No code in it is run.

    Raises:
        ModelFileError: a file that is missing, foreign, cut short, altered or of a newer version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ModelFileError(_unopened(path, error)) from None
    header, start = _parsed(raw, path)
    about = _about(header, path)
    try:
        sound = _digest(header, memoryview(raw)[start:]) == about["sha256"]
        tensors = load(raw) if sound else {}
    except (KeyError, TypeError, ValueError, SafetensorError):  # a table of tensors that makes no sense
        sound, tensors = False, {}
    if not sound:
        raise ModelFileError(
            f"{path} is damaged: its numbers do not agree with the SHA-256 in its header. Copy it again from where it "
            "came from, or fit the model anew."
        )
    return tensors, about


def sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over every tensor's name, type, shape and bytes, as `write` puts it into the file."""
    from safetensors.torch import save

    raw = save(_own(tensors))
    header, start = _parsed(raw, Path("the model in memory"))
    return _digest(header, memoryview(raw)[start:])


def model_id(meta: Mapping[str, Any]) -> str:
    """The name of the model that `meta` tells of: twelve hexadecimal digits that change with any weight or setting."""
    return _name(meta["sha256"], meta.get("config"))


def identity(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> str:
    """The `model_id` that a file with these tensors and this configuration bears, without writing one."""
    return _name(sha256(tensors), config)


def versions() -> dict[str, str]:
    """The versions of what makes a model, for its provenance; torch's comes without loading torch."""
    from importlib.metadata import version

    return {"anodiff": version("anodiff"), "torch": version("torch"), "python": platform.python_version()}


def _own(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU that share no memory, as safetensors wants them."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _name(digest: str, config: Mapping[str, Any] | None) -> str:
    return _sha(f"{digest} {json.dumps(config, sort_keys=True)}".encode())[:12]


def _parsed(raw: bytes, path: Path, *, size: int | None = None) -> tuple[dict[str, Any], int]:
    """The header and where the tensors begin; `size` is that of the whole file where `raw` is its beginning only."""
    size = len(raw) if size is None else size
    if size == 0:
        raise ModelFileError(f"{path} is empty (0 bytes). Copy it again, or fit the model anew.")
    length = int.from_bytes(raw[:_LENGTH], "little")
    start = _LENGTH + length
    if size < _LENGTH or length > _LONGEST or raw[_LENGTH : _LENGTH + 1] != b"{":
        raise ModelFileError(_foreign(raw, path))
    if size < start:
        raise ModelFileError(_short(path, size, start))
    try:
        header = json.loads(raw[_LENGTH:start])
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise ModelFileError(
            f"{path} is damaged: its header cannot be read. Copy it again, or fit the model anew."
        ) from None
    if not all(isinstance(end, int) for end in ends):
        raise ModelFileError(f"{path} is damaged: its header gives places that are not numbers.")
    wanted = start + max(ends, default=0)
    if size < wanted:
        raise ModelFileError(_short(path, size, wanted))
    if size > wanted:
        raise ModelFileError(
            f"{path} is damaged: {size - wanted} bytes follow its end. Copy it again from where it came from."
        )
    return header, start


def _about(header: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Our part of the header, checked."""
    texts = header.get("__metadata__") or {}
    if not isinstance(texts, dict) or _KEY not in texts:
        raise ModelFileError(
            f"{path} is a safetensors file, but not a model of anodiff: it holds weights of another program. Expected "
            "a file that `anodiff fit` or Detector.save wrote."
        )
    text = texts[_KEY]
    if _sha(str(text).encode()) != texts.get(_CHECK):
        raise ModelFileError(
            f"{path} is damaged: its header does not agree with its own SHA-256. Copy it again, or fit the model anew."
        )
    about = json.loads(text)
    if about["version"] > VERSION:
        raise ModelFileError(
            f"{path} was written by a newer anodiff (format {about['version']}; this one reads up to {VERSION}). "
            "Update with: pip install --upgrade anodiff"
        )
    return about


def _digest(header: Mapping[str, Any], data: memoryview) -> str:
    """SHA-256 over every tensor's name, type, shape and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(name for name in header if name != "__metadata__"):
        entry = header[name]
        digest.update(f"{name} {entry['dtype']} {entry['shape']}\n".encode())
        digest.update(data[slice(*entry["data_offsets"])])
    return digest.hexdigest()


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _unopened(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        there = sorted(item.name for item in path.parent.glob(f"*{ENDING}")) if path.parent.is_dir() else []
        beside = f" Models in that folder: {', '.join(there)}." if there else ""
        return f"There is no model file at {path}.{beside} Check the path, or make one with `anodiff fit`."
    if isinstance(error, IsADirectoryError):
        inside = path / f"model{ENDING}"
        hint = f"Did you mean {inside}?" if inside.is_file() else "Name the .anodiff file itself."
        return f"Expected a model file, but {path} is a folder. {hint}"
    return f"The model file {path} cannot be opened: {error.strerror}."


def _foreign(raw: bytes, path: Path) -> str:
    if raw[:4] == b"PK\x03\x04":
        what = "a zip archive or a checkpoint of torch.save, which is never opened because it may run code"
    elif raw[:1] == b"\x80":
        what = "a Python pickle, which is never opened because it may run code"
    elif raw[:64].isascii() and all(byte >= 32 or byte in b"\t\r\n" for byte in raw[:64]):
        what = "a text file"
    else:
        what = "a file of another program, or a damaged one"
    return (
        f"{path} is not a model of anodiff: it looks like {what}. Expected a file that `anodiff fit` wrote."
    )


def _short(path: Path, size: int, wanted: int) -> str:
    return (
        f"{path} is cut short: it has {size} of {wanted} bytes. Copy it again from where it came from, or fit the "
        "model anew."
    )
