"""The screens that are lists: documents, pages, hits of a search.

Here belongs the step from a query string to a list and back to the addresses of its other pages. Everything in a query
string is checked; what is wrong in it is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ocr_pipeline.records import DocumentStatus, PageStatus
from ocr_pipeline.review import links, page_list, questions
from ocr_pipeline.review.context import context
from ocr_pipeline.warehouse import listing
from ocr_pipeline.warehouse.search import search as search_text

PAGEFUL = 50
HITS = 50


def documents(request: Request) -> Response:
    """`/documents`: filter, sort, go on."""
    app, query = context(request), request.query_params
    sort = query.get("sort", "") if query.get("sort") in listing.SORTS else "uploaded_at"
    descending = _descending(query, default=sort not in ("source_uri", "status"))
    wanted = {name: query.get(name, "")[:1000] for name in ("name", "status", "reason")}
    place = links.place_from_text(query.get("after", ""), length=2)
    after = _document_place(sort, place)
    with app.tables.read() as connection:
        found = listing.documents(
            app.warehouse,
            name=wanted["name"] or None,
            status=wanted["status"] or None,
            reason=wanted["reason"] or None,
            sort=sort,
            descending=descending,
            after=after,
            limit=PAGEFUL,
        )
        read = questions.pages_of_documents(connection, [row.document_id for row in found.documents])
        choices = questions.choices(connection)
    kept = {**wanted, "sort": sort, "order": _order(descending)}
    seen = _seen(query) if after else 0
    return app.screen(
        request,
        "documents.html",
        rows=[(row, read.get(row.document_id)) for row in found.documents],
        total=found.total,
        seen=seen,
        wanted=wanted,
        reasons=choices["reason"],
        statuses=[status.value for status in DocumentStatus],
        columns=_columns(_DOCUMENT_COLUMNS, "/documents", wanted, sort, descending, listing.SORTS),
        sort=sort,
        order=_order(descending),
        next=_next("/documents", kept, found.next, seen + len(found.documents)),
        first=links.with_query("/documents", kept) if after else None,
    )


def pages(request: Request) -> Response:
    """`/pages`: what stands behind a bar of the overview, and the worst pages first."""
    app, query = context(request), request.query_params
    wanted = page_list.PageFilter.from_query(query)
    sort = query.get("sort", "") if query.get("sort") in page_list.SORTS else "processed_at"
    descending = _descending(query, default=page_list.SORTS[sort][1])
    after = links.place_from_text(query.get("after", ""), length=3)
    with app.tables.read() as connection:
        found = page_list.pages(connection, wanted, sort=sort, descending=descending, after=after, limit=PAGEFUL)
        choices = questions.choices(connection)
    kept = {**wanted.as_query(), "sort": sort, "order": _order(descending)}
    seen = _seen(query) if after else 0
    return app.screen(
        request,
        "pages.html",
        rows=found.pages,
        total=found.total,
        seen=seen,
        wanted=wanted,
        reasons=choices["reason"],
        backends=choices["backend"],
        statuses=[status.value for status in PageStatus],
        columns=_columns(_PAGE_COLUMNS, "/pages", wanted.as_query(), sort, descending, page_list.SORTS),
        sort=sort,
        order=_order(descending),
        next=_next("/pages", kept, found.next, seen + len(found.pages)),
        first=links.with_query("/pages", kept) if after else None,
        retry=links.with_query("/retry", wanted.as_query()),
    )


def search(request: Request) -> Response:
    """`/search?q=`: pages that hold every word, best first."""
    app = context(request)
    words = request.query_params.get("q", "")[:500].replace("\0", " ")
    with app.tables.read():
        hits = search_text(app.warehouse, words, limit=HITS)
    return app.screen(request, "search.html", words=words, wanted=words.split(), hits=hits, most=HITS)


# (title, sort or None, CSS class)
_DOCUMENT_COLUMNS = (
    ("Document", "source_uri", ""),
    ("Status", "status", ""),
    ("Pages", "page_count", "number"),
    ("Failed", None, "number"),
    ("Backend", None, ""),
    ("Quality", None, "number"),
    ("Time", None, "number"),
    ("Size", "size_bytes", "number"),
    ("Uploaded (UTC)", "uploaded_at", "date"),
    ("Processed (UTC)", "processed_at", "date"),
)
_PAGE_COLUMNS = (
    ("Document", "source_uri", ""),
    ("Page", None, "number"),
    ("Status", None, ""),
    ("Backend", None, ""),
    ("Quality", "quality", "number"),
    ("Agreement", "agreement", "number"),
    ("Time", "seconds", "number"),
    ("Attempts", "attempts", "number"),
    ("Processed (UTC)", "processed_at", "date"),
)


def _columns(
    columns: tuple[tuple[str, str | None, str], ...],
    path: str,
    wanted: Mapping[str, Any],
    sort: str,
    descending: bool,
    sorts: Any,
) -> list[dict[str, str]]:
    """Heads of a table: a click sorts, a second one turns the order round."""
    heads = []
    for title, name, kind in columns:
        head = {"title": title, "kind": kind, "href": "", "sorted": ""}
        if name is not None and name in sorts:
            turned = not descending if name == sort else name not in ("source_uri", "status", "quality", "agreement")
            head["href"] = links.with_query(path, {**wanted, "sort": name, "order": _order(turned)})
            head["sorted"] = ("descending" if descending else "ascending") if name == sort else ""
        heads.append(head)
    return heads


def _descending(query: Mapping[str, str], *, default: bool) -> bool:
    return {"asc": False, "desc": True}.get(query.get("order", ""), default)


def _order(descending: bool) -> str:
    return "desc" if descending else "asc"


def _seen(query: Mapping[str, str]) -> int:
    """How many rows stand on the screens before this one, as the link said: shown, never used."""
    text = query.get("seen", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _next(path: str, kept: Mapping[str, Any], place: Any, seen: int) -> str | None:
    return links.with_query(path, {**kept, "after": links.place_as_text(place), "seen": seen}) if place else None


def _document_place(sort: str, place: list[Any] | None) -> tuple[Any, str] | None:
    """The place in the type of the column that the list is sorted by; None where it cannot be one."""
    if place is None or not isinstance(place[1], str):
        return None
    value: Any = place[0]
    if sort in ("uploaded_at", "processed_at"):
        try:
            value = datetime.fromisoformat(str(value))
        except ValueError:
            return None
        value = value if value.tzinfo else value.replace(tzinfo=UTC)
    elif sort in ("page_count", "size_bytes"):
        if not isinstance(value, int) or (abs(value) >= 2**31 and sort == "page_count") or abs(value) >= 2**63:
            return None
    else:
        value = str(value)
    return value, place[1]
