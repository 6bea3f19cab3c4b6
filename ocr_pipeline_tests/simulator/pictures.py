"""The images of a request: decoded as vLLM decodes them, and how many tokens they cost.

Sound JPEGs and PNGs are only looked at (headers, end marks): the benchmarks measure the client on the same cores.
Everything else goes through Pillow, which is what vLLM itself uses, so that its errors are the real ones.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import io
import struct
from dataclasses import dataclass

from ocr_pipeline_tests.simulator.refusals import Refusal, bad_request, unhandled

MAX_PIXELS = 178_956_970  # VLLM_MAX_IMAGE_PIXELS; more is an unhandled exception in vLLM, so HTTP 500
_TILE, _BASE_TOKENS = 640, 273


@dataclass(frozen=True, slots=True)
class Picture:
    sha256: str  # of the bytes as sent
    width: int
    height: int
    data: bytes

    @property
    def tokens(self) -> int:
        return vision_tokens(self.width, self.height)


@functools.cache
def _tile_grids() -> list[tuple[int, int]]:
    grids = {(i, j) for i in range(1, 7) for j in range(1, 7) if 2 <= i * j <= 6}
    return sorted(grids, key=lambda grid: grid[0] * grid[1])


@functools.lru_cache(4096)
def tile_grid(width: int, height: int) -> tuple[int, int]:
    """Columns and rows of 640-pixel tiles; (1, 1) is the global view alone. Source: vLLM, deepseek_ocr.py."""
    if width <= _TILE and height <= _TILE:
        return (1, 1)
    ratio, best, best_difference = width / height, (1, 1), float("inf")
    for columns, rows in _tile_grids():
        difference = abs(ratio - columns / rows)
        larger = width * height > 0.5 * _TILE * _TILE * columns * rows
        if difference < best_difference or (difference == best_difference and larger):
            best, best_difference = (columns, rows), difference
    return best


def vision_tokens(width: int, height: int) -> int:
    """Placeholder tokens of one image, row ends and the separator included: 273 up to 640x640, 903 for A4 upright."""
    columns, rows = tile_grid(width, height)
    return _BASE_TOKENS + (0 if (columns, rows) == (1, 1) else 10 * rows * (10 * columns + 1))


def read(url: str) -> Picture:
    """The image behind an `image_url`. Refusal where vLLM refuses it. Nothing is ever fetched."""
    if url.startswith("data:"):
        return decode(_data_of(url))
    if url.startswith(("http://", "https://")):
        raise unhandled("Cannot connect to host: the simulator fetches nothing")
    if url.startswith("file:"):
        raise unhandled("Cannot load local files without `--allowed-local-media-path`.")
    raise bad_request("The URL must be either a HTTP, data or file URL.")


def _data_of(url: str) -> bytes:
    head, comma, payload = url.partition(",")
    if not comma:
        raise bad_request(f"Invalid data URL {url!r}: missing ',' separator.")
    if not head.endswith(";base64"):
        raise Refusal(501, "Only base64 data URLs are supported for now.", "NotImplementedError")
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise bad_request("Non-base64 digit found") from None


def decode(data: bytes) -> Picture:
    size = _size_of_sound_png(data) or _size_of_sound_jpeg(data) or _size_by_pillow(data)
    if size[0] * size[1] > MAX_PIXELS:
        raise unhandled(
            f"Image size ({size[0] * size[1]} pixels) exceeds limit of {MAX_PIXELS} pixels, "
            "could be decompression bomb DOS attack."
        )
    return Picture(hashlib.sha256(data).hexdigest(), *size, data)


def _size_of_sound_png(data: bytes) -> tuple[int, int] | None:
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR" or data[-8:-4] != b"IEND":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return (width, height) if width and height else None


def _size_of_sound_jpeg(data: bytes) -> tuple[int, int] | None:
    if data[:2] != b"\xff\xd8" or data[-2:] != b"\xff\xd9":
        return None
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame header
            height, width = struct.unpack_from(">HH", data, at + 5)
            return (width, height) if width and height else None
        at += 2 + length
    return None


def _size_by_pillow(data: bytes) -> tuple[int, int]:
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # the limit is applied by the caller, as a 500
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height <= MAX_PIXELS:
                image.load()
            return image.size
    except UnidentifiedImageError:  # its text names an object's address
        raise bad_request("Failed to load image: cannot identify image file <_io.BytesIO object>") from None
    except Exception as problem:  # whatever a broken file makes Pillow raise: vLLM answers 400 with its text
        raise bad_request(f"Failed to load image: {problem}") from None


def crops_sum_to_zero(picture: Picture) -> bool:
    """Whether this image kills a real server, in pixels: deepseek_ocr.py takes crops whose normalised values sum to
    exactly 0 for "no crops", and the engine dies of the missing embeddings. Decodes the image: for small tests only.
    """
    grid = tile_grid(picture.width, picture.height)
    if grid == (1, 1):
        return False
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(picture.data)) as image:
        crops = image.convert("RGB").resize((_TILE * grid[0], _TILE * grid[1]))
    return int((np.asarray(crops, dtype=np.int64) * 2 - 255).sum()) == 0
