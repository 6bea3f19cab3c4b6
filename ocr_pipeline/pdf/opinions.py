"""Two libraries look at one file: what their verdicts add up to. Pure decisions, no PDF is touched here.

Here belongs what makes a document readable or not, and which of two images of a page is taken.
Not here: asking the libraries (`renderer.py`).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from ocr_pipeline.records import Reason

MAX_TITLE = 500
MAX_DETAIL = 500


@dataclass(frozen=True, slots=True)
class Opening:
    """What one library says when it is asked to open a file."""

    pages: int | None  # None: it did not open
    title: str = ""
    problem: str = ""  # "" when it opened, else "password", "no_pages", "damaged", "lost" (it died or took too long)
    detail: str = ""


def page_count(openings: Sequence[Opening]) -> int | None:
    """Pages of a document that at least one library could open, or None.

    Where the two disagree the larger count is taken: a page that only one of them sees is a page, and its image is
    made by that one.
    """
    counts = [opening.pages for opening in openings if opening.pages is not None]
    return max(counts) if counts else None


def why_closed(openings: Sequence[Opening]) -> Reason:
    """Why a document that no library could open has no pages. The most telling verdict wins."""
    problems = {opening.problem for opening in openings}
    if "password" in problems:
        return Reason.ENCRYPTED
    if "lost" in problems:
        return Reason.INSPECT_TIMEOUT
    if "no_pages" in problems:
        return Reason.NO_PAGES
    return Reason.DAMAGED


@dataclass(frozen=True, slots=True)
class Image:
    """One library's image of one page."""

    jpeg: bytes
    width: int
    height: int
    ink: float
    renderer: str  # "poppler" or "pdfium"
    objects: int = 0  # things on the page that should show, where the library tells


@dataclass(frozen=True, slots=True)
class NoImage:
    """Why one library made no image of one page."""

    detail: str
    reason: Reason = Reason.RENDER_FAILED  # or RENDER_TIMEOUT, PAGE_TOO_LARGE
    undrawn: bool = False  # it came out empty, and there is something on the page that should show


def needs_second_opinion(first: Image | NoImage, blank_ink: float) -> bool:
    """Whether PDFium must draw the page too. An empty image is not believed at once: poppler draws nothing, without
    an error, for what it cannot decode, and a page that is taken for blank is never read by an engine."""
    return not isinstance(first, Image) or first.ink < blank_ink


def choose(first: Image | NoImage, second: Image | NoImage, blank_ink: float) -> Image | NoImage:
    """The image that is taken, of poppler's (`first`) and PDFium's (`second`), where both were asked."""
    if isinstance(first, Image):
        # Both empty: blank, unless PDFium knows of an image that it could not decode.
        shows = second.ink >= blank_ink if isinstance(second, Image) else second.undrawn
        return second if shows else first
    if isinstance(second, Image):
        if second.ink < blank_ink and second.objects > 0:
            # PDFium draws nothing, without an error, where memory runs out: not a blank page.
            why = f"PDFium drew an empty image of a page with {second.objects} objects on it"
            return NoImage(f"poppler: {first.detail}; {why}", first.reason)
        return second
    timed_out = Reason.RENDER_TIMEOUT in (first.reason, second.reason)
    reason = Reason.RENDER_TIMEOUT if timed_out else Reason.RENDER_FAILED
    return NoImage(f"poppler: {first.detail}; PDFium: {second.detail}", reason)


def clean_line(text: str, limit: int) -> str:
    """One line of printable text, for titles and error details that come out of hostile files."""
    kept = "".join(c if unicodedata.category(c) not in ("Cc", "Cs", "Cn") else " " for c in text)
    return " ".join(kept.split())[:limit].rstrip()
