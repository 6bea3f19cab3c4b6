"""Page images for the tests of the engines, printed with the font that comes with Pillow (which has no accents)."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from ocr_pipeline.records import PageImage


def page_of(jpeg: bytes, width: int, height: int, text_layer: str = "") -> PageImage:
    return PageImage(
        document_id="document",
        page_number=1,
        pages_in_document=1,
        urgent=False,
        jpeg=jpeg,
        sha256=hashlib.sha256(jpeg).hexdigest(),
        width=width,
        height=height,
        ink=0.05,
        text_layer=text_layer,
    )


def printed(texts: Sequence[str], text_layer: str = "", width: int = 900) -> PageImage:
    """A white page with the texts on it, one a line."""
    height = 80 + 50 * len(texts)
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for index, text in enumerate(texts):
        draw.text((40, 40 + 50 * index), text, font=ImageFont.load_default(size=28), fill="black")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return page_of(buffer.getvalue(), width, height, text_layer)
