"""PDFium, through pypdfium2: the only module that calls it. Runs in the worker process, in one thread.

Here belongs what PDFium knows about a file, page sizes, text layers, and its page images.
Not here: deadlines and crashes. PDFium is C++ that reads hostile bytes: the renderer sees the process die or kills it.
"""

from __future__ import annotations

import io
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import pypdfium2
import pypdfium2.raw as pdfium_c

from ocr_pipeline.pdf.opinions import Opening

MAX_TEXT = 200_000
"""Characters of a text layer that are kept. A dense page of a newspaper has about 30,000."""

_REOPEN_AFTER = 50
"""Page loads. PDFium keeps 90 kB of each page that it drew as long as the document is open: 270 MB after 3,000."""

_HEAVY_IMAGE = 1 << 28  # bytes
_SMALL_PAGE = 400.0  # points; see `_may_have_units`
_UNIT = re.compile(rb"/UserUnit\s+([\d.]+)")
_CHUNK = 1 << 20
_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")  # turns the direction of what follows: text can hide text
_HYPHEN_AT_LINE_END = re.compile("[\ufffe\x02]\n?")


@dataclass(frozen=True, slots=True)
class Drawing:
    jpeg: bytes
    objects: int  # things on the page that should show


class CannotOpen(Exception):
    def __init__(self, code: int) -> None:
        messages = {
            pdfium_c.FPDF_ERR_FILE: "the file cannot be read",
            pdfium_c.FPDF_ERR_FORMAT: "not a PDF, or damaged",
            pdfium_c.FPDF_ERR_PASSWORD: "a password is needed",
            pdfium_c.FPDF_ERR_SECURITY: "an encryption that it does not know",
        }
        super().__init__(messages.get(code, f"error {code}"))
        self.code = code


ERRORS: tuple[type[Exception], ...] = (pypdfium2.PdfiumError, CannotOpen, ValueError, MemoryError)
"""What the calls on a page raise."""


class Document:
    """An open PDF. Sizes are in points as the page is shown: turned, cropped, without /UserUnit."""

    def __init__(self, path: Path) -> None:
        """Raises CannotOpen."""
        self._path = path
        self._may_have_units = _may_have_units(path)
        self._reopen()

    def _reopen(self) -> None:
        self._loaded = 0
        handle = pdfium_c.FPDF_LoadDocument(os.fsencode(self._path) + b"\0", None)
        if not handle:
            raise CannotOpen(pdfium_c.FPDF_GetLastError())
        # pypdfium2's own way to open takes a PDF without pages for a failure, and tells the code of an earlier one.
        self._pdf = pypdfium2.PdfDocument(handle)
        self._pdf.init_forms()  # without it the fields of a form are not drawn

    def _load(self, number: int) -> pypdfium2.PdfPage:
        self._loaded += 1
        if self._loaded > _REOPEN_AFTER:
            self._pdf.close()
            self._reopen()
        return self._pdf[number - 1]

    def close(self) -> None:
        self._pdf.close()

    def __len__(self) -> int:
        """Pages as the file says it."""
        return len(self._pdf)

    def page_count(self) -> int:
        """Pages that are really there: PDFium believes /Count, and a file can say 1000 and have one."""
        said = len(self)
        if self._exists(said):
            return said
        low, high = 0, said  # page `low` exists (or is 0), page `high` does not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._exists(middle) else (low, middle)
        return low

    def _exists(self, number: int) -> bool:
        try:
            self._pdf.get_page_size(number - 1)
        except pypdfium2.PdfiumError:
            return False
        return True

    def title(self) -> str:
        return str(self._pdf.get_metadata_value("Title"))

    def page_size(self, number: int) -> tuple[float, float] | None:
        """Width and height in points, or None where PDFium has no such page."""
        try:
            width, height = self._pdf.get_page_size(number - 1)
        except pypdfium2.PdfiumError:
            return None
        return float(width), float(height)

    def user_unit(self, number: int) -> float:
        """The page's /UserUnit (1 where it has none): how many points a unit of the page is.

        PDFium has no call for it. A copy of the page alone, written out, shows its dictionary in plain text. That
        costs a copy of the page's images, so it is done only where the file can have such a page and it matters.
        """
        size = self.page_size(number)
        if size is None or not self._may_have_units(max(size)):
            return 1.0
        copy = pypdfium2.PdfDocument.new()
        try:
            copy.import_pages(self._pdf, [number - 1])
            written = io.BytesIO()
            copy.save(written)
        finally:
            copy.close()
        # The page's dictionary stands before its content, and streams are binary: the first match is the page's own.
        match = _UNIT.search(written.getbuffer()[: 1 << 16])
        unit = float(match[1]) if match else 1.0
        return unit if unit > 0 else 1.0

    def draw(self, number: int, dpi: float, quality: int) -> Drawing:
        """The page's image as JPEG at `dpi` dots to 72 units of the page. Raises ERRORS."""
        page = self._load(number)
        try:
            bitmap = page.render(scale=dpi / 72, rev_byteorder=True, limit_image_cache=True)
            try:
                image = bitmap.to_pil()
                out = io.BytesIO()
                image.save(out, "JPEG", quality=quality)
            finally:
                bitmap.close()
            return Drawing(out.getvalue(), pdfium_c.FPDFPage_CountObjects(page))
        finally:
            page.close()

    def undrawn_images(self, number: int) -> int:
        """Images on the page that PDFium cannot decode, or only to more than 256 MB: it leaves them out without an
        error, so that a page of one broken scan looks blank."""
        page = self._load(number)
        try:
            images = page.get_objects(filter=(pdfium_c.FPDF_PAGEOBJ_IMAGE,))
            return sum(not 0 < _decoded_bytes(image.get_metadata()) <= _HEAVY_IMAGE for image in images)
        finally:
            page.close()

    def layer(self, number: int) -> tuple[int, str]:
        """/Rotate in degrees, and the page's own text ("" where it has none). Raises ERRORS."""
        page = self._load(number)
        try:
            rotation = int(page.get_rotation())
            textpage = page.get_textpage()
            try:
                count = min(textpage.count_chars(), MAX_TEXT)
                text = textpage.get_text_range(0, count) if count > 0 else ""
            finally:
                textpage.close()
            return rotation, clean_text(text)
        finally:
            page.close()


