"""What the PDF room hands out: limits in, facts, page images and faults out. No code that does anything."""

from __future__ import annotations

from dataclasses import dataclass

from ocr_pipeline.records import PageStatus, Reason


class PdfError(Exception):
    """The whole document cannot be read."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[PdfError], tuple[Reason, str]]:
        return type(self), (self.reason, self.detail)  # so that it comes through between processes


class RendererClosed(Exception):
    """`Renderer.close` was called: the call that was under way is ended, and later ones are refused."""


@dataclass(frozen=True, slots=True)
class RenderLimits:
    max_pages: int = 5000
    max_page_inches: float = 100
    seconds: float = 60  # to open a file, or to draw one page: for each of the two libraries
    memory_bytes: int = 1 << 30  # address space of the worker, and of each poppler program it starts


@dataclass(frozen=True, slots=True)
class PdfInfo:
    page_count: int
    title: str | None  # one line, at most 500 characters


@dataclass(frozen=True, slots=True)
class RenderedPage:
    number: int  # from 1
    jpeg: bytes
    sha256: str  # of `jpeg`, hex
    width: int  # pixels
    height: int
    rotation: int  # degrees, the page's /Rotate; the image is upright
    ink: float  # share of the page that is not background, 0 to 1; below BLANK_INK the page is blank (`ink.py`)
    text_layer: str  # the PDF's own text, at most 200,000 characters, "" where it has none
    renderer: str  # "poppler" or "pdfium"


@dataclass(frozen=True, slots=True)
class PageFault:
    number: int  # from 1
    reason: Reason  # RENDER_FAILED, RENDER_TIMEOUT or PAGE_TOO_LARGE
    detail: str
    status: PageStatus  # SKIPPED where the page is too large, else FAILED
    rotation: int
