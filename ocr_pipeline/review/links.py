"""Addresses inside the app, and what stands in their queries: filters and the place in a list.

Here belongs every path that the app knows. Document ids come from the tables and are quoted; nothing here reads one
back into a file name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

MAX_PLACE = 16_000
"""Characters of a place in a list: a key of 1,024 bytes may be all control characters, which JSON writes as six."""


def document(document_id: str) -> str:
    return f"/documents/{quote(document_id, safe='')}"


def page(document_id: str, number: int, **query: str) -> str:
    return with_query(f"{document(document_id)}/pages/{number}", query)


def image(document_id: str, number: int, sha256: str | None) -> str:
    """The page image; with its hash in the address a browser may keep it for ever."""
    return with_query(f"{document(document_id)}/pages/{number}/image", {"v": sha256 or ""})


def figures(document_id: str, number: int) -> str:
    """The address below which the figures of a page are, by region index."""
    return f"{document(document_id)}/pages/{number}/figures"


def with_query(path: str, query: Mapping[str, Any]) -> str:
    """Empty values are left out."""
    kept = {name: str(value) for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(kept)}" if kept else path


def place_as_text(place: Sequence[Any] | None) -> str:
    """The place in a list after which to go on, for a query."""
    if place is None:
        return ""
    return json.dumps(
        [value.isoformat() if isinstance(value, datetime) else value for value in place], ensure_ascii=False
    )


def place_from_text(text: str, *, length: int) -> list[Any] | None:
    """The place again; None where there is none, or where somebody wrote something else there."""
    if not text or len(text) > MAX_PLACE:
        return None
    try:
        place = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(place, list) or len(place) != length:
        return None
    return place if all(map(_is_value, place)) else None


def _is_value(value: object) -> bool:
    """JSON can write half of a character ("\\ud800"), which no table can be asked for."""
    if isinstance(value, str):
        return not any("\ud800" <= char <= "\udfff" for char in value)
    return isinstance(value, int | float)
