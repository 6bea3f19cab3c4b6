"""The review app, put together: routes, guards, and what happens when something is not there.

Here belongs the assembly. A screen is a function in a module of its own; nothing here asks the tables.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Collection

import duckdb
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.review import formatting, lists, one_page, overview_screen, retry_screen
from ocr_pipeline.review.asking_again import RetryHandler
from ocr_pipeline.review.context import Context, context
from ocr_pipeline.review.guards import LOCAL_HOSTS, Guards, Token
from ocr_pipeline.review.held_open import HeldOpen
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import WarehouseError, WarehouseInUse, WarehouseUnreachable

log = logging.getLogger(__name__)

_MESSAGES = {
    403: ("Not allowed", "This request did not come from a page of this app. Open the page again and try once more."),
    404: ("Not found", "There is no such document or page in the tables. It may have been replaced or purged."),
    405: ("Not possible", "This address does not take such a request."),
    413: ("Too large", "The request is larger than this app takes."),
}


def build_app(
    lake: Storage,
    warehouse: Warehouse,
    *,
    allow_retry: RetryHandler | None = None,
    allowed_hosts: Collection[str] = LOCAL_HOSTS,
    dagster_url: str | None = None,
) -> Guards:
    """The app over one lake and one warehouse.

    `allow_retry`: what "ask again" calls; without it nothing can be set going. `allowed_hosts`: names under which it
    may be asked, without ports. `warehouse` should wait only a few seconds for a file in use, since a person waits too.
    """
    token = Token()
    state = Context(lake, warehouse, HeldOpen(warehouse), formatting.environment(), token, allow_retry, dagster_url)
    routes = [
        Route("/", lambda _: RedirectResponse("/documents")),
        Route("/documents", lists.documents),
        Route("/documents/{document_id}", one_page.document),
        Route("/documents/{document_id}/pages/{number:int}", one_page.page),
        Route("/documents/{document_id}/pages/{number:int}/image", one_page.image),
        Route("/documents/{document_id}/pages/{number:int}/figures/{region:int}", one_page.figure),
        Route("/pages", lists.pages),
        Route("/search", lists.search),
        Route("/overview", overview_screen.overview),
        Mount("/static", StaticFiles(packages=[("ocr_pipeline.review", "static")])),
    ]
    if allow_retry is not None:
        routes += [
            Route("/retry", retry_screen.confirm, methods=["GET"]),
            Route("/retry", retry_screen.ask, methods=["POST"]),
        ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            HTTPException: _told,
            WarehouseInUse: _in_use,
            WarehouseUnreachable: _unreachable,
            WarehouseError: _warehouse,
            duckdb.Error: _warehouse,
            Exception: _fault,
        },
        lifespan=_lifespan,
    )
    app.state.context = state
    return Guards(app, allowed_hosts)  # around all of it: Starlette answers a fault outside of its own middleware


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await run_in_threadpool(app.state.context.tables.close)


async def _told(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    title, text = _MESSAGES.get(status, ("Not possible", "This request cannot be answered."))
    return await run_in_threadpool(context(request).message, request, status, title, text)


async def _in_use(request: Request, error: Exception) -> Response:
    log.warning("the tables could not be asked: %s", error)
    text = f"The tables are being loaded: {error}. Try again in a few seconds."
    return await _later(request, "Tables in use", text, 5)


async def _unreachable(request: Request, error: Exception) -> Response:
    log.warning("the tables could not be asked: %s", error)
    return await _later(request, "Tables out of reach", f"{error}. Try again in a minute.", 60)


async def _later(request: Request, title: str, text: str, seconds: int) -> Response:
    answer = await run_in_threadpool(context(request).message, request, 503, title, text)
    answer.headers["Retry-After"] = str(seconds)
    return answer


async def _warehouse(request: Request, error: Exception) -> Response:
    """Nothing that a wait would mend."""
    log.warning("the tables could not be asked: %s", error)
    why = str(error) if isinstance(error, WarehouseError) else "a query failed; the log of this command says why"
    text = f"The tables cannot be asked: {why}. `ocr-pipeline doctor` checks them."
    return await run_in_threadpool(context(request).message, request, 500, "Tables out of order", text)


async def _fault(request: Request, error: Exception) -> Response:
    """A fault of ours: the log has the traceback, the screen does not."""
    text = "Something went wrong in this app; the log of the command says what."
    return await run_in_threadpool(context(request).message, request, 500, "Something went wrong", text)
