from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from anodiff.data.image import header, prepare, read, read_mask, to_unit, working_shape
from anodiff.errors import DataError

Y, X = np.mgrid[:60, :90]
RGB = np.stack([X * 2, Y * 4, X + Y], axis=-1).astype(np.uint8)
GREY16 = (X * 700 + Y).astype(np.uint16)


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "ppm", "webp"])
def test_lossless_files_come_back_as_rgb(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(RGB).save(path, **({"lossless": True} if ending == "webp" else {}))
    array = read(path)
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array, RGB)
    facts = header(path)
    assert (facts.height, facts.width, facts.channels, facts.bits) == (60, 90, 3, 8)


def test_a_jpeg_equals_opencvs_decoding_with_its_channels_turned(tmp_path):
    cv2.imwrite(str(tmp_path / "a.jpg"), RGB)
    np.testing.assert_array_equal(read(tmp_path / "a.jpg"), cv2.imread(str(tmp_path / "a.jpg"))[..., ::-1])


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_sixteen_bits_are_kept(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    cv2.imwrite(str(path), GREY16)
    array = read(path)
    assert array.dtype == np.uint16
    np.testing.assert_array_equal(array, GREY16)
    assert header(path).bits == 16


def test_sixteen_bit_colour_is_kept(tmp_path):
    deep = RGB.astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "a.png"), deep[..., ::-1])
    np.testing.assert_array_equal(read(tmp_path / "a.png"), deep)


def test_the_many_kinds_of_tiff(tmp_path):
    tifffile.imwrite(
        tmp_path / "planar.tif", np.moveaxis(RGB, -1, 0), photometric="rgb", planarconfig="separate"
    )
    np.testing.assert_array_equal(read(tmp_path / "planar.tif"), RGB)
    tifffile.imwrite(tmp_path / "white0.tif", RGB[..., 0], photometric="miniswhite")
    np.testing.assert_array_equal(read(tmp_path / "white0.tif"), 255 - RGB[..., 0])
    Image.fromarray(RGB).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(read(tmp_path / "lzw.tif"), RGB)
    palette = Image.fromarray(RGB).quantize(64)
    palette.save(tmp_path / "palette.tif")
    np.testing.assert_array_equal(read(tmp_path / "palette.tif"), np.asarray(palette.convert("RGB")))
    tifffile.imwrite(tmp_path / "float.tif", X / 100.0)
    assert read(tmp_path / "float.tif").dtype == np.float32
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([RGB[..., 0], RGB[..., 1]]))
    np.testing.assert_array_equal(read(tmp_path / "pages.tif"), RGB[..., 0])


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, ending, orientation):
    path = tmp_path / f"o.{ending}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(path, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    array = read(path)
    np.testing.assert_array_equal(array, upright)
    assert (header(path).height, header(path).width) == array.shape[:2]


def test_alpha_is_dropped_not_blended(tmp_path):
    for ending in ("png", "tif"):
        Image.fromarray(np.dstack([RGB, X.astype(np.uint8)])).save(tmp_path / f"a.{ending}")
        np.testing.assert_array_equal(read(tmp_path / f"a.{ending}"), RGB)
    rgba = np.dstack([RGB, np.zeros_like(RGB[..., :1])])
    np.testing.assert_array_equal(to_unit(rgba), to_unit(RGB))


def test_a_palette_png_gives_its_colours(tmp_path):
    palette = Image.fromarray(RGB).quantize(64)
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read(tmp_path / "p.png"), np.asarray(palette.convert("RGB")))
    assert header(tmp_path / "p.png").channels == 3


def noisy(tmp_path: Path, ending: str) -> Path:
    path = tmp_path / f"n.{ending}"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8))
    return path


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "webp", "tif", "ppm"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused(tmp_path, ending, share):
    path = noisy(tmp_path, ending)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=path.name):
        read(path)


def test_a_flipped_bit_in_a_png_is_noticed(tmp_path):
    path = noisy(tmp_path, "png")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(DataError, match="checksum"):
        read(path)


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, 200), noise=st.binary(max_size=64))
def test_garbage_gives_a_data_error_and_nothing_else(tmp_path_factory, cut, noise):
    folder = tmp_path_factory.mktemp("garbage")
    for ending in ("png", "jpg", "tif"):
        good = noisy(folder, ending).read_bytes()
        (folder / "g.png").write_bytes(good[:cut] + noise)  # the ending says nothing
        with pytest.raises(DataError):
            read(folder / "g.png")


def test_missing_empty_and_foreign_files_say_what_they_are(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "none.png")
    (tmp_path / "zero.png").touch()
    with pytest.raises(DataError, match="0 bytes"):
        read(tmp_path / "zero.png")
    (tmp_path / "text.png").write_text("hello, I am no picture")
    with pytest.raises(DataError, match="not a picture"):
        read(tmp_path / "text.png")
    with pytest.raises(DataError, match="cannot be opened"):
        read(tmp_path)


