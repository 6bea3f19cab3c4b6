"""What every screen is given: lake, warehouse, templates, and the few choices made when the app was started.

Here belongs what the screens share. A screen is a plain function of a request, run in a thread, since DuckDB and the
lake block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse

from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.review import formatting
from ocr_pipeline.review.asking_again import RetryHandler
from ocr_pipeline.review.guards import Token
from ocr_pipeline.review.held_open import HeldOpen
from ocr_pipeline.warehouse.connection import Warehouse


@dataclass(frozen=True, slots=True)
class Context:
    lake: Storage
    warehouse: Warehouse
    tables: HeldOpen  # the same; a question that takes a warehouse is asked while this one is open
    templates: Environment
    token: Token
    ask_again: RetryHandler | None = None  # None: the app only reads
    dagster_url: str | None = None  # root of Dagster's UI

    def screen(self, request: Request, template: str, status_code: int = 200, **values: Any) -> HTMLResponse:
        """A template as an answer. Sync: call it in a thread."""
        common: Mapping[str, Any] = {
            "path": request.url.path,
            "can_ask_again": self.ask_again is not None,
            "token": self.token.value,
            "query_words": request.query_params.get("q", "")[:500],
        }
        return HTMLResponse(formatting.render(self.templates, template, {**common, **values}), status_code)

    def message(self, request: Request, status_code: int, title: str, text: str) -> HTMLResponse:
        """A screen that says what is wrong and what to do, never how the program is made."""
        return self.screen(request, "message.html", status_code, title=title, text=text)

    def run_of(self, batch: str) -> str | None:
        """The batch in Dagster's UI."""
        if not self.dagster_url:
            return None
        return f"{self.dagster_url.rstrip('/')}/assets/ocr_markdown?partition={quote(batch, safe='')}"


def context(request: Request) -> Context:
    found: Context = request.app.state.context
    return found
