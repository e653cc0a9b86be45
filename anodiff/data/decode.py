"""Files to arrays, with the depth the file has."""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import Image

from anodiff.errors import DataError

LIMIT_MPX = 200.0
"""Millions of pixels above which a picture is refused before it is decoded."""

_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PILLOW = ("JPEG", "BMP", "WEBP", "PPM")
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # colour type -> samples, palette as the colours it stands for
_ORIENTATION = 0x0112  # the tag's number in EXIF and TIFF


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says about its picture before it is decoded; its sides are those of the upright one."""

    height: int
    width: int
    channels: int
    bits: int  # a sample
    kind: str  # PNG, JPEG, BMP, WEBP, PPM or TIFF
    orientation: int = 1  # EXIF: 1 upright, 2..8 mirrored or turned


def header(path: str | os.PathLike[str], *, limit_mpx: float = LIMIT_MPX) -> Header:
    """The header of a picture, without decoding it.

    Raises:
        DataError: missing or empty file, not a picture by its content (whatever its ending), or larger than
            `limit_mpx`.
    """
    path = Path(path)
    magic = _magic(path)
    try:
        if magic.startswith(_PNG):
            found = _png_header(path)
        elif magic[:4] in _TIFF:
            found = _tiff_header(path)
        else:
            found = _pillow_header(path, magic)
    except DataError:
        raise
    except Exception as error:  # decoders raise anything from SyntaxError to struct.error on damaged headers
        raise DataError(
            f"{path}: the header cannot be read ({error}). The file is damaged; get it anew."
        ) from error
    if found.height * found.width > limit_mpx * 1e6:
        raise DataError(
            f"{path}: the header claims {found.width} x {found.height} pixels, above the limit of "
            f"{limit_mpx:g} million; not decoded. Cut the picture, or raise `limit_mpx` if the file is sound."
        )
    return found


def decode(path: str | os.PathLike[str], *, limit_mpx: float = LIMIT_MPX) -> np.ndarray:
    """The picture as the file has it: H x W or H x W x 3 **RGB**, uint8, uint16 or float32.

    EXIF orientation is applied. Alpha is dropped, not blended: the colours under it stay as stored. Of a file
    with several pages the first counts.

    Raises:
        DataError: as `header`, and for a file that is truncated or damaged.
    """
    path = Path(path)
    found = header(path, limit_mpx=limit_mpx)
    try:
        if found.kind == "PNG":
            array = _png(path)
        elif found.kind == "TIFF":
            array = _tiff(path)
        elif found.bits > 8:  # 16-bit PGM and PPM, which Pillow widens or narrows
            array = _opencv(path)
        else:
            array = _pillow(path, found.kind)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path}: truncated or damaged ({error}). Get the file anew.") from error
    return np.ascontiguousarray(_upright(_without_alpha(array), found.orientation))


def _magic(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            magic = file.read(32)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. Check the path.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}).") from error
    if not magic:
        raise DataError(f"{path}: the file is empty (0 bytes). Get it anew.")
    return magic


def _png_header(path: Path) -> Header:
    turned, found = 1, None
    with path.open("rb") as file:
        file.seek(len(_PNG))
        while len(head := file.read(8)) == 8:  # chunk by chunk, passing over the pixels (PNG 5.3)
            length, name = struct.unpack(">I4s", head)
            if name == b"IHDR":
                found = struct.unpack(">IIBB", file.read(10))  # width, height, bits, colour type (PNG 11.2.1)
                length -= 10
            elif name == b"eXIf":
                exif = Image.Exif()
                exif.load(file.read(length))
                turned, length = int(exif.get(_ORIENTATION, 1)), 0
            if name == b"IEND" or found is None:
                break
            file.seek(length + 4, os.SEEK_CUR)  # the rest and its checksum
    if found is None or 0 in found[:2] or found[3] not in _PNG_CHANNELS:
        raise ValueError("no valid IHDR chunk")
    width, height, bits, colour = found
    return _header(height, width, _PNG_CHANNELS[colour], 16 if bits == 16 else 8, "PNG", turned)


def _pillow_header(path: Path, magic: bytes) -> Header:
    kind = _kind(magic)
    if kind is None:
        raise DataError(
            f"{path}: not a picture (starts with {magic[:12]!r}). "
            "Expected PNG, JPEG, TIFF, BMP, WebP or PNM by content."
        )
    with _pillow_open(path, kind) as image:
        width, height = image.size
        bits = 16 if image.mode.startswith("I") else _pnm_bits(path) if kind == "PPM" else 8
        channels = 3 if image.mode in ("P", "CMYK", "YCbCr") else len(image.getbands())
        return _header(height, width, channels, bits, kind, _orientation(image))


def _tiff_header(path: Path) -> Header:
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        tags = page.tags  # type: ignore[union-attr]
        turned = int(tags[_ORIENTATION].value) if _ORIENTATION in tags else 1
        samples = 3 if page.photometric == tifffile.PHOTOMETRIC.PALETTE else page.samplesperpixel  # type: ignore[union-attr]
        bits = int(np.max(page.bitspersample))  # type: ignore[union-attr]
        return _header(page.imagelength, page.imagewidth, samples, max(bits, 8), "TIFF", turned)  # type: ignore[union-attr]


def _header(height: int, width: int, channels: int, bits: int, kind: str, turned: int) -> Header:
    turned = turned if 1 <= turned <= 8 else 1
    if turned >= 5:  # a quarter turn
        height, width = width, height
    return Header(height=height, width=width, channels=channels, bits=bits, kind=kind, orientation=turned)


def _kind(magic: bytes) -> str | None:
    Image.init()
    for kind in _PILLOW:
        accept = Image.OPEN[kind][1]
        if accept is not None and accept(magic):
            return kind
    return None


def _pillow_open(path: Path, kind: str) -> Image.Image:
    # the plugin itself and not Image.open, whose size guard is a global of the process and lower than ours
    Image.init()
    return Image.OPEN[kind][0](str(path), str(path))  # type: ignore[arg-type]


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF does not damage the picture
        return 1


def _pnm_bits(path: Path) -> int:
    with path.open("rb") as file:
        lines = (line.split(b"#")[0] for line in file.read(1024).splitlines())
        words = b" ".join(lines).split()[:4]
    return 16 if len(words) == 4 and words[0] in (b"P5", b"P6", b"P2", b"P3") and int(words[3]) > 255 else 8


def _png(path: Path) -> np.ndarray:
    data = memoryview(path.read_bytes())
    at, name = len(_PNG), b""
    while (
        name != b"IEND"
    ):  # OpenCV fills what is missing of a file and says nothing, so every chunk is checked first
        if at + 12 > len(data):
            raise ValueError("the file ends early")
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            raise ValueError("the file ends early")
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ValueError(f"wrong checksum of chunk {name!r}")
        at = end + 4
    return _opencv(path)


def _opencv(path: Path) -> np.ndarray:
    # imdecode and not imread, which cannot open every path on every system; orientation is left to us
    array = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise ValueError("the decoder gave nothing")
    return (
        array
        if array.ndim == 2
        else cv2.cvtColor(array, cv2.COLOR_BGRA2RGB if array.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    )


def _pillow(path: Path, kind: str) -> np.ndarray:
    with _pillow_open(path, kind) as image:
        image.load()  # raises on a truncated file, where OpenCV gives a half-grey picture
        if image.mode == "1":
            return np.asarray(image.convert("L"))
        plain = image if image.mode in ("L", "RGB", "RGBA", "LA") else image.convert("RGB")
        return np.asarray(plain)


def _tiff(path: Path) -> np.ndarray:
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        try:
            array = page.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            return _opencv(path)  # compressions that tifffile leaves to a package that is not required
        photometric = page.photometric  # type: ignore[union-attr]
        if photometric == tifffile.PHOTOMETRIC.PALETTE:
            colours = np.asarray(page.colormap)  # type: ignore[union-attr]  # [3, entries] of 16 bits
            return (colours[:, array].transpose(1, 2, 0) >> 8).astype(np.uint8)
        if array.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:  # type: ignore[union-attr]
            array = array.transpose(1, 2, 0)
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[..., 0]
        if photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            array = ~array if array.dtype == bool else np.iinfo(array.dtype).max - array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    return array.astype(np.float32) if array.dtype in (np.float16, np.float64) else array


def _without_alpha(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        return array
    if array.ndim == 3 and array.shape[2] == 2:
        return array[..., 0]
    if array.ndim == 3 and array.shape[2] in (3, 4):
        return array[..., :3]
    raise ValueError(f"expected a grey or colour picture, got an array of shape {array.shape}")


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """The picture as it is meant to be seen (EXIF 2.32, tag 0x0112)."""
    if orientation >= 5:  # 5..8 store rows as columns
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array
