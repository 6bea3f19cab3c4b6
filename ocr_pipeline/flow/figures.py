"""Figures cut out of a page image, as the regions of its transcript say: pure bytes in, bytes out.

Which figures are cut (`boxes`) is also which the markdown links (`documents.py`): no link without its file.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from PIL import Image

from ocr_pipeline.ocr.parsing.grounding import FIGURE_LABELS
from ocr_pipeline.records import Region

MAX_FIGURES = 64  # a page: more is noise, and each is an object in the lake
_MIN_SIDE = 8  # pixels


Box = tuple[int, int, int, int]


class UndecodableImage(Exception):
    """The bytes of a page image cannot be decoded."""


def boxes(regions: Sequence[Region], width: int, height: int) -> dict[int, Box]:
    """By region index the pixels (left, top, right, bottom) of each figure that is large enough to see, on a page image
    of `width` x `height`; at most `MAX_FIGURES`."""
    found: dict[int, Box] = {}
    for index, region in enumerate(regions):
        if region.label not in FIGURE_LABELS:
            continue
        box = int(region.x0 * width), int(region.y0 * height), round(region.x1 * width), round(region.y1 * height)
        if min(box[2] - box[0], box[3] - box[1]) >= _MIN_SIDE:
            found[index] = box
        if len(found) == MAX_FIGURES:
            break
    return found


def check(jpeg: bytes) -> None:
    """Raises UndecodableImage where no figure could be cut out of the page image."""
    with _opened(jpeg) as page:
        page.load()


def crop(jpeg: bytes, wanted: Mapping[int, Box]) -> list[tuple[int, bytes]]:
    """`(region index, JPEG bytes)` of each of the `boxes`. Raises UndecodableImage."""
    cut = []
    with _opened(jpeg) as page:
        for index, box in wanted.items():
            out = io.BytesIO()
            page.crop(box).save(out, "JPEG", quality=85)
            cut.append((index, out.getvalue()))
    return cut


@contextmanager
def _opened(jpeg: bytes) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as page:
            yield page
    except (OSError, ValueError, Image.DecompressionBombError) as error:  # all of them Pillow's words for bad bytes
        raise UndecodableImage(f"the page image cannot be decoded: {type(error).__name__}") from error
