"""Search over the pages' text: which page says these words, and where.

Here belong the query, the ranking and the snippet. It reads the text itself: of all pages or, where there is a
full-text index (`search_index.py`), of those that the index names and those that it does not know yet. So it works with
no extension, and never misses a page that was loaded a second ago.
"""

# ruff: noqa: S608  only places of parameters are put into SQL here

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.search_index import Page, candidates

MOST_WORDS = 16
_SNIPPET = 200  # characters
_MOST_RANKED = 5_000
"""Pages. Finding the pages takes 0.1 s of 100,000, ranking all of them, when they all hold the words, 1.4 to 8 s."""


class TooManyWords(WarehouseError):
    """More words than a search takes; the message says how many."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A page that holds every word, best first."""

    document_id: str
    source_uri: str
    title: str | None
    page_number: int
    snippet: str  # one line of the page around the first match
    score: float  # for the order only


def search(warehouse: Warehouse, words: str | Sequence[str], limit: int = 20) -> list[Hit]:
    """Pages of documents that are not deleted whose markdown holds every word, in any case, also inside longer words.

    Where there is a full-text index, words inside longer words are looked for only when there is no whole one.
    Where there is none and more than 5,000 pages hold every word, the best of the 5,000 that were loaded first.
    Ranked by how often the words stand there for the page's length, whole words for more than parts of words, the words
    next to each other in this order for more than apart, words in the document's title for more too. No words: no hits.
    Raises TooManyWords.
    """
    text = words if isinstance(words, str) else " ".join(words)
    wanted = list(dict.fromkeys(text.split()))
    if len(wanted) > MOST_WORDS:
        raise TooManyWords(f"a search takes at most {MOST_WORDS} words, {len(wanted)} were given: leave some out")
    if not wanted or limit < 1:
        return []
    with warehouse.read() as connection:
        parameters = {**_parameters(wanted), "limit": limit}
        pages = candidates(connection, wanted, limit)
        rows = []
        if pages:
            connection.register("candidates", _as_table(pages))
            rows = connection.execute(_query(len(wanted), _ALL + _CANDIDATES), parameters).fetchall()
        if not rows:
            rows = connection.execute(_query(len(wanted), _first(len(wanted))), parameters).fetchall()
    return [
        Hit(document_id, source_uri, title, number, snippet(markdown, wanted), round(score, 4))
        for document_id, source_uri, title, number, markdown, score in rows
    ]


def snippet(markdown: str, words: Sequence[str], length: int = _SNIPPET) -> str:
    """About `length` characters on one line around the first place where one of the words stands, cut between words."""
    match = min(
        (found for word in words if (found := re.search(re.escape(word), markdown, re.IGNORECASE))),
        key=lambda found: found.start(),
        default=None,
    )
    middle = match.start() if match else 0
    start = max(0, middle - length // 3)
    end = min(len(markdown), start + length)
    if start > 0:  # on to the next word, but never past the match
        space = re.compile(r"\s").search(markdown, start, middle)
        start = space.end() if space else start
    if end < len(markdown):
        space_before = max(markdown.rfind(" ", middle + 1, end), markdown.rfind("\n", middle + 1, end))
        end = space_before if space_before > middle + length // 3 else end
    line = " ".join(markdown[start:end].split())
    return ("… " if start > 0 else "") + line + (" …" if end < len(markdown) else "")


def _parameters(words: Sequence[str]) -> dict[str, str]:
    return {f"w{number}": word for number, word in enumerate(words)} | {"phrase": " ".join(words)}


_ALL = "SELECT * FROM ocr.current_pages"
_CANDIDATES = " SEMI JOIN candidates USING (document_id, page_number) LIMIT 1000000000"
# The limit keeps DuckDB from moving the search for the words below the join, where it would read every page.


def _first(words: int) -> str:
    """The pages that hold every word, up to a number that can be ranked while a person waits. The join stands outside
    of the limit, since DuckDB does not end it early."""
    conditions = " AND ".join(f"contains(lower(markdown), lower($w{number}))" for number in range(words))
    return f"""
        SELECT p.*, d.source_uri, d.title
        FROM (
            SELECT * FROM ocr.pages
            WHERE {conditions}
                AND document_id NOT IN (SELECT document_id FROM ocr.documents WHERE deleted_at IS NOT NULL)
            LIMIT {_MOST_RANKED}
        ) p JOIN ocr.documents d ON d.document_id = p.document_id
    """


def _as_table(pages: list[Page]) -> pa.Table:
    return pa.table({"document_id": [page[0] for page in pages], "page_number": [page[1] for page in pages]})


def _query(words: int, pages: str) -> str:
    names = [f"lower($w{number})" for number in range(words)]
    return f"""
        WITH found AS MATERIALIZED (
            SELECT document_id, source_uri, title, page_number, markdown, lower(markdown) AS text,
                length(markdown) / avg(length(markdown)) OVER () AS relative_length
            FROM ({pages})
            WHERE {" AND ".join(f"contains(lower(markdown), {name})" for name in names)}
        )
        SELECT document_id, source_uri, title, page_number, markdown,
            {" + ".join(_weight(name) for name in names)}
            + 2.0 * CAST(contains(text, lower($phrase)) AS INTEGER) AS score
        FROM found
        ORDER BY score DESC, source_uri, page_number
        LIMIT $limit
    """


def _weight(word: str) -> str:
    """What one word adds to a page's score: BM25's saturated count with its usual constants (k1 1.2, b 0.75), and no
    weight for rarity, since each hit holds every word; then 2 where it stands as a whole word, 0.5 in the title."""
    count = f"(length(text) - length(replace(text, {word}, ''))) / length({word})"
    return f"""
        2.2 * {count} / ({count} + 1.2 * (0.25 + 0.75 * relative_length))
        + 2.0 * CAST(regexp_matches(text, '(^|[^\\pL\\pN])' || regexp_escape({word}) || '($|[^\\pL\\pN])') AS INTEGER)
        + 0.5 * CAST(contains(lower(coalesce(title, '')), {word}) AS INTEGER)"""
