"""The pages of the samples as images, for measuring and testing an OCR engine alone, without the pipeline.

Here belongs a plain rendering with nothing guarded: for files of our own only. The pipeline's own way from a PDF to
page images is the room `pdf`.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pdf2image
import pypdfium2
from PIL import Image

from ocr_pipeline import samples
from ocr_pipeline.records import Geometry, PageImage


def page_images(geometry: Geometry) -> Iterator[tuple[PageImage, str]]:
    """Each page with text of each sample that can be read, and its known text. The sample's name is `document_id`."""
    for path in samples.paths():
        if samples.expected()[path.name]["status"] != "ok":
            continue
        for number, known in enumerate(samples.known_text(path), start=1):
            if known.strip():
                yield page_image(path, number, geometry), known


def page_image(path: Path, number: int, geometry: Geometry) -> PageImage:
    """Page `number`, counted from 1, drawn by poppler where it is installed, else by PDFium."""
    with pypdfium2.PdfDocument(path) as pdf:
        pages = len(pdf)
        page = pdf[number - 1]
        text_layer = page.get_textpage().get_text_bounded()
        if shutil.which("pdftoppm"):
            image = pdf2image.convert_from_path(path, dpi=geometry.dpi, first_page=number, last_page=number)[0]
        else:
            image = page.render(scale=geometry.dpi / 72).to_pil()
    image = image.convert("RGB")
    longest, shortest = max(image.size), min(image.size)
    scale = min(1.0, geometry.max_long_side / longest, geometry.max_short_side / shortest)
    if scale < 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=geometry.jpeg_quality)
    jpeg = buffer.getvalue()
    dark = sum(image.convert("L").histogram()[:160])
    return PageImage(
        document_id=path.stem,
        page_number=number,
        pages_in_document=pages,
        urgent=False,
        jpeg=jpeg,
        sha256=hashlib.sha256(jpeg).hexdigest(),
        width=image.width,
        height=image.height,
        ink=dark / (image.width * image.height),
        text_layer=text_layer,
    )
