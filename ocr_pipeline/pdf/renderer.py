"""A PDF file on the local disk: what it is (`inspect`), and its page images with their text layer (`render`).

Here belongs the order of events: which library is asked for what, and what a page becomes when one of them fails.
Not here: the libraries (`poppler.py`, `pdfium.py`, in the worker process), the process (`isolation.py`), the
arithmetic (`geometry.py`, `opinions.py`). How large a file may be is the caller's matter.

poppler (through pdf2image) draws first, PDFium gives the second opinion, and is the only one where poppler is not
installed. PDFium gives page sizes and text layers. All of it happens in one worker process with a memory limit, which
is killed, together with poppler, when it takes too long.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Self

from ocr_pipeline.pdf import opinions
from ocr_pipeline.pdf.frames import Frame
from ocr_pipeline.pdf.geometry import effective_dpi, has_area, is_too_large, pixel_size
from ocr_pipeline.pdf.ink import BLANK_INK
from ocr_pipeline.pdf.isolation import Document, IsolatedWorker
from ocr_pipeline.pdf.opinions import Image, NoImage, Opening
from ocr_pipeline.pdf.pages import PageFault, PdfError, PdfInfo, RenderedPage, RendererClosed, RenderLimits
from ocr_pipeline.pdf.process import WorkerLost
from ocr_pipeline.records import Geometry, PageStatus, Reason

__all__ = [
    "BLANK_INK",
    "PageFault",
    "PdfError",
    "PdfInfo",
    "RenderLimits",
    "RenderedPage",
    "Renderer",
    "RendererClosed",
    "poppler_installed",
]

_HEAD = 1024  # bytes of the file in which `%PDF-` must stand
_LAYER_SECONDS = 10.0  # a text layer is worth no more; it takes 2 ms


@dataclass(frozen=True, slots=True)
class _Plan:
    number: int
    dpi: float  # dots to 72 units of the page
    pixels: tuple[int, int]
    rotation: int


def poppler_installed() -> bool:
    """Whether poppler's programs are on the PATH. Without them PDFium does everything."""
    return shutil.which("pdftoppm") is not None and shutil.which("pdfinfo") is not None


