"""The screens of one document: its pages, one page beside its image, the images themselves.

Here belongs what is asked for them and in which order. A part that is gone (image, transcript) is told in its place;
the rest is shown.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ocr_pipeline.lake import transcripts
from ocr_pipeline.lake.storage import ObjectUnreadable, Storage, StorageError
from ocr_pipeline.records import Transcript
from ocr_pipeline.review import images, links, queries
from ocr_pipeline.review.context import context
from ocr_pipeline.review.page_view import page_view
from ocr_pipeline.review.queries import Failed, PageRow

log = logging.getLogger(__name__)

PAGES_SHOWN = 200  # of one document at once
SHOWN = ("text", "raw", "attempts")
MAX_RAW = 1_000_000  # characters of a raw text that are shown
_KEEP = "private, max-age=31536000, immutable"
_HEX = frozenset("0123456789abcdef")


def document(request: Request) -> Response:
    """`/documents/{document_id}`: what is known of it, and its pages."""
    app, document_id = context(request), request.path_params["document_id"]
    first = max(1, min(_number(request.query_params.get("from", "1")), 2**31 - 1))
    with app.tables.read() as connection:
        row = queries.document(connection, document_id)
        if row is None:
            raise HTTPException(404)
        pages, counts = queries.pages_of(connection, document_id, first, PAGES_SHOWN + 1)
        next_failed = queries.failed_beside(connection, row, 0, forward=True)
        last_failed = queries.failed_beside(connection, row, 0, forward=False)
    shown = pages[:PAGES_SHOWN]
    return app.screen(
        request,
        "document.html",
        document=row,
        pages=shown,
        counts=counts,
        next_failed=_failed_link(next_failed),
        last_failed=_failed_link(last_failed),
        own_failed=next_failed is not None and next_failed.document_id == document_id,
        earlier=links.with_query(links.document(document_id), {"from": max(1, first - PAGES_SHOWN)})
        if first > 1
        else None,
        later=links.with_query(links.document(document_id), {"from": pages[PAGES_SHOWN].page_number})
        if len(pages) > PAGES_SHOWN
        else None,
        run=app.run_of(row.batch),
    )


def page(request: Request) -> Response:
    """`/documents/{document_id}/pages/{number}`: `show` is text, raw or attempts."""
    app, query = context(request), request.query_params
    document_id, number = request.path_params["document_id"], _page_number(request)
    show = query.get("show", "") if query.get("show") in SHOWN else "text"
    with app.tables.read() as connection:
        row = queries.document(connection, document_id)
        found = queries.page(connection, document_id, number)
        if row is None or found is None:
            raise HTTPException(404)
        regions = queries.regions(connection, document_id, number)
        attempts = queries.attempts(connection, document_id, number) if show == "attempts" else []
        next_failed = queries.failed_beside(connection, row, number, forward=True)
        last_failed = queries.failed_beside(connection, row, number, forward=False)
    this, markdown = found
    kept = {} if show == "text" else {"show": show}
    return app.screen(
        request,
        "page.html",
        document=row,
        page=this,
        view=page_view(this, markdown, regions),
        show=show,
        attempts=attempts,
        raw=_raw(app.lake, this) if show == "raw" else None,
        markdown=markdown,
        image=links.image(document_id, number, this.image_sha256),
        previous=links.page(document_id, number - 1, **kept) if number > 1 else None,
        next=links.page(document_id, number + 1, **kept) if number < row.page_count else None,
        next_failed=_failed_link(next_failed),
        last_failed=_failed_link(last_failed),
        run=app.run_of(this.batch),
    )


def image(request: Request) -> Response:
    """The page image: found by its row, never by an address that a browser sent."""
    app = context(request)
    with app.tables.read() as connection:
        found = queries.image(connection, request.path_params["document_id"], _page_number(request))
    if found is None:
        return _no_image("there is no such page")
    uri, sha256 = found
    try:
        data = images.page_image(app.lake, uri)
    except images.NoImage as why:
        return _no_image(str(why))
    kept = {"Cache-Control": _KEEP} if sha256 and request.query_params.get("v") == sha256 else None
    return Response(data, media_type="image/jpeg", headers=kept)


def figure(request: Request) -> Response:
    """A figure that was cut out of a page."""
    app = context(request)
    with app.tables.read() as connection:
        row = queries.document(connection, request.path_params["document_id"])
    if row is None:
        return _no_image("there is no such document")
    try:
        data = images.figure(app.lake, row.source_uri, _page_number(request), request.path_params["region"])
    except images.NoImage as why:
        return _no_image(str(why))
    return Response(data, media_type="image/jpeg")


@dataclass(frozen=True, slots=True)
class Raw:
    """What the model wrote, as it wrote it: the text that was taken, and those of other attempts."""

    transcript: Transcript | None
    missing: str  # why there is none
    taken: str
    cut: bool


def _raw(lake: Storage, page: PageRow) -> Raw:
    """The page's transcript. Its key is made of two hashes of the row, which must be hashes."""
    sha256, recipe = page.image_sha256 or "", page.recipe_id
    if not sha256:
        return Raw(None, "No engine was asked for this page: it has no image.", "", False)
    if not _HEX.issuperset(sha256) or not recipe.isascii() or not recipe.replace("-", "").isalnum():
        return Raw(None, "The row of this page names no transcript.", "", False)
    try:
        found = transcripts.read(lake, recipe, sha256)
    except ObjectUnreadable as error:
        log.warning("page %s of %s: %s", page.page_number, page.document_id, error)
        return Raw(None, "The transcript of this page is there, but it cannot be read.", "", False)
    except StorageError:
        return Raw(None, "The lake cannot be read: see `ocr-pipeline doctor`.", "", False)
    if found is None:
        return Raw(None, "This page has no transcript in the lake: no engine was asked, or it is gone.", "", False)
    return Raw(found, "", found.text[:MAX_RAW], len(found.text) > MAX_RAW)


def _failed_link(failed: Failed | None) -> str | None:
    if failed is None:
        return None
    if failed.page_number is None:
        return links.document(failed.document_id)
    return links.page(failed.document_id, failed.page_number)


def _page_number(request: Request) -> int:
    number: int = request.path_params["number"]
    if not 0 < number < 2**31:
        raise HTTPException(404)
    return number


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else 1


def _no_image(why: str) -> Response:
    return PlainTextResponse(why, status_code=404)
