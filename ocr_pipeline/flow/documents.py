"""Pure assembly: what rendering and OCR made of one document -> its rows and the text of its markdown file.

No reading or writing. The ledger rule lives here: a document that is not rejected gets exactly one `Page` for each
page of its PDF, whatever happened to it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date
from itertools import groupby
from typing import Any

from ocr_pipeline.flow import figures
from ocr_pipeline.flow.attempts import of_transcript, sent
from ocr_pipeline.flow.reading import PageReading
from ocr_pipeline.flow.rendered import RenderedDocument, RenderedPage
from ocr_pipeline.lake import keys
from ocr_pipeline.ocr.engines.engine import raw_text
from ocr_pipeline.ocr.engines.text_layer import layer_lines
from ocr_pipeline.ocr.parsing.parse import parse, parse_text
from ocr_pipeline.records import (
    Batch,
    Document,
    DocumentStatus,
    Page,
    PageAttempt,
    PageRegion,
    PageStatus,
    ParsedPage,
    Reason,
)

SPECKS = 5e-4
"""Ink below which a page without text is blank and not failed: dust on a scanned page measures 1e-5 to 5e-4, as much
as a page number, so the engine is asked and believed (`pdf/ink.py` has the measurements)."""

_FIGURE_LINK = re.compile(r"!\[([^\[\]\n]{0,300})\]\(figure:(\d{1,6})\)")


def ingest_date(batch: Batch) -> date:
    """UTC date of the batch's newest upload: the partition folder of its Parquet files. The batch has uploads."""
    return max(upload.last_modified for upload in batch.uploads).astimezone(UTC).date()


def status_of(pages: Sequence[Page]) -> DocumentStatus:
    """ok when every page has its text, failed when none has, partial between."""
    good = sum(not page.status.is_bad for page in pages)
    if good == len(pages):
        return DocumentStatus.OK
    return DocumentStatus.PARTIAL if good else DocumentStatus.FAILED


@dataclass(frozen=True, slots=True)
class PageRows:
    """The rows of some pages of one document, in their order."""

    pages: tuple[Page, ...]
    regions: tuple[PageRegion, ...]
    attempts: tuple[PageAttempt, ...]


def page_rows(
    batch: Batch,
    document: RenderedDocument,
    pages: Sequence[RenderedPage],
    readings: Mapping[int, PageReading],
    recipe_id: str,
    uri_of: Callable[[str], str],
) -> PageRows:
    """All rows of these pages of the document. `readings`: by page number. `uri_of` turns a lake key into the URI
    people see."""
    day = ingest_date(batch)
    rows: list[Page] = []
    regions: list[PageRegion] = []
    attempts: list[PageAttempt] = []
    for drawn in pages:
        reading = readings.get(drawn.number)
        if reading is not None:
            attempts += _numbered(sent(reading, document.document_id))
        status, reason, detail = page_outcome(drawn, reading)
        if drawn.status is not None or reason is Reason.IMAGE_GONE:
            reading = None  # there is none, or it is another image's
        parsed = _parsed(drawn, reading, status)
        regions += [
            PageRegion(document.document_id, drawn.number, index, region) for index, region in enumerate(parsed.regions)
        ]
        rows.append(
            Page(
                document_id=document.document_id,
                page_number=drawn.number,
                status=status,
                reason=reason,
                detail=detail,
                markdown=_figure_links(document.upload.key, drawn, parsed),
                width=drawn.width,
                height=drawn.height,
                rotation=drawn.rotation,
                image_uri=uri_of(drawn.image_key) if drawn.image_key else None,
                image_sha256=drawn.image_sha256,
                batch=batch.name,
                ingest_date=day,
                **_columns_of_reading(document, reading, status, recipe_id),
            )
        )
    return PageRows(tuple(rows), tuple(regions), tuple(attempts))


def document_row(
    batch: Batch, document: RenderedDocument, pages: Sequence[Page], recipe_id: str, uri_of: Callable[[str], str]
) -> Document:
    """The document's own row, from all of its pages (their text does not matter)."""
    return Document(
        document_id=document.document_id,
        source_uri=uri_of(document.upload.key),
        etag=document.upload.etag,
        uploaded_at=document.upload.last_modified,
        size_bytes=document.upload.size,
        content_sha256=document.content_sha256,
        page_count=document.page_count,
        title=document.title,
        status=DocumentStatus.REJECTED if document.reason else status_of(pages),
        reason=document.reason or _commonest_reason(pages),
        detail=document.detail,
        batch=batch.name,
        ingest_date=ingest_date(batch),
        markdown_uri=None if document.reason else uri_of(keys.markdown(document.upload.key)),
        recipe_id=recipe_id,
        deleted_at=None,
        processed_at=max([document.rendered_at, *(page.processed_at for page in pages)]),
    )


