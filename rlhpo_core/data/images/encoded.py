"""PNG and JPEG by Pillow: what is too large, damaged or of another kind is refused before its pixels are decoded."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from rlhpo_core.errors import UserError

#: What is decoded; other decoders of Pillow are not even tried.
FORMATS = ("PNG", "JPEG")
#: An image has at most so many pixels, and its file so many bytes.
MOST_PIXELS, MOST_FILE_BYTES = 2**20, 64 * 2**20
#: Pillow's modes of eight bits a channel that are grey, with or without transparency; and those that are coloured.
_GREY, _COLOURED = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
#: EXIF's number of the tag that says how a camera was held, and its values for a quarter turn.
_ORIENTATION, _QUARTER_TURNS = 0x0112, (5, 6, 7, 8)


@dataclass(frozen=True)
class Header:
    """What an encoded image says of itself."""

    height: int
    width: int
    channels: int
    """1 for grey, 3 for colour."""


def look(data: bytes, where: str) -> Header:
    """Read the header alone.

    Args:
        where: What an error calls the image.

    Raises: UserError if it is neither PNG nor JPEG, if it is too large, or if it has not eight bits a channel.
    """
    with _opened(data, where) as image:
        width, height = image.size
        # Of a PNG Pillow would decode all, for it may come behind the pixels.
        if image.format == "JPEG" and image.getexif().get(_ORIENTATION) in _QUARTER_TURNS:
            width, height = height, width
        return Header(height, width, 1 if image.mode in _GREY else 3)


def decode(data: bytes, where: str, channels: int) -> NDArray[np.uint8]:
    """The pixels, (height, width, channels), a JPEG's turned upright as EXIF says; transparency is dropped.

    Args:
        where: What an error calls the image.
        channels: 1 or 3; grey becomes colour if asked for.

    Raises: UserError as ``look`` does, and if the image is damaged.
    """
    with _opened(data, where) as image:
        upright = ImageOps.exif_transpose(image) if image.format == "JPEG" else image
        pixels = np.asarray(upright.convert("L" if channels == 1 else "RGB"), dtype=np.uint8)
    return pixels.reshape(*pixels.shape[:2], channels)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """An image (height, width, 1 or 3) as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def _opened(data: bytes, where: str) -> Iterator[Image.Image]:
    if len(data) > MOST_FILE_BYTES:
        raise UserError(f"{where} has {len(data)} bytes; an image may have {MOST_FILE_BYTES}: make it smaller")
    try:
        with warnings.catch_warnings():
            # Its size is judged below, by a stricter limit than Pillow's.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise _too_large(where, f"{width} × {height}")
                if image.mode not in (*_GREY, *_COLOURED):
                    raise UserError(f"{where} is of Pillow's mode {image.mode}; save it with eight bits a channel")
                yield image
    except Image.DecompressionBombError as error:
        raise _too_large(where, "far too many") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise UserError(f"{where} cannot be read as PNG or JPEG; mend it or take it out: {error}") from error


def _too_large(where: str, size: str) -> UserError:
    return UserError(f"{where} has {size} pixels; an image may have {MOST_PIXELS} in all: make it smaller")
