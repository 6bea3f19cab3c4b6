"""Makes the sample PDFs, the known text beside each, and `expected.json`: `python -m ocr_pipeline.samples.make [DIR]`.

Here belongs the drawing only. Needs reportlab and Pillow (development dependencies); the results are kept in the
package, so that nobody else needs them. Fonts are those that come with reportlab and Pillow, always embedded: the 14
standard fonts are not, and then look different on each machine.
"""

from __future__ import annotations

import io
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFilter, ImageFont
from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Frame, Paragraph, Table

from ocr_pipeline.samples import contents

WIDTH, HEIGHT = A4
MARGIN = 64.0  # points
COLUMN_GAP = 24.0
SCAN_DPI = 150
SCAN_SKEW = 0.7  # degrees
INK = HexColor("#1a1a1a")

STYLES = {
    "title": ParagraphStyle("title", fontName="VeraBd", fontSize=19, leading=25, spaceAfter=10, textColor=INK),
    "heading": ParagraphStyle(
        "heading", fontName="VeraBd", fontSize=13, leading=17, spaceBefore=10, spaceAfter=4, textColor=INK
    ),
    "byline": ParagraphStyle("byline", fontName="VeraIt", fontSize=10, leading=14, spaceAfter=8, textColor=INK),
    "text": ParagraphStyle("text", fontName="Vera", fontSize=10, leading=14, spaceAfter=8, textColor=INK),
    "column": ParagraphStyle("column", fontName="Vera", fontSize=9, leading=12, spaceAfter=6, textColor=INK),
}