def page_outcome(rendered: RenderedPage, read: PageReading | None) -> tuple[PageStatus, Reason | None, str | None]:
    """How a page ended, why, and that in words. It looks at no text, so it costs nothing."""
    if rendered.status is not None:
        return rendered.status, rendered.reason, rendered.detail
    transcript = read.transcript if read is not None else None
    if read is None or (transcript is not None and transcript.image_sha256 != rendered.image_sha256):
        return PageStatus.FAILED, Reason.IMAGE_GONE, "the page was rendered and never read"
    if transcript is None:
        return (PageStatus.OK, None, None) if read.layer is not None else (PageStatus.FAILED, read.reason, read.detail)
    if transcript.reason is Reason.EMPTY_TEXT and rendered.ink < SPECKS:
        return PageStatus.BLANK, None, "specks and no text"
    status = PageStatus.FALLBACK if read.layer is not None else transcript.status
    return status, transcript.reason, transcript.detail


def page_markdown(page: Page) -> str:
    """The page's part of the document's `.md` file: its text after a comment with its number.

    Where a page has no text the comment says why, so that nobody takes a gap for the whole.
    """
    note = "" if page.status is PageStatus.OK else f": {page.status}" + (f", {page.reason}" if page.reason else "")
    return f"<!-- page {page.page_number}{note} -->\n\n{page.markdown}".rstrip()


def _columns_of_reading(
    document: RenderedDocument, reading: PageReading | None, status: PageStatus, recipe_id: str
) -> dict[str, Any]:
    """The columns of a page's row that say how it was read; `reading` is None where it was not."""
    columns: dict[str, Any] = {
        "engine": None,
        "backend": None,
        "model": None,
        "attempts": 0,
        "prompt_tokens": None,
        "completion_tokens": None,
        "seconds": None,
        "finish_reason": None,
        "quality": None,
        "agreement": None,
        "recipe_id": recipe_id,
        "processed_at": document.rendered_at,
    }
    transcript = reading.transcript if reading is not None else None
    if reading is not None and transcript is not None:
        columns |= {
            "engine": transcript.engine,
            "backend": transcript.backend,
            "model": transcript.model,
            "attempts": len(of_transcript(reading, document.document_id)),
            "prompt_tokens": transcript.prompt_tokens,
            "completion_tokens": transcript.completion_tokens,
            "seconds": transcript.seconds,
            "finish_reason": transcript.finish_reason,
            "quality": transcript.quality,
            "agreement": transcript.agreement,
            "recipe_id": transcript.recipe_id,  # a retry keeps pages of an earlier recipe
            "processed_at": transcript.finished_at,
        }
    if reading is not None and reading.layer is not None and status in _HAS_TEXT:
        columns |= {"engine": "text_layer", "backend": "pdf", "model": "text_layer"}
    return columns


_HAS_TEXT = (PageStatus.OK, PageStatus.FALLBACK)


def _parsed(drawn: RenderedPage, reading: PageReading | None, status: PageStatus) -> ParsedPage:
    if reading is None or status not in _HAS_TEXT:
        return ParsedPage("")
    if reading.layer is not None:
        # through the layout of plain lines, which escapes: a PDF's own words must not become markup
        lines = raw_text(layer_lines(reading.layer))
        return parse_text(lines, "lines", drawn.width or 0, drawn.height or 0)
    return parse(reading.transcript) if reading.transcript is not None else ParsedPage("")


def _numbered(requests: Iterable[PageAttempt]) -> list[PageAttempt]:
    """One page's requests, numbered under each recipe in the order in which they were sent."""
    found: list[PageAttempt] = []
    in_order = sorted(requests, key=lambda request: (request.recipe_id, request.attempt.started_at))
    for recipe_id, of_recipe in groupby(in_order, key=lambda request: request.recipe_id):
        found += [
            PageAttempt(recipe_id, replace(request.attempt, attempt=place))
            for place, request in enumerate(of_recipe, 1)
        ]
    return found


def _figure_links(upload_key: str, rendered: RenderedPage, parsed: ParsedPage) -> str:
    """`![…](figure:3)` becomes a link to the cropped figure, relative to the document's markdown file; a figure that
    was not cut out leaves its words alone."""
    cropped = figures.boxes(parsed.regions, rendered.width or 0, rendered.height or 0)
    folder = posixpath.dirname(keys.markdown(upload_key))

    def link(match: re.Match[str]) -> str:
        words, index = match[1], int(match[2])
        if index not in cropped:
            return words
        path = posixpath.relpath(keys.figure(upload_key, rendered.number, index), folder)
        return f"![{words}](<" + path.replace("<", "%3C").replace(">", "%3E").replace("\n", "%0A") + ">)"

    return _FIGURE_LINK.sub(link, parsed.markdown)


def _commonest_reason(pages: Sequence[Page]) -> Reason | None:
    reasons = [page.reason for page in pages if page.status.is_bad and page.reason]
    return max(sorted(set(reasons)), key=reasons.count) if reasons else None