def bomb(path: Path, width: int, height: int) -> Path:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path):
    with pytest.raises(DataError, match=r"40000 x 40000 pixels, above the limit of 200 million"):
        read(bomb(tmp_path / "b.png", 40000, 40000))
    with pytest.raises(DataError, match="above the limit"):
        read(noisy(tmp_path, "jpg"), limit_mpx=0.001)
    with pytest.raises(DataError, match="above the limit"):
        read(noisy(tmp_path, "tif"), limit_mpx=0.001)


def test_the_type_alone_scales():
    dark = np.array([[0, 1], [1, 0]], np.uint8)  # "maximum <= 1, so it is already scaled" is the trap
    assert to_unit(dark).max() == np.float32(1 / 255)
    assert to_unit(dark.astype(np.uint16)).max() == np.float32(1 / 65535)
    assert to_unit(dark.astype(bool)).max() == 1.0
    assert to_unit(dark.astype(np.float64)).max() == 1.0
    assert to_unit(dark).shape == (2, 2, 1)
    assert to_unit(dark).dtype == np.float32


@pytest.mark.parametrize(
    "array",
    [
        np.full((4, 4), 2.0),
        np.full((4, 4), np.nan),
        np.full((4, 4), -0.5),
        np.zeros((4, 4), np.int32),
        np.zeros((4, 4, 7), np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_arrays_whose_white_is_unknown_are_refused(array):
    with pytest.raises(DataError, match="Expected"):
        to_unit(array)


@pytest.mark.parametrize("shape", [(32, 32), (16, 120), (100, 33), (60, 90), (200, 300)])
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_colour_and_sixteen_bit_of_one_picture_agree(shape, channels):
    grey = RGB[..., 2]
    one = prepare(grey, shape=shape, channels=channels)
    assert one.shape == (channels, *shape)
    assert one.dtype == torch.float32
    for other in (np.dstack([grey] * 3), grey.astype(np.uint16) * 257, grey / 255, grey[..., None]):
        torch.testing.assert_close(prepare(other, shape=shape, channels=channels), one, rtol=0, atol=1e-6)
    deep = prepare(RGB.astype(np.uint16) * 257, shape=shape, channels=channels)
    torch.testing.assert_close(deep, prepare(RGB, shape=shape, channels=channels), rtol=0, atol=1e-6)


def test_the_resize_averages_when_it_shrinks_and_stays_in_range():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 64))  # aliases badly where it is only sampled
    small = prepare(stripes, shape=(16, 16), channels=1)
    torch.testing.assert_close(small, torch.full_like(small, 0.5))
    noise = np.random.default_rng(0).integers(0, 2, (50, 70, 3), dtype=np.uint8) * 255
    for shape in ((20, 90), (90, 20), (128, 128), (7, 7)):
        out = prepare(noise, shape=shape)
        assert out.min() >= 0
        assert out.max() <= 1
        assert abs(float(out.mean()) - noise.mean() / 255) < 0.03
    np.testing.assert_array_equal(prepare(RGB, shape=(60, 90)).numpy().transpose(1, 2, 0), to_unit(RGB))


def test_inputs_are_not_modified_and_may_be_views():
    array = RGB.copy()
    array.setflags(write=False)
    turned = prepare(array[..., ::-1], shape=(30, 45))
    torch.testing.assert_close(turned, prepare(array, shape=(30, 45)).flip(0))
    unit = to_unit(RGB)
    again = prepare(unit, shape=(60, 90))
    again += 1
    np.testing.assert_array_equal(unit, to_unit(RGB))


def test_masks_keep_their_size_and_every_mark(tmp_path):
    marked = np.zeros((300, 500), np.uint8)
    cv2.line(marked, (20, 30), (400, 250), 1, 1)  # class index 1, one pixel wide
    cv2.imwrite(str(tmp_path / "m.png"), marked)
    mask = read_mask(tmp_path / "m.png")
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, marked > 0)
    cv2.imwrite(str(tmp_path / "c.png"), np.dstack([0 * marked, 0 * marked, marked]))
    np.testing.assert_array_equal(read_mask(tmp_path / "c.png"), marked > 0)
    cv2.imwrite(str(tmp_path / "d.png"), marked.astype(np.uint16))
    np.testing.assert_array_equal(read_mask(tmp_path / "d.png"), marked > 0)


def test_the_working_shape_keeps_area_aspect_and_multiples():
    assert working_shape([(900, 900)] * 3, size=256, multiple=16) == (256, 256)
    assert working_shape([(1024, 1280)], size=256, multiple=32) == (224, 288)
    assert working_shape([(480, 192), (480, 192), (100, 100)], size=128, multiple=8) == (200, 80)
    assert working_shape([(480, 192)], size=128, multiple=8, aspect="square") == (128, 128)
    assert working_shape([(10, 4000)], size=64, multiple=16) == (16, 1280)
    with pytest.raises(DataError, match="none"):
        working_shape([], size=64, multiple=8)
