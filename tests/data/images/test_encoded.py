"""What Pillow is asked to decode, and what is refused before it is."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rlhpo_core.data.images.encoded import Header, decode, look, png
from rlhpo_core.errors import UserError
from tests.helpers.pictures import bomb

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8, 1)
COLOUR = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("pixels", [GREY, COLOUR])
def test_png_comes_back_as_it_was(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    data = png(pixels)
    assert look(data, "a") == Header(6, 8, pixels.shape[2])
    np.testing.assert_array_equal(decode(data, "a", pixels.shape[2]), pixels)


def test_grey_becomes_colour_and_transparency_is_dropped() -> None:
    np.testing.assert_array_equal(decode(png(GREY), "a", 3), np.repeat(GREY, 3, axis=2))
    alpha = Image.merge("RGBA", [*Image.fromarray(COLOUR).split(), Image.new("L", (8, 6), 7)])
    np.testing.assert_array_equal(decode(saved(alpha), "a", 3), COLOUR)


def test_a_jpeg_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned by a quarter
    data = saved(Image.fromarray(COLOUR), "JPEG", exif=exif)
    assert look(data, "a") == Header(8, 6, 3)
    assert decode(data, "a", 3).shape == (8, 6, 3)


@pytest.mark.parametrize("size", [(1025, 1024), (12_000, 12_000), (30_000, 30_000)])
def test_a_large_image_is_refused_by_its_header(size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=r"photos/sun\.png has .* pixels; an image may have 1048576"):
        look(bomb(*size), "photos/sun.png")


def test_what_is_cut_off_is_named() -> None:
    data = png(np.random.default_rng(0).integers(0, 256, (60, 60, 3)).astype(np.uint8))
    assert look(data[:2000], "a.png") == Header(60, 60, 3)  # its header is whole
    with pytest.raises(UserError, match=r"a\.png cannot be read as PNG or JPEG"):
        decode(data[:2000], "a.png", 3)
    for wrong in (b"", b"no image", data[:20], b"\xff\xd8\xff"):
        with pytest.raises(UserError, match=r"a\.png cannot be read as PNG or JPEG"):
            look(wrong, "a.png")


def test_other_formats_and_sixteen_bits_are_refused() -> None:
    with pytest.raises(UserError, match="cannot be read as PNG or JPEG"):
        look(saved(Image.fromarray(COLOUR), "BMP"), "a.png")
    deep = Image.fromarray(np.zeros((6, 8), dtype=np.uint16))
    with pytest.raises(UserError, match=r"a\.png is of Pillow's mode I;16; save it with eight bits"):
        look(saved(deep), "a.png")