class Renderer:
    """Owns one worker process, started when it is needed. Use it from one thread at a time, and close it, from any."""

    def __init__(self, limits: RenderLimits) -> None:
        self._limits = limits
        self._poppler = poppler_installed()
        self._worker = IsolatedWorker(limits.memory_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the worker process. A call that is under way raises RendererClosed, and so does every later one."""
        self._worker.close()

    def inspect(self, path: Path) -> PdfInfo:
        """Page count and title. Raises PdfError where the document cannot be read, OSError where the file cannot."""
        with path.open("rb") as file:
            head = file.read(_HEAD)
        if not head:
            raise PdfError(Reason.EMPTY_FILE, "the file has 0 bytes")
        if b"%PDF-" not in head:
            raise PdfError(Reason.NOT_A_PDF, f"no %PDF- in the first {_HEAD} bytes")
        document = self._worker.document(path)
        by_pdfium = self._opening("open_pdfium", document)
        by_poppler = self._opening("open_poppler", document) if self._poppler else Opening(None, detail="not installed")
        document.pdfium, document.poppler = by_pdfium.pages is not None, by_poppler.pages is not None
        count = opinions.page_count((by_pdfium, by_poppler))
        if count is None:
            said = f"poppler: {by_poppler.detail}; PDFium: {by_pdfium.detail}"
            raise PdfError(opinions.why_closed((by_pdfium, by_poppler)), _sanitised(said, document))
        if count < 1:
            raise PdfError(Reason.NO_PAGES, "the PDF opens and has no pages")
        if count > self._limits.max_pages:
            raise PdfError(Reason.TOO_MANY_PAGES, f"{count} pages; the limit is {self._limits.max_pages}")
        titles = [opinions.clean_line(opening.title, opinions.MAX_TITLE) for opening in (by_pdfium, by_poppler)]
        return PdfInfo(count, next(filter(None, titles), None))

    def render(self, path: Path, first: int, last: int, geometry: Geometry) -> list[RenderedPage | PageFault]:
        """Pages `first` to `last`, both included, in order: one entry per page, whatever becomes of it.

        Raises OSError where the file cannot be read, never for a page.
        """
        document = self._worker.document(path)
        numbers = range(first, last + 1)
        plans = {number: self._plan(number, found, geometry) for number, found in self._sizes(document, numbers)}
        drawn = self._draw(document, [plan for plan in plans.values() if isinstance(plan, _Plan)], geometry)
        layers = self._layers(document, [n for n in numbers if _can_be_loaded(drawn.get(n))])
        pages: list[RenderedPage | PageFault] = []
        for number, plan in plans.items():
            outcome = drawn[number] if isinstance(plan, _Plan) else plan
            rotation, text = layers.get(number) or (plan.rotation if isinstance(plan, _Plan) else 0, "")
            if isinstance(outcome, Image):
                pages.append(_page(number, outcome, rotation, text))
            else:
                status = PageStatus.SKIPPED if outcome.reason is Reason.PAGE_TOO_LARGE else PageStatus.FAILED
                pages.append(PageFault(number, outcome.reason, _sanitised(outcome.detail, document), status, rotation))
        return pages

    def _opening(self, op: str, document: Document) -> Opening:
        answer = self._worker.ask(op, document, self._limits.seconds)
        if isinstance(answer, WorkerLost):
            return Opening(None, problem="lost", detail=answer.detail)
        said = answer[0]
        return Opening(said["pages"], str(said["title"]), str(said["problem"]), str(said["detail"]))

    def _sizes(self, document: Document, numbers: Sequence[int]) -> Iterator[tuple[int, Frame | WorkerLost | None]]:
        """What is known of each page's size: PDFium's word, and poppler's for pages that PDFium does not find."""
        found: dict[int, Frame | WorkerLost] = {}
        for op, can_open in (("sizes", document.pdfium), ("poppler_sizes", self._poppler and document.poppler)):
            missing = [number for number in numbers if not _has_size(found.get(number))]
            if can_open and missing:
                found.update(self._worker.ask_pages(op, document, missing, self._limits.seconds))
        return ((number, found.get(number)) for number in numbers)

    def _plan(self, number: int, found: Frame | WorkerLost | None, geometry: Geometry) -> _Plan | NoImage:
        if found is None or isinstance(found, WorkerLost) or found[0]["size"] is None:
            return NoImage(f"no size: {found.detail}" if isinstance(found, WorkerLost) else "the page is not found")
        width, height = found[0]["size"]
        if is_too_large(width, height, self._limits.max_page_inches):
            limit = f"the limit is {self._limits.max_page_inches:g}"
            return NoImage(f"{width:.1f} x {height:.1f} inches; {limit}", Reason.PAGE_TOO_LARGE)
        if not has_area(width, height):
            return NoImage(f"the page has no area: {width:g} x {height:g} inches")
        dpi = effective_dpi(width, height, geometry)
        return _Plan(
            number,
            dpi * found[0]["unit"],
            pixel_size(width, height, dpi),
            found[0].get("rotation", 0),
        )

    def _draw(self, document: Document, plans: Sequence[_Plan], geometry: Geometry) -> dict[int, Image | NoImage]:
        if not (self._poppler and document.poppler):
            return self._draw_with_pdfium(document, plans, geometry)
        first = self._draw_with_poppler(document, plans, geometry)
        doubtful = [plan for plan in plans if opinions.needs_second_opinion(first[plan.number], BLANK_INK)]
        if not doubtful or not document.pdfium:
            return first
        if len(doubtful) < len(plans):
            document.lost_in_a_row["draw_pdfium"] = 0  # pages with an image came between: not a row
        second = self._draw_with_pdfium(document, doubtful, geometry)
        chosen = {number: opinions.choose(first[number], second[number], BLANK_INK) for number in second}
        return first | chosen

    def _draw_with_poppler(
        self, document: Document, plans: Sequence[_Plan], geometry: Geometry
    ) -> dict[int, Image | NoImage]:
        images: dict[int, Image | NoImage] = {}
        for run in _runs(plans):
            images |= self._draw_run(document, run, geometry)
        return images

    def _draw_run(self, document: Document, run: Sequence[_Plan], geometry: Geometry) -> dict[int, Image | NoImage]:
        fields = {"dpi": run[0].dpi, "quality": geometry.jpeg_quality}
        numbers = [plan.number for plan in run]
        answers = self._worker.ask_pages("draw_poppler", document, numbers, self._limits.seconds, lambda _: fields)
        return {plan.number: _image(answers[plan.number], "poppler", plan) for plan in run}

    def _draw_with_pdfium(
        self, document: Document, plans: Sequence[_Plan], geometry: Geometry
    ) -> dict[int, Image | NoImage]:
        dpi = {plan.number: plan.dpi for plan in plans}
        answers = self._worker.ask_pages(
            "draw_pdfium",
            document,
            list(dpi),
            self._limits.seconds,
            lambda pages: {"dpi": [dpi[number] for number in pages], "quality": geometry.jpeg_quality},
        )
        return {plan.number: _image(answers[plan.number], "pdfium", plan) for plan in plans}

    def _layers(self, document: Document, numbers: Sequence[int]) -> dict[int, tuple[int, str]]:
        """/Rotate and text of each page that PDFium can load."""
        if not document.pdfium:
            return {}
        seconds = min(self._limits.seconds, _LAYER_SECONDS)
        answers = self._worker.ask_pages("layers", document, numbers, seconds)
        return {
            number: (answer[0]["rotation"], answer[1].decode("utf-8", "replace"))
            for number, answer in answers.items()
            if not isinstance(answer, WorkerLost)
        }


def _runs(plans: Sequence[_Plan]) -> Iterator[list[_Plan]]:
    """Consecutive pages of one resolution: what one start of poppler can draw."""
    for _, members in groupby(enumerate(plans), key=lambda item: (item[1].dpi, item[1].number - item[0])):
        yield [plan for _, plan in members]


def _has_size(found: Frame | WorkerLost | None) -> bool:
    return found is not None and not isinstance(found, WorkerLost) and found[0]["size"] is not None


def _can_be_loaded(outcome: Image | NoImage | None) -> bool:
    """False for a page that PDFium failed to draw: reading its text would kill or hang the worker once more."""
    return not isinstance(outcome, NoImage)


def _image(answer: Frame | WorkerLost, renderer: str, plan: _Plan) -> Image | NoImage:
    if isinstance(answer, WorkerLost):
        return NoImage(answer.detail, Reason.RENDER_TIMEOUT if answer.timed_out else Reason.RENDER_FAILED)
    said, jpeg = answer
    if "error" in said:
        return NoImage(str(said["error"]) or "no image")
    width, height = said["width"], said["height"]
    if abs(width - plan.pixels[0]) > 1 or abs(height - plan.pixels[1]) > 1:
        # The size was PDFium's. poppler makes an image of 1 x 1 for a page that it does not find.
        planned = f"{plan.pixels[0]} x {plan.pixels[1]}"
        return NoImage(f"an image of {width} x {height} pixels where {planned} were planned")
    if said["undrawn_images"]:
        return NoImage("the page came out empty, and holds an image that cannot be decoded", undrawn=True)
    return Image(jpeg, width, height, said["ink"], renderer, said["objects"])


def _page(number: int, image: Image, rotation: int, text: str) -> RenderedPage:
    return RenderedPage(
        number=number,
        jpeg=image.jpeg,
        sha256=hashlib.sha256(image.jpeg).hexdigest(),
        width=image.width,
        height=image.height,
        rotation=rotation,
        ink=image.ink,
        text_layer=text,
        renderer=image.renderer,
    )


def _sanitised(said: str, document: Document) -> str:
    """An error as it goes into a table: one line, without the path on this machine."""
    return opinions.clean_line(said.replace(str(document.path), document.path.name), opinions.MAX_DETAIL)
