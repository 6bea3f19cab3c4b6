"""The full-text index, where DuckDB's `fts` extension is installed: which pages are worth looking at for some words.

Here belong making the index and asking it for candidates. Not here: ranking and snippets (`search.py`), which are the
same with and without it. The extension is loaded where it is installed and never installed from here: that would be a
download. Measured at 100,000 pages on two busy cores: the index takes 100 s and 0.4 KB a page, a search for one word
0.16 s in place of 1.7 s. It is a picture of one moment and made whole each time, so it is worth it from some 100,000
pages on, once a day (schedule `index_daily`, or `ocr-pipeline search --build-index`); pages that came later are found
all the same, by reading them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.sql import count, in_transaction

_UNSUPPORTED = (duckdb.CatalogException, duckdb.BinderException, duckdb.NotSupportedError)
"""What a database says that does not know `create_fts_index`."""
_WORDS_END_AT = r"([^\pL\pN])+"
_MOST_UNINDEXED = 50_000
"""Pages. With more that came after the index, reading all pages costs no more than reading these."""

_FEWEST = 200
"""Pages that the index is asked for at least: among the best by its words some may be deleted since, or hold the words
otherwise than they were typed."""

Page = tuple[str, int]  # document_id, page_number


class NoFullTextSearch(WarehouseError):
    """This database makes no full-text index; a search reads every page instead."""


WORTH_FROM = 100_000
"""Pages. With fewer a search that reads them all takes less than two seconds."""


def is_worth_it(warehouse: Warehouse) -> bool:
    """Whether there are so many pages that an index saves more than it costs."""
    with warehouse.read() as connection:
        return count(connection, "SELECT count(*) FROM ocr.pages") >= WORTH_FROM


def build_search_index(warehouse: Warehouse) -> int:
    """Makes the index of the pages that are there now; returns how many.

    Raises NoFullTextSearch where the extension is not installed or the database does not support it, and WarehouseError
    where the index could not be made; the index of before is then still there.
    """
    with warehouse.session() as connection:
        if not _loads(connection):
            raise NoFullTextSearch(
                "DuckDB's extension fts is not installed on this machine, so there is no full-text index and a search "
                "reads every page; `INSTALL fts` in DuckDB once, where it may download"
            )
        try:
            with in_transaction(connection):
                return _build(connection)
        except _UNSUPPORTED as error:
            why = str(error).splitlines()[0]
            raise NoFullTextSearch(
                f"{warehouse.target} makes no full-text index ({why}); a search reads every page"
            ) from error
        except duckdb.Error as error:
            raise WarehouseError(f"the full-text index of {warehouse.target} was not made: {error}") from error


def _build(connection: duckdb.DuckDBPyConnection) -> int:
    connection.execute(
        """
        CREATE OR REPLACE TABLE ocr.searched AS
        SELECT document_id || '#' || page_number AS page, document_id, page_number, batch, processed_at,
            nfc_normalize(markdown) AS markdown
        FROM ocr.current_pages
        """
    )
    connection.execute(
        f"""
        PRAGMA create_fts_index('ocr.searched', 'page', 'markdown', stemmer = 'none', stopwords = 'none',
            ignore = '{_WORDS_END_AT}', strip_accents = 0, lower = 1, overwrite = 1)
        """
    )
    connection.execute("ALTER TABLE ocr.searched DROP COLUMN markdown")  # the index has what it needs of it
    return count(connection, "SELECT count(*) FROM ocr.searched")


def drop_search_index(connection: duckdb.DuckDBPyConnection) -> None:
    """Removes the index, if there is one; no extension is needed for that."""
    connection.execute("DROP SCHEMA IF EXISTS fts_ocr_searched CASCADE")
    connection.execute("DROP TABLE IF EXISTS ocr.searched")


def has_search_index(connection: duckdb.DuckDBPyConnection) -> bool:
    tables = (
        "SELECT count(*) FROM duckdb_tables()"
        " WHERE database_name = current_database() AND schema_name = 'ocr' AND table_name = 'searched'"
    )
    return count(connection, tables) > 0


def indexed(connection: duckdb.DuckDBPyConnection, document_id: str) -> int:
    """How many pages of the document the index knows; 0 where there is none."""
    if not has_search_index(connection):
        return 0
    return count(connection, "SELECT count(*) FROM ocr.searched WHERE document_id = ?", [document_id])


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pages that may hold all the words, whole: the best by the index, and all that it does not know as they are."""

    pages: list[Page]
    complete: bool  # False: the index knows more such pages


def candidates(connection: duckdb.DuckDBPyConnection, words: Sequence[str], limit: int) -> Candidates | None:
    """Where to look for the words. None where there is no index, or it knows too few of the pages: read them all."""
    try:
        unindexed = connection.execute(
            """
            SELECT p.document_id, p.page_number
            FROM ocr.pages p LEFT JOIN ocr.searched s
                ON s.document_id = p.document_id AND s.page_number = p.page_number
                AND s.batch = p.batch AND s.processed_at = p.processed_at
            WHERE s.document_id IS NULL
            LIMIT ?
            """,
            [_MOST_UNINDEXED + 1],
        ).fetchall()
    except duckdb.CatalogException:
        return None
    if len(unindexed) > _MOST_UNINDEXED or not _loads(connection):
        return None
    most = max(_FEWEST, 5 * limit)
    best = connection.execute(
        """
        SELECT document_id, page_number
        FROM (SELECT *, fts_ocr_searched.match_bm25(page, $words, conjunctive := 1) AS score FROM ocr.searched)
        WHERE score IS NOT NULL
        ORDER BY score DESC, document_id, page_number
        LIMIT $most
        """,
        {"words": " ".join(words), "most": most + 1},
    ).fetchall()
    return Candidates(list(dict.fromkeys(best[:most] + unindexed)), complete=len(best) <= most)


def _loads(connection: duckdb.DuckDBPyConnection) -> bool:
    try:
        connection.load_extension("fts")
    except duckdb.Error:
        return False
    return True