def open_document(path: Path) -> tuple[Document | None, Opening]:
    """The open document, or None, and what PDFium says of the file."""
    try:
        document = Document(path)
    except CannotOpen as error:
        # 5: encrypted in a way that it does not know
        locked = error.code in (pdfium_c.FPDF_ERR_PASSWORD, pdfium_c.FPDF_ERR_SECURITY)
        return None, Opening(None, problem="password" if locked else "damaged", detail=str(error))
    if len(document) < 1:
        document.close()
        return None, Opening(None, problem="no_pages", detail="no pages")
    return document, Opening(document.page_count(), title=document.title())


def clean_text(text: str) -> str:
    """Text without control characters, marks of direction, lone surrogates and non-characters; lines end in a line
    feed."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    # PDFium puts one of these for a hyphen at a line's end, and takes the line break away.
    text = _HYPHEN_AT_LINE_END.sub("-\n", text)
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text[:MAX_TEXT]
    text = _TURNING.sub("", text)
    kept = (c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs", "Cn"))
    return "".join(kept)[:MAX_TEXT]


def _decoded_bytes(image: pdfium_c.FPDF_IMAGEOBJ_METADATA) -> int:
    """0 where PDFium could not load the image: its bits per pixel are 0 then."""
    return int(image.width * image.height * image.bits_per_pixel // 8)


def _may_have_units(path: Path) -> _UnitGate:
    """Look through the file's bytes, once, for the two ways in which a page can have a /UserUnit."""
    named = packed = False
    with path.open("rb") as file:
        tail = b""
        while chunk := file.read(_CHUNK):
            window = tail + chunk
            named = named or b"/UserUnit" in window
            packed = packed or b"/ObjStm" in window
            if named:
                break
            tail = window[-16:]
    return _UnitGate(named, packed)


@dataclass(frozen=True, slots=True)
class _UnitGate:
    named: bool  # the word stands in the file
    packed: bool  # page dictionaries may be compressed, so that the word cannot be seen

    def __call__(self, long_side: float) -> bool:
        """A large page with a unit only ends at the image's cap in any case; a small one would be unreadable."""
        return self.named or (self.packed and long_side < _SMALL_PAGE)
