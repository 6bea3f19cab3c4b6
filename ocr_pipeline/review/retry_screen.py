"""The screen of "ask again": what would be asked, and on a POST the asking.

Here belong the confirmation and the checks of the POST. There are no such routes unless the app may ask again.
"""

from __future__ import annotations

import logging
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ocr_pipeline.review import links, queries
from ocr_pipeline.review.asking_again import Asked, RetryRequest
from ocr_pipeline.review.context import Context, context
from ocr_pipeline.review.filters import page_filter
from ocr_pipeline.warehouse.failed import AGAIN, MAX_ASKED_AGAIN, AskedAgain, asked_again, failed_by_reason

log = logging.getLogger(__name__)

MAX_FORM = 16_384  # bytes


def confirm(request: Request) -> Response:
    """`GET /retry`: the pages behind a filter (as `/pages` takes it), one page (`document`, `page`), or a rejected
    document (`document` alone)."""
    app, query = context(request), dict(request.query_params)
    return _screen(app, request, query, _wanted(app, query), None, None)


async def ask(request: Request) -> Response:
    """`POST /retry`: the same, done."""
    app = context(request)
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_FORM:
            raise HTTPException(413)
    try:
        query = dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=50))
    except ValueError:  # more fields
        raise HTTPException(413) from None
    if not app.token.is_ours(request.headers, query.pop("token", "")):
        raise HTTPException(403)
    return await run_in_threadpool(_ask, app, request, query)


def _ask(app: Context, request: Request, query: dict[str, str]) -> Response:
    if app.ask_again is None:
        raise HTTPException(403)
    wanted = _wanted(app, query)
    asked = error = None
    if wanted.document_ids:
        try:
            asked = app.ask_again(RetryRequest(wanted.document_ids, tuple(sorted(wanted.reasons))))
        except Exception as failure:
            log.exception("asking again failed")
            error = str(failure).split("\n", 1)[0][:500] or "it could not be written"
    return _screen(app, request, query, wanted, asked, error)


def _screen(
    app: Context, request: Request, query: dict[str, str], wanted: AskedAgain, asked: Asked | None, error: str | None
) -> Response:
    return app.screen(
        request,
        "retry.html",
        500 if error else 200,
        wanted=wanted,
        form=_form(query),
        asked=asked,
        runs={batch: app.run_of(batch) for batch in asked.batches} if asked else {},
        error=error,
        most=MAX_ASKED_AGAIN,
        back=_back(query),
    )


def _wanted(app: Context, query: dict[str, str]) -> AskedAgain:
    with app.tables.read() as connection:
        if "document" not in query:
            return asked_again(connection, page_filter(query))
        document = queries.document(connection, query["document"])
        if document is None:
            raise HTTPException(404)
        status, reason = document.status, document.reason
        if "page" in query:
            found = queries.page(connection, document.document_id, _page_number(query["page"]))
            if found is None:
                raise HTTPException(404)
            status, reason = found[0].status, found[0].reason
        if reason is None or document.deleted_at or status not in (*AGAIN, "rejected"):
            return AskedAgain((), {}, 0, 0)
        asked = dict(failed_by_reason(connection, [reason], documents=[document.document_id]))
    return AskedAgain((document.document_id,), asked, 1, 1)


def _form(query: dict[str, str]) -> dict[str, str]:
    """What the form sends again: only fields that mean something."""
    if "document" in query:
        return {name: query[name] for name in ("document", "page") if name in query}
    return page_filter(query).as_query()


def _back(query: dict[str, str]) -> str:
    if "document" not in query:
        return links.with_query("/pages", page_filter(query).as_query())
    if "page" not in query:
        return links.document(query["document"])
    return links.page(query["document"], _page_number(query["page"]))


def _page_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise HTTPException(404)
    return int(text)