def make_all(folder: Path) -> None:
    """Writes every sample into `folder`, replacing what is there."""
    for name, face in (("Vera", "Vera.ttf"), ("VeraBd", "VeraBd.ttf"), ("VeraIt", "VeraIt.ttf")):
        pdfmetrics.registerFont(TTFont(name, face))
    folder.mkdir(parents=True, exist_ok=True)
    expected: dict[str, Any] = {}

    def keep(name: str, pdf: bytes, pages: Sequence[Sequence[str]]) -> None:
        """`pages`: the paragraphs of each page, in reading order. An empty page is expected to be blank."""
        (folder / f"{name}.pdf").write_bytes(pdf)
        text = "\f".join("\n\n".join(paragraphs) for paragraphs in pages)
        (folder / f"{name}.txt").write_text(text + "\n", encoding="utf-8", newline="\n")
        statuses = ["ok" if paragraphs else "blank" for paragraphs in pages]
        expected[f"{name}.pdf"] = {"status": "ok", "reason": None, "pages": statuses}

    def keep_rejected(name: str, pdf: bytes, reason: str) -> None:
        (folder / f"{name}.pdf").write_bytes(pdf)
        expected[f"{name}.pdf"] = {"status": "rejected", "reason": reason, "pages": []}

    keep("annual-report", _flowing(contents.REPORT_PAGES), [_texts(page) for page in contents.REPORT_PAGES])
    keep("two-columns", _two_columns(), [_texts(contents.TWO_COLUMNS)])
    keep("invoice-table", _invoice(), [_invoice_text()])
    keep("scanned-letter", _scan(), [[_joined(lines) for lines in contents.LETTER_LINES]])
    keep("rotated-page", _rotated(), [[contents.TIMETABLE_TITLE, _rows(contents.TIMETABLE), contents.TIMETABLE_NOTE]])
    keep("blank-in-the-middle", _flowing(contents.MINUTES_PAGES), [_texts(page) for page in contents.MINUTES_PAGES])
    keep("form", _form(), [_form_text()])
    keep_rejected("encrypted", _flowing([contents.SECRET], password="open sesame"), "encrypted")  # noqa: S106
    keep_rejected("damaged", _damaged(), "damaged")
    keep_rejected("not-really-a-pdf", contents.NOT_A_PDF.encode(), "not_a_pdf")
    (folder / "expected.json").write_text(json.dumps(expected, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _canvas(buffer: io.BytesIO, title: str, password: str | None = None) -> Canvas:
    encrypt = StandardEncryption(password, ownerPassword=password + "!", strength=128) if password else None
    canvas = Canvas(buffer, pagesize=A4, invariant=1, pageCompression=1, encrypt=encrypt)
    canvas.setTitle(title)
    return canvas


def _flowables(blocks: Sequence[contents.Block], body: str = "text") -> list[Any]:
    return [Paragraph(text, STYLES[body if style == "text" else style]) for style, text in blocks if style != "footer"]


def _frame(canvas: Canvas, x: float, y: float, width: float, height: float, flowables: list[Any]) -> None:
    """Draws what fits and takes it off the list."""
    Frame(x, y, width, height, leftPadding=0, rightPadding=0, topPadding=0, bottomPadding=0).addFromList(
        flowables, canvas
    )


def _flowing(pages: Sequence[Sequence[contents.Block]], password: str | None = None) -> bytes:
    buffer = io.BytesIO()
    canvas = _canvas(buffer, pages[0][0][1], password)
    for blocks in pages:
        flowables = _flowables(blocks)
        _frame(canvas, MARGIN, MARGIN, WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN, flowables)
        _all_drawn(flowables)
        for style, text in blocks:
            if style == "footer":
                canvas.setFont("Vera", 8)
                canvas.drawCentredString(WIDTH / 2, MARGIN / 2, text)
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def _two_columns() -> bytes:
    """The paragraph at the foot of the left column goes on at the top of the right one."""
    buffer = io.BytesIO()
    canvas = _canvas(buffer, contents.TWO_COLUMNS[0][1])
    full, column = WIDTH - 2 * MARGIN, (WIDTH - 2 * MARGIN - COLUMN_GAP) / 2
    head, rest = _flowables(contents.TWO_COLUMNS[:2]), _flowables(contents.TWO_COLUMNS[2:], "column")
    _frame(canvas, MARGIN, HEIGHT - MARGIN - 60, full, 60, head)
    for x in (MARGIN, MARGIN + column + COLUMN_GAP):
        _frame(canvas, x, HEIGHT - MARGIN - 60 - 372, column, 372, rest)
    _all_drawn(head + rest)
    canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def _invoice() -> bytes:
    buffer = io.BytesIO()
    canvas = _canvas(buffer, contents.INVOICE_HEAD[0][1])
    table = Table(contents.INVOICE_TABLE, colWidths=[200, 80, 90, 95], rowHeights=22)
    grid = HexColor("#888888")
    table.setStyle(
        [
            ("FONT", (0, 0), (-1, -1), "Vera", 10),
            ("FONT", (0, 0), (-1, 0), "VeraBd", 10),
            ("FONT", (0, -1), (-1, -1), "VeraBd", 10),
            ("ALIGN", (1, 0), (-1, -1), "RIGHT"),
            ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
            ("GRID", (0, 0), (-1, -1), 0.5, grid),
            ("TEXTCOLOR", (0, 0), (-1, -1), INK),
        ]
    )
    foot = _flowables(contents.INVOICE_FOOT)
    for paragraph in foot:
        paragraph.style.spaceBefore = 0
    flowables = [*_flowables(contents.INVOICE_HEAD), table]
    _frame(canvas, MARGIN, MARGIN, WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN, flowables)
    _frame(canvas, MARGIN, HEIGHT - 480, WIDTH - 2 * MARGIN, 40, foot)
    _all_drawn(flowables + foot)
    canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def _rotated() -> bytes:
    """A landscape timetable on a portrait sheet with /Rotate 90: upright only for who honours the entry."""
    buffer = io.BytesIO()
    canvas = _canvas(buffer, contents.TIMETABLE_TITLE)
    canvas.setPageRotation(90)
    canvas.setPageSize((HEIGHT, WIDTH))  # reportlab swaps the sides of a turned page: the sheet is portrait
    canvas.translate(WIDTH, 0)
    canvas.rotate(90)
    canvas.setFillColor(INK)
    canvas.setFont("VeraBd", 19)
    canvas.drawString(MARGIN, WIDTH - MARGIN - 19, contents.TIMETABLE_TITLE)
    for row, cells in enumerate(contents.TIMETABLE):
        canvas.setFont("VeraBd" if row == 0 else "Vera", 12)
        for x, cell in zip((0, 230, 360, 480, 600), cells, strict=True):
            canvas.drawString(MARGIN + x, WIDTH - MARGIN - 70 - 28 * row, cell)
    note = [Paragraph(contents.TIMETABLE_NOTE, STYLES["text"])]
    _frame(canvas, MARGIN, MARGIN, HEIGHT - 2 * MARGIN, 150, note)
    _all_drawn(note)
    canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def _form() -> bytes:
    buffer = io.BytesIO()
    canvas = _canvas(buffer, contents.FORM_TITLE)
    canvas.setFillColor(INK)
    canvas.setFont("VeraBd", 17)
    canvas.drawString(MARGIN, HEIGHT - MARGIN - 17, contents.FORM_TITLE)
    for row, (label, value) in enumerate(contents.FORM_FIELDS):
        y = HEIGHT - MARGIN - 80 - 36 * row
        canvas.setStrokeColor(HexColor("#777777"))
        canvas.rect(MARGIN + 160, y - 8, 290, 24)
        canvas.setFont("VeraBd", 10)
        canvas.drawString(MARGIN, y, label)
        canvas.setFont("Vera", 11)
        canvas.drawString(MARGIN + 168, y, value)
    note = [Paragraph(contents.FORM_NOTE, STYLES["text"])]
    _frame(canvas, MARGIN, HEIGHT - 560, WIDTH - 2 * MARGIN, 60, note)
    _all_drawn(note)
    canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def _scan() -> bytes:
    """A letter as an office scanner leaves it: grey, uneven, a little askew, with specks, JPEG; no text layer."""
    scale = SCAN_DPI / 72
    width, height = round(WIDTH * scale), round(HEIGHT * scale)
    paper = Image.new("L", (width, height), 246)
    draw = ImageDraw.Draw(paper)
    font = ImageFont.load_default(size=24)
    y = 150
    for paragraph in contents.LETTER_LINES:
        for line in paragraph:
            draw.text((150, y), line, font=font, fill=38)
            y += 36
        y += 34
    paper = paper.rotate(SCAN_SKEW, resample=Image.Resampling.BICUBIC, fillcolor=246)
    paper = paper.filter(ImageFilter.GaussianBlur(0.6))
    noise = random.Random(1998)  # noqa: S311
    speckled = Image.frombytes("L", (width, height), bytes(_grain(noise, width * height)))
    paper = Image.blend(paper, speckled, 0.06)
    pixels = ImageDraw.Draw(paper)
    for _ in range(220):
        x, y, grey = noise.randrange(width), noise.randrange(height), noise.randrange(60, 190)
        pixels.ellipse((x, y, x + noise.randrange(3), y + noise.randrange(3)), fill=grey)
    jpeg = io.BytesIO()
    paper.save(jpeg, "JPEG", quality=55, dpi=(SCAN_DPI, SCAN_DPI))
    buffer = io.BytesIO()
    canvas = _canvas(buffer, "Scanned letter")
    canvas.drawImage(ImageReader(io.BytesIO(jpeg.getvalue())), 0, 0, WIDTH, HEIGHT)
    canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def _grain(noise: random.Random, count: int) -> bytes:
    """Bytes around 190, wide enough that a blend of 6 % is seen as paper grain."""
    return bytes(min(255, 128 + (byte >> 1)) for byte in noise.randbytes(count))


def _damaged() -> bytes:
    """A real file cut off in transfer, before its page tree: nothing is left that a reader could rebuild."""
    return _flowing(contents.REPORT_PAGES)[:3000]


def _all_drawn(left: list[Any]) -> None:
    if left:
        raise ValueError(f"{len(left)} blocks do not fit on their page: the known text would name what is not drawn")


def _texts(blocks: Sequence[contents.Block]) -> list[str]:
    return [text for _, text in blocks]


def _rows(table: Sequence[Sequence[str]]) -> str:
    return "\n".join(" ".join(cell for cell in row if cell) for row in table)


def _invoice_text() -> list[str]:
    return [*_texts(contents.INVOICE_HEAD), _rows(contents.INVOICE_TABLE), *_texts(contents.INVOICE_FOOT)]


def _form_text() -> list[str]:
    fields = "\n".join(f"{label} {value}" for label, value in contents.FORM_FIELDS)
    return [contents.FORM_TITLE, fields, contents.FORM_NOTE]


def _joined(lines: Sequence[str]) -> str:
    """The lines of a paragraph as one text, a word that was divided at a line's end whole again."""
    return "\n".join(lines).replace("-\n", "").replace("\n", " ")


if __name__ == "__main__":
    make_all(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
