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

from ocr_pipeline.review import links, page_list, questions
from ocr_pipeline.review.asking_again import RetryRequest
from ocr_pipeline.review.context import Context, context
from ocr_pipeline.review.page_list import AskedAgain, PageFilter

log = logging.getLogger(__name__)

MAX_FORM = 16_384  # bytes


def confirm(request: Request) -> Response:
    """`GET /retry`: the pages behind a filter (as `/pages` takes it), or one page (`document`, `page`)."""
    app = context(request)
    query = dict(request.query_params)
    wanted = _wanted(app, query)
    return app.screen(
        request,
        "retry.html",
        wanted=wanted,
        form=_form(query),
        batch=None,
        error=None,
        most=page_list.MAX_ASKED_AGAIN,
        run=None,
        back=_back(query),
    )


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
    batch = error = None
    if wanted.pages:
        try:
            batch = app.ask_again(
                RetryRequest(tuple(wanted.pages), tuple(sorted(reason for reason in wanted.reasons if reason)))
            )
        except Exception as failure:
            log.exception("asking again failed")
            error = str(failure).split("\n", 1)[0][:500] or "it could not be written"
    return app.screen(
        request,
        "retry.html",
        500 if error else 200,
        wanted=wanted,
        form=_form(query),
        batch=batch,
        error=error,
        most=page_list.MAX_ASKED_AGAIN,
        run=app.run_of(batch) if batch else None,
        back=_back(query),
    )


def _wanted(app: Context, query: dict[str, str]) -> AskedAgain:
    with app.warehouse.read() as connection:
        if "document" not in query:
            return page_list.asked_again(connection, PageFilter.from_query(query))
        text = query.get("page", "")
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise HTTPException(404)
        found = questions.page(connection, query["document"], int(text))
    if found is None:
        raise HTTPException(404)
    page, _ = found
    if page.status not in ("failed", "skipped"):
        return AskedAgain((), {}, 0)
    return AskedAgain(((page.document_id, page.page_number),), {page.reason or "": 1}, 1)


def _form(query: dict[str, str]) -> dict[str, str]:
    """What the form sends again: only fields that mean something."""
    if "document" in query:
        return {"document": query["document"], "page": query.get("page", "")}
    return PageFilter.from_query(query).as_query()


def _back(query: dict[str, str]) -> str:
    text = query.get("page", "")
    if "document" in query and text.isascii() and text.isdigit():
        return links.page(query["document"], int(text[:9]))
    return links.with_query("/pages", PageFilter.from_query(query).as_query())
