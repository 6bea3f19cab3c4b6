"""The screens that are lists: documents, pages, hits of a search.

Here belongs the step from a query string to a list and back to the addresses of its other pages. Everything in a query
string is checked; what is wrong in it is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from ocr_pipeline.records import DocumentStatus, PageStatus
from ocr_pipeline.review import links, queries
from ocr_pipeline.review.context import context
from ocr_pipeline.review.filters import document_filter, page_filter
from ocr_pipeline.warehouse import document_list, page_list
from ocr_pipeline.warehouse.paging import Turn
from ocr_pipeline.warehouse.search import Hit, TooManyWords
from ocr_pipeline.warehouse.search import search as search_text

PAGEFUL = 50
HITS = 50


def documents(request: Request) -> Response:
    """`/documents`: filter, sort, go on and back."""
    app, query = context(request), request.query_params
    wanted = document_filter(query)
    sort, descending = _sorted(query, document_list.SORTS, "uploaded_at")
    with app.tables.read() as connection:
        found, seen = _screenful(
            query,
            2,
            sort,
            descending,
            lambda turn: document_list.documents(connection, wanted, turn),
        )
        choices = queries.choices(connection)
    kept = {**wanted.as_query(), "sort": sort, "order": _order(descending)}
    return app.screen(
        request,
        "documents.html",
        rows=found.documents,
        total=found.total,
        seen=seen,
        wanted=wanted,
        reasons=choices["reason"],
        backends=choices["backend"],
        statuses=[status.value for status in DocumentStatus],
        columns=_columns(_DOCUMENT_COLUMNS, "/documents", wanted.as_query(), sort, descending),
        sort=sort,
        order=_order(descending),
        turning=_turning("/documents", kept, found, seen, len(found.documents)),
    )


def pages(request: Request) -> Response:
    """`/pages`: what stands behind a bar of the overview, and the worst pages first."""
    app, query = context(request), request.query_params
    wanted = page_filter(query)
    sort, descending = _sorted(query, page_list.SORTS, "processed_at")
    with app.tables.read() as connection:
        found, seen = _screenful(query, 3, sort, descending, lambda turn: page_list.pages(connection, wanted, turn))
        choices = queries.choices(connection)
    kept = {**wanted.as_query(), "sort": sort, "order": _order(descending)}
    return app.screen(
        request,
        "pages.html",
        rows=found.pages,
        total=found.total,
        seen=seen,
        wanted=wanted,
        reasons=choices["reason"],
        backends=choices["backend"],
        statuses=[*(status.value for status in PageStatus), "failed,skipped"],
        columns=_columns(_PAGE_COLUMNS, "/pages", wanted.as_query(), sort, descending),
        sort=sort,
        order=_order(descending),
        retry=links.with_query("/retry", wanted.as_query()),
        turning=_turning("/pages", kept, found, seen, len(found.pages)),
    )


def search(request: Request) -> Response:
    """`/search?q=`: pages that hold every word, best first."""
    app = context(request)
    words = request.query_params.get("q", "")[:500].replace("\0", " ")
    hits, refused = list[Hit](), None
    try:
        with app.tables.read():
            hits = search_text(app.warehouse, words, limit=HITS)
    except TooManyWords as why:
        refused = str(why)
    return app.screen(request, "search.html", words=words, wanted=words.split(), hits=hits, most=HITS, refused=refused)


# (title, sort or None, CSS class)
_DOCUMENT_COLUMNS = (
    ("Document", "source_uri", ""),
    ("Status", "status", ""),
    ("Pages", "page_count", "number"),
    ("Failed", "bad_pages", "number"),
    ("Backend", "backend", ""),
    ("Quality", "quality", "number"),
    ("Time", "seconds", "number"),
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
) -> list[dict[str, str]]:
    """Heads of a table: a click sorts, a second one turns the order round."""
    heads = []
    for title, name, kind in columns:
        head = {"title": title, "kind": kind, "href": "", "sorted": ""}
        if name is not None:
            turned = not descending if name == sort else _falls(name)
            head["href"] = links.with_query(path, {**wanted, "sort": name, "order": _order(turned)})
            head["sorted"] = ("descending" if descending else "ascending") if name == sort else ""
        heads.append(head)
    return heads


def _falls(sort: str) -> bool:
    """Whether a list sorted by this begins at the top: names and what is worst when small begin at the bottom."""
    return sort not in ("source_uri", "status", "backend", "quality", "agreement")


def _descending(query: Mapping[str, str], *, default: bool) -> bool:
    return {"asc": False, "desc": True}.get(query.get("order", ""), default)


def _order(descending: bool) -> str:
    return "desc" if descending else "asc"


def _seen(query: Mapping[str, str]) -> int:
    """How many rows stand on the screens before this one, as the link said: shown, never used."""
    text = query.get("seen", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


class _Turned(Protocol):
    """A screenful of a list: the places before and behind it."""

    @property
    def next(self) -> tuple[Any, ...] | None: ...

    @property
    def previous(self) -> tuple[Any, ...] | None: ...


_T = TypeVar("_T", bound=_Turned)


def _screenful(
    query: Mapping[str, str], length: int, sort: str, descending: bool, listed: Callable[[Turn], _T]
) -> tuple[_T, int]:
    """The rows behind the place in the query (of `length` values), or those before it; and how many stand on the
    screens before."""
    seen = _seen(query)
    turn = Turn(sort=sort, descending=descending, limit=PAGEFUL)
    before = links.place_from_text(query.get("before", ""), length=length)
    if before is not None:
        found = listed(replace(turn, after=before, backwards=True))
        if found.previous is not None:
            return found, seen
        return listed(turn), 0  # the first screen, and a full one
    after = links.place_from_text(query.get("after", ""), length=length)
    return listed(replace(turn, after=after)), seen if after else 0


def _sorted(query: Mapping[str, str], sorts: Collection[str], default: str) -> tuple[str, bool]:
    """What a list is sorted by, and whether it falls."""
    sort = query["sort"] if query.get("sort") in sorts else default
    return sort, _descending(query, default=_falls(sort))


def _turning(path: str, kept: Mapping[str, Any], found: _Turned, seen: int, shown: int) -> dict[str, str | None]:
    """The addresses of the screens around this one."""

    def to(word: str, place: tuple[Any, ...] | None, before: int) -> str | None:
        return links.with_query(path, {**kept, word: links.place_as_text(place), "seen": before}) if place else None

    return {
        "next": to("after", found.next, seen + shown),
        "previous": to("before", found.previous, max(0, seen - PAGEFUL)),
        "first": links.with_query(path, kept) if found.previous else None,
    }
