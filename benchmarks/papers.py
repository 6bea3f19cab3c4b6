"""PDFs for the benchmarks, made here: born-digital pages and scans, A4, 1 to 3,000 pages; the same bytes every time.

Kept in a cache folder outside the repository, since 3,000 pages take half a minute to make. No two pages are alike:
a page image that was read once is not asked for again, and would make every figure too good.
"""

from __future__ import annotations

import functools
import io
import os
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from reportlab.lib.pagesizes import A4
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

SIZES = (1, 1, 2, 3, 5, 10, 20, 40, 100)
"""Pages of the documents of the mix; each is made twice, born-digital and scanned: 364 pages."""

SCAN_DPI = 200
_VERSION = "3"  # of this module's output: part of the cache's name
_WORDS = tuple("".join(random.Random(n).choices("aeinorstlumdpcgh", k=2 + n % 9)) for n in range(3000))


def cache() -> Path:
    folder = Path(tempfile.gettempdir()) / "ocr_pipeline_benchmarks" / f"papers-{_VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def mix(sizes: Sequence[int] = SIZES) -> list[Path]:
    """Half born-digital, half scanned documents of these page counts. Different sizes give different pages."""
    found = []
    for index, pages in enumerate(sizes):
        found.append(digital(pages, f"{index}"))
        found.append(scanned(pages, f"{index}"))
    return found


def digital(pages: int, name: str = "") -> Path:
    """A born-digital document: a heading, about 500 words in two fonts, a table on each third page, page numbers."""
    return _made(f"digital-{pages}-{name}.pdf", lambda path: _digital(path, pages, name))


def scanned(pages: int, name: str = "") -> Path:
    """The same kind of text as a grey JPEG of 200 dpi a page, with noise, and no text layer."""
    return _made(f"scanned-{pages}-{name}.pdf", lambda path: _scanned(path, pages, name))


def page_count(path: Path) -> int:
    return int(path.stem.split("-")[1])


def _made(name: str, make: functools.partial[None] | object) -> Path:
    path = cache() / name
    if not path.exists():
        fresh = path.with_suffix(f".{os.getpid()}")
        make(fresh)  # type: ignore[operator]
        fresh.replace(path)
    return path


def _sentences(dice: random.Random, words: int) -> str:
    text = []
    while words > 0:
        length = min(words, dice.randint(5, 17))
        text.append(" ".join(dice.choices(_WORDS, k=length)).capitalize() + ".")
        words -= length
    return " ".join(text)


def _lines(dice: random.Random, words: int, width: int) -> list[str]:
    lines, line = [], ""
    for word in _sentences(dice, words).split():
        if len(line) + len(word) + 1 > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, line]


def _digital(path: Path, pages: int, name: str) -> None:
    dice = random.Random(f"digital {pages} {name}")
    canvas = Canvas(str(path), pagesize=A4, invariant=1)
    canvas.setTitle(f"Paper {name} of {pages} pages")
    for number in range(1, pages + 1):
        canvas.setFont("Helvetica-Bold", 16)
        canvas.drawString(56, 780, _sentences(dice, 6)[:50])
        y = 752.0
        canvas.setFont("Times-Roman", 11)
        for line in _lines(dice, dice.randint(330, 480), 92):
            canvas.drawString(56, y, line)
            y -= 13.5
            if y < 180:
                break
        if number % 3 == 0:
            canvas.setFont("Helvetica", 9)
            for row in range(6):
                for column in range(4):
                    canvas.rect(56 + 120 * column, y - 20 - 16 * row, 120, 16)
                    canvas.drawString(
                        60 + 120 * column, y - 15 - 16 * row, f"{dice.choice(_WORDS)} {dice.random():.3f}"
                    )
        canvas.setFont("Helvetica", 9)
        canvas.drawCentredString(297, 40, f"{name} {number} / {pages}")
        canvas.showPage()
    canvas.save()


@functools.cache
def _noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 5, (height + 256, width + 256)).astype(np.int16)


def _scan(dice: random.Random, label: str) -> bytes:
    width, height = round(8.27 * SCAN_DPI), round(11.69 * SCAN_DPI)
    image = Image.new("L", (width, height), 244)
    draw = ImageDraw.Draw(image)
    text, small = ImageFont.load_default(30), ImageFont.load_default(24)
    for row, line in enumerate(_lines(dice, dice.randint(330, 480), 78)[:44]):
        draw.text((150, 160 + 46 * row), line, font=text, fill=30)
    draw.text((width // 2 - 60, height - 110), label, font=small, fill=30)
    image = image.rotate(dice.uniform(-0.7, 0.7), fillcolor=244)
    x, y = dice.randrange(256), dice.randrange(256)
    grain = _noise(width, height)[y : y + height, x : x + width]
    noisy = np.clip(np.asarray(image, dtype=np.int16) + grain, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(noisy).save(out, "JPEG", quality=75)
    return out.getvalue()


def _scanned(path: Path, pages: int, name: str) -> None:
    dice = random.Random(f"scanned {pages} {name}")
    canvas = Canvas(str(path), pagesize=A4, invariant=1, pageCompression=1)
    for number in range(1, pages + 1):
        canvas.drawImage(ImageReader(io.BytesIO(_scan(dice, f"{name} {number} / {pages}"))), 0, 0, *A4)
        canvas.showPage()
    canvas.save()
