"""Page images of the user's PDFs, drawn once, and given out without end, no image twice.

A server keeps what it made of an image (vLLM's multimodal and prefix caches, by content): the same image again would
measure the cache. So each further round puts a small grey square of its own into the page's corner.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from ocr_pipeline.pdf.renderer import BLANK_INK, PdfError, RenderedPage, Renderer
from ocr_pipeline.records import Geometry

SQUARE = 8  # pixels: a block of JPEG, so that the quality leaves it as it is
_QUALITY = 85


def draw(renderer: Renderer, pdfs: Sequence[Path], geometry: Geometry, most: int) -> tuple[list[bytes], list[str]]:
    """Up to `most` page images, taken from the documents in turn, blank ones left out; and what could not be drawn."""
    problems: list[str] = []
    counts: dict[Path, int] = {}
    for pdf in pdfs:
        try:
            counts[pdf] = renderer.inspect(pdf).page_count
        except PdfError as error:
            problems.append(f"{pdf}: {error.reason}")
    images: list[bytes] = []
    for number in range(1, max(counts.values(), default=0) + 1):
        for pdf in (pdf for pdf, pages in counts.items() if number <= pages):
            if len(images) >= most:
                return images, problems
            (page,) = renderer.render(pdf, number, number, geometry)
            if not isinstance(page, RenderedPage):
                problems.append(f"{pdf} page {number}: {page.reason}")
            elif page.ink >= BLANK_INK:
                images.append(page.jpeg)
    return images, problems


def endless(images: Sequence[bytes]) -> Iterator[bytes]:
    """The images, then the same ones marked anew for each round. `images` is not empty."""
    yield from images
    number = 0
    while True:
        for image in images:
            number += 1
            yield marked(image, number)


def marked(jpeg: bytes, number: int) -> bytes:
    """The page with a square whose place and shade say `number`: 60 shades at each place along the top edge."""
    with Image.open(io.BytesIO(jpeg)) as page:
        page.load()
        shade, place = number % 60, number // 60 * SQUARE
        x, y = place % max(SQUARE, page.width - SQUARE), place // max(SQUARE, page.width - SQUARE) * SQUARE
        x -= x % SQUARE
        page.paste((4 * shade + 8,) * len(page.getbands()), (x, y, x + SQUARE, y + SQUARE))
        out = io.BytesIO()
        page.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()
