"""Search over the pages' text: which page says these words, and where.

Here belong the query, the ranking and the snippet. It reads the text itself: of all pages or, where there is a
full-text index (`search_index.py`), of those that the index names and those that it does not know yet. So it works with
no extension, and never misses a page that was loaded a second ago.
"""

# ruff: noqa: S608  only places of parameters are put into SQL here

from __future__ import annotations

import re
import unicodedata
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
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
"""What CommonMark shows without the backslash. Its writers escape a sign only where it would be read as markup, so the
same word stands with and without one."""

_SIGN = re.compile(r"[!-/:-@\[\]-`{-~]")  # all of them but the backslash


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

    If there is a full-text index, parts of longer words are looked for only if no page has all words as whole ones, or
    if the index named more pages than were looked at and those do not fill the answer.
    If there is none and more than 5,000 pages hold every word, only the 5,000 that were loaded first are ranked.
    Pages rank by how often the words occur for the page's length. Whole words count more than parts of words, words
    next to each other in this order count more than words apart, and words in the document's title count more too. A
    letter with an accent is the same letter as one code point or two (NFC, NFD), and a sign is found where markdown has
    a backslash before it. No words: no hits. Raises TooManyWords.
    """
    text = words if isinstance(words, str) else " ".join(words)
    wanted = list({_composed(word): word for word in text.split()}.values())
    if len(wanted) > MOST_WORDS:
        raise TooManyWords(f"a search takes at most {MOST_WORDS} words, {len(wanted)} were given: leave some out")
    if not wanted or limit < 1:
        return []
    with warehouse.read() as connection:
        parameters = {**_parameters(wanted), "limit": limit}
        found = candidates(connection, [_composed(word) for word in wanted], limit)
        rows = []
        if found is not None and found.pages:
            connection.register("candidates", _as_table(found.pages))
            rows = connection.execute(_query(wanted, _ALL + _CANDIDATES), parameters).fetchall()
        if not rows or (found is not None and not found.complete and len(rows) < limit):
            rows = connection.execute(_query(wanted, _first(wanted)), parameters).fetchall()
    return [
        Hit(document_id, source_uri, title, number, snippet(markdown, wanted), round(score, 4))
        for document_id, source_uri, title, number, markdown, score in rows
    ]


def snippet(markdown: str, words: Sequence[str], length: int = _SNIPPET) -> str:
    """About `length` characters on one line around the first place where one of the words stands, cut between words."""
    markdown = _composed(markdown if any("\\" in word for word in words) else _ESCAPED.sub(r"\1", markdown))
    match = min(
        (found for word in words if (found := re.search(re.escape(_composed(word)), markdown, re.IGNORECASE))),
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


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _forms(word: str) -> list[str]:
    """The ways to write the word: as it was typed, with accents in their letters, with accents of their own."""
    return list(dict.fromkeys((word, _composed(word), unicodedata.normalize("NFD", word))))


def _may_be_escaped(word: str) -> bool:
    return _SIGN.search(word) is not None and "\\" not in word


def _parameters(words: Sequence[str]) -> dict[str, str]:
    forms = {f"w{number}_{n}": form for number, word in enumerate(words) for n, form in enumerate(_forms(word))}
    return {**forms, "phrase": " ".join(words)}


def _holds_all(words: Sequence[str]) -> str:
    """Each form is looked for in the text as it is: to normalise every page takes seven times as long (measured)."""

    def holds(number: int, word: str) -> str:
        texts = ["lower(markdown)"] + (["replace(lower(markdown), '\\', '')"] if _may_be_escaped(word) else [])
        forms = [f"lower($w{number}_{n})" for n, _ in enumerate(_forms(word))]
        return " OR ".join(f"contains({text}, {form})" for text in texts for form in forms)

    return " AND ".join(f"({holds(number, word)})" for number, word in enumerate(words))


_ALL = "SELECT * FROM ocr.current_pages"
_CANDIDATES = " SEMI JOIN candidates USING (document_id, page_number) LIMIT 1000000000"
# The limit keeps DuckDB from moving the search for the words below the join, where it would read every page.


def _first(words: Sequence[str]) -> str:
    """The pages that hold every word, up to a number that can be ranked while a person waits. The join stands outside
    of the limit, since DuckDB does not end it early."""
    return f"""
        SELECT p.*, d.source_uri, d.title
        FROM (
            SELECT * FROM ocr.pages
            WHERE {_holds_all(words)}
                AND document_id NOT IN (SELECT document_id FROM ocr.documents WHERE deleted_at IS NOT NULL)
            LIMIT {_MOST_RANKED}
        ) p JOIN ocr.documents d ON d.document_id = p.document_id
    """


def _as_table(pages: list[Page]) -> pa.Table:
    return pa.table({"document_id": [page[0] for page in pages], "page_number": [page[1] for page in pages]})


def _query(words: Sequence[str], pages: str) -> str:
    names = [f"nfc_normalize(lower($w{number}_0))" for number, _ in enumerate(words)]
    shown = "replace(markdown, '\\', '')" if any(map(_may_be_escaped, words)) else "markdown"
    return f"""
        WITH found AS MATERIALIZED (
            SELECT document_id, source_uri, title, page_number, markdown,
                nfc_normalize(lower({shown})) AS text, nfc_normalize(lower(coalesce(title, ''))) AS lower_title,
                length(markdown) / avg(length(markdown)) OVER () AS relative_length
            FROM ({pages})
            WHERE {_holds_all(words)}
        )
        SELECT document_id, source_uri, title, page_number, markdown,
            {" + ".join(_weight(name) for name in names)}
            + 2.0 * CAST(contains(text, nfc_normalize(lower($phrase))) AS INTEGER) AS score
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
        + 0.5 * CAST(contains(lower_title, {word}) AS INTEGER)"""
