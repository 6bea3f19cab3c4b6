"""Search, status, lists, comparison and purge: answers a person wants."""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_pipeline.records import PageStatus, Reason
from ocr_pipeline.warehouse.compact import compact
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.document_list import NEWEST, SORTS, DocumentFilter, DocumentListing, documents
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.load import load_batch, load_rows, mark_deleted
from ocr_pipeline.warehouse.motherduck import r2_secret_sql
from ocr_pipeline.warehouse.page_list import SORTS as PAGE_SORTS
from ocr_pipeline.warehouse.page_list import PageFilter, PageListing, pages
from ocr_pipeline.warehouse.paging import Turn
from ocr_pipeline.warehouse.purge import left_of, purge
from ocr_pipeline.warehouse.search import TooManyWords, search, snippet
from ocr_pipeline.warehouse.search_index import NoFullTextSearch, build_search_index, candidates
from ocr_pipeline.warehouse.status import states
from ocr_pipeline_tests.warehouse.sample_rows import contents, document_id, instant, result, to_tables

FILLER = "lorem ipsum dolor sit amet " * 40


@pytest.fixture
def library(warehouse: Warehouse) -> Warehouse:
    results = [
        result(
            "reports/annual.pdf",
            batch="b1",
            pages=2,
            markdown={1: f"{FILLER} The Turnover of 2025 {FILLER}", 2: "turnover"},
        ),
        result(
            "reports/party.pdf",
            batch="b1",
            pages=1,
            markdown={1: "A party at the house of art, with 100% of turnovers"},
        ),
        result("gone.pdf", batch="b1", pages=1, markdown={1: "turnover"}),
        result("ünïcode.pdf", batch="b1", pages=1, uploaded=5, markdown={1: "Der ÜBERSCHUSS betrug it's; DROP TABLE"}),
        result("bad.pdf", batch="b1", pages=3, statuses={2: (PageStatus.FAILED, Reason.REPETITION)}),
        result("locked.pdf", batch="b1", rejected=Reason.ENCRYPTED),
    ]
    load_batch(warehouse, "b1", to_tables(results))
    mark_deleted(warehouse, {document_id("gone.pdf"): instant(60)})
    return warehouse


def test_search_finds_pages_with_every_word_in_any_case_and_shows_where(library: Warehouse) -> None:
    hits = search(library, "turnover 2025")
    assert [(hit.source_uri, hit.page_number) for hit in hits] == [("s3://docs.example/inbox/reports/annual.pdf", 1)]
    assert "The Turnover of 2025" in hits[0].snippet
    assert hits[0].snippet.startswith("… ")
    assert hits[0].snippet.endswith(" …")
    assert len(hits[0].snippet) < 300
    assert "\n" not in hits[0].snippet
    assert [hit.page_number for hit in search(library, ["überschuss"])] == [1]
    assert search(library, "turnover nowhere") == []


@pytest.mark.parametrize("typed", ["NFC", "NFD"])
def test_an_accent_is_found_however_text_and_words_write_it(warehouse: Warehouse, typed: Literal["NFC", "NFD"]) -> None:
    texts = {1: "la vie à l'École", 2: unicodedata.normalize("NFD", "la vie à l'École"), 3: "la vie a l'ecole"}
    load_batch(warehouse, "b1", to_tables([result("a.pdf", batch="b1", pages=3, markdown=texts)]))
    hits = search(warehouse, unicodedata.normalize(typed, "école vie"))
    assert [hit.page_number for hit in hits] == [1, 2]
    assert {hit.snippet for hit in hits} == {"la vie à l'École"}
    # a character that normalising would replace is found as it is written
    load_batch(warehouse, "b2", to_tables([result("b.pdf", batch="b2", pages=1, markdown={1: "\uf900 is a form"})]))
    assert [hit.source_uri.rpartition("/")[2] for hit in search(warehouse, "\uf900")] == ["b.pdf"]


def test_a_sign_is_found_and_shown_whether_markdown_escapes_it_or_not(warehouse: Warehouse) -> None:
    texts = {
        1: "of 14 February 2025\\. The year",
        2: "in 2025. It",
        3: r"the field file\_name\*",
        4: "2025 and",
        5: r"a\b",
    }
    load_batch(warehouse, "b1", to_tables([result("a.pdf", batch="b1", pages=5, markdown=texts)]))
    assert {hit.page_number: hit.snippet for hit in search(warehouse, "2025.")} == {
        1: "of 14 February 2025. The year",
        2: "in 2025. It",
    }
    (hit,) = search(warehouse, "file_name*")
    assert hit.snippet == "the field file_name*"
    assert hit.score > 2  # as a word, not as a page that does not say it
    assert [hit.snippet for hit in search(warehouse, "a\\b")] == [r"a\b"]


def test_search_leaves_out_deleted_documents_and_keeps_the_limit(library: Warehouse) -> None:
    assert {hit.document_id for hit in search(library, "turnover")} == {
        document_id("reports/annual.pdf"),
        document_id("reports/party.pdf"),
    }
    assert len(search(library, "turnover", limit=1)) == 1
    assert search(library, "turnover", limit=0) == []


def test_whole_words_and_short_pages_that_speak_of_little_else_come_first(library: Warehouse) -> None:
    assert [(hit.title, hit.page_number) for hit in search(library, "turnover")] == [
        ("Title of reports/annual.pdf", 2),  # nothing but the word
        ("Title of reports/annual.pdf", 1),  # once in a long page
        ("Title of reports/party.pdf", 1),  # inside another word only
    ]


def test_words_next_to_each_other_come_before_words_apart(warehouse: Warehouse) -> None:
    apart, together = "river one two three delta", "delta one river delta two"
    load_batch(
        warehouse,
        "b1",
        to_tables([result("a.pdf", batch="b1", pages=2, markdown={1: apart, 2: together.replace("one ", "")})]),
    )
    assert [hit.page_number for hit in search(warehouse, "river delta")] == [2, 1]


def has_full_text_search() -> bool:
    with duckdb.connect() as connection:
        try:
            connection.load_extension("fts")
        except duckdb.Error:
            return False
    return True


with_full_text_search = pytest.mark.skipif(
    not has_full_text_search(), reason="DuckDB's extension fts is not installed: .ci/full-text runs this with it"
)


def candidates_of(warehouse: Warehouse, word: str) -> object:
    with warehouse.read() as connection:
        return candidates(connection, [word], 10)


@with_full_text_search
def test_with_a_full_text_index_the_same_pages_are_found_those_that_came_later_too(library: Warehouse) -> None:
    questions = ["turnover 2025", "turnover", "überschuss", "100%", "it's", "nowhere", "urnove"]
    before = {words: search(library, words) for words in questions}
    assert build_search_index(library) == 7
    # "turnovers" is another word to the index; where no page has the whole word, all are read as before
    whole = [hit for hit in before["turnover"] if not hit.source_uri.endswith("party.pdf")]
    for words in questions:
        expected = whole if words == "turnover" else before[words]
        assert [(hit.document_id, hit.page_number) for hit in search(library, words)] == [
            (hit.document_id, hit.page_number) for hit in expected
        ]
    changed = result("reports/annual.pdf", batch="b2", uploaded=9, pages=1, markdown={1: "no such word now"})
    late = result("late.pdf", batch="b2", uploaded=9, pages=1, markdown={1: "turnover 2025 again"})
    load_batch(library, "b2", to_tables([changed, late]))
    assert [hit.source_uri for hit in search(library, "turnover 2025")] == ["s3://docs.example/inbox/late.pdf"]
    purge(library, document_id("never indexed"))
    assert candidates_of(library, "turnover") is not None
    purge(library, document_id("bad.pdf"))
    assert candidates_of(library, "turnover") is None  # the index went, with the words of the document in it
    assert [hit.source_uri for hit in search(library, "turnover 2025")] == ["s3://docs.example/inbox/late.pdf"]
    build_search_index(library)
    if library.path is not None:
        assert compact(library) == 0
        assert candidates_of(library, "turnover") is not None
        late_goes = purge(library, document_id("never indexed")), purge(library, document_id("ünïcode.pdf"))
        assert [counts.search_index for counts in late_goes] == [False, True]
        compact(library)
        assert [hit.source_uri for hit in search(library, "turnover 2025")] == ["s3://docs.example/inbox/late.pdf"]


@with_full_text_search
def test_pages_that_crowd_out_others_in_the_index_hide_none(warehouse: Warehouse) -> None:
    # to the index these are the words of "2,560.00"; by their length they stand between the others, whichever way
    apart = dict.fromkeys(range(1, 301), "00 2 560 " + "word " * 60)
    together = {number: f"a total of 2,560.00 {FILLER if number % 2 else ''}" for number in range(1, 31)}
    rows = [
        result("apart.pdf", batch="b1", pages=300, markdown=apart),
        result("a.pdf", batch="b1", pages=30, markdown=together),
    ]
    load_batch(warehouse, "b1", to_tables(rows))
    build_search_index(warehouse)
    assert len(search(warehouse, "2,560.00", limit=20)) == 20
    assert len(search(warehouse, "2,560.00", limit=50)) == 30


@pytest.mark.skipif(has_full_text_search(), reason="DuckDB's fts extension is installed")
def test_without_the_extension_there_is_no_index_and_search_works(library: Warehouse) -> None:
    with pytest.raises(NoFullTextSearch, match="extension fts is not installed"):
        build_search_index(library)
    assert len(search(library, "turnover")) == 3


def test_a_database_that_knows_no_full_text_index_is_told_in_a_sentence_and_search_works(
    duckdb_file: Warehouse,
) -> None:
    class WithoutIndex:
        """A database that takes the extension for loaded and does not know its pragma."""

        def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
            self._connection = connection

        def load_extension(self, name: str) -> None:
            pass

        def execute(self, sql: str, *parameters: Any) -> Any:
            return self._connection.execute(sql.replace("create_fts_index", "create_no_such_index"), *parameters)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._connection, name)

    @contextlib.contextmanager
    def connect(database: str, read_only: bool, config: Mapping[str, Any]) -> Iterator[Any]:
        with contextlib.closing(duckdb.connect(database, read_only=read_only)) as connection:
            yield WithoutIndex(connection)

    load_batch(duckdb_file, "b1", to_tables([result("a.pdf", batch="b1", pages=1, markdown={1: "turnover"})]))
    warehouse = Warehouse(duckdb_file.target, connect=connect)
    with pytest.raises(NoFullTextSearch, match=r"makes no full-text index \(.*\); a search reads"):
        build_search_index(warehouse)
    assert len(search(warehouse, "turnover")) == 1


@pytest.mark.parametrize(
    "words", ["100%", "it's;", "DROP TABLE", "%", "_", "100% of", "'", '"', "$limit", "(", "\\", "[a-z]"]
)
def test_signs_in_a_search_are_signs_and_nothing_else(library: Warehouse, words: str) -> None:
    found = search(library, words)
    with library.read() as connection:
        expected = {
            row
            for row in connection.execute("SELECT source_uri, page_number, markdown FROM ocr.current_pages").fetchall()
            if all(word.lower() in row[2].lower() for word in words.split())
        }
    assert {(hit.source_uri, hit.page_number) for hit in found} == {row[:2] for row in expected}


def test_more_words_than_a_search_takes_are_refused_and_none_is_left_out(library: Warehouse) -> None:
    with pytest.raises(TooManyWords, match="at most 16 words, 17 were given"):
        search(library, [f"word{number}" for number in range(17)])
    assert search(library, ["turnover"] * 17) != []  # one word


def test_no_words_find_nothing(library: Warehouse) -> None:
    assert search(library, "   ") == []
    assert search(library, []) == []


@given(st.text(max_size=400), st.lists(st.text(min_size=1, max_size=5), max_size=3))
def test_a_snippet_is_one_line_of_bounded_length_whatever_the_text(text: str, words: list[str]) -> None:
    line = snippet(text, words, length=60)
    assert len(line) <= 60 + 20 + 4
    assert "\n" not in line


@given(st.text("ab \n", max_size=300), st.text("ab \n", max_size=300))
def test_a_snippet_holds_the_word_it_was_made_for(before: str, after: str) -> None:
    assert "needle" in snippet(f"{before} Needle {after}", ["needle"], length=60).lower()


def test_documents_are_told_with_their_pages_by_status_and_reason(library: Warehouse) -> None:
    wanted = [document_id(name) for name in ("bad.pdf", "locked.pdf", "gone.pdf", "nowhere.pdf")]
    found = states(library, wanted)
    assert found.keys() == set(wanted[:3])
    bad, locked, gone = (found[key] for key in wanted[:3])
    assert (bad.status, bad.batch, bad.page_count, dict(bad.pages), dict(bad.reasons)) == (
        "partial",
        "b1",
        3,
        {"ok": 2, "failed": 1},
        {"repetition": 1},
    )
    assert locked.reason == "encrypted"
    assert gone.deleted_at == instant(60)


def listed(warehouse: Warehouse, wanted: DocumentFilter | None = None, **turn: Any) -> DocumentListing:
    with warehouse.read() as connection:
        return documents(connection, wanted, replace(NEWEST, **turn))


def listed_pages(warehouse: Warehouse, wanted: PageFilter | None = None, **turn: Any) -> PageListing:
    with warehouse.read() as connection:
        return pages(connection, wanted or PageFilter(), Turn(**turn))


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("descending", [True, False])
def test_a_list_walked_by_pagefuls_shows_each_document_once_in_order(
    library: Warehouse, sort: str, descending: bool
) -> None:
    whole = listed(library, sort=sort, descending=descending, limit=100)
    assert (whole.total, len(whole.documents), whole.next, whole.previous) == (5, 5, None, None)
    names = [row.backends[0] if row.backends else None for row in whole.documents]
    values = names if sort == "backend" else [getattr(row, sort) for row in whole.documents]
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=descending)
    assert values[: len(known)] == known  # what is not known comes last, whichever way
    walked, after = [], None
    for _ in range(10):
        part = listed(library, sort=sort, descending=descending, limit=2, after=after)
        assert part.total == 5
        walked += part.documents
        after = part.next
        if after is None:
            break
    assert walked == whole.documents
    back, place = part.documents, part.previous
    while place is not None:
        part = listed(library, sort=sort, descending=descending, limit=2, after=place, backwards=True)
        back, place = part.documents + back, part.previous
        assert part.next is not None
    assert back == whole.documents


@pytest.mark.parametrize("sort", PAGE_SORTS)
@pytest.mark.parametrize("descending", [True, False])
def test_a_list_of_pages_walked_both_ways_shows_each_page_once_among_equals_by_number(
    library: Warehouse, sort: str, descending: bool
) -> None:
    whole = listed_pages(library, sort=sort, descending=descending)
    assert (whole.total, len(whole.pages), whole.next, whole.previous) == (7, 7, None, None)
    equals = [(page.document_id, page.page_number) for page in whole.pages if page.attempts == 1]
    assert sort != "attempts" or equals == sorted(equals)
    part = listed_pages(library, sort=sort, descending=descending, limit=2)
    walked = part.pages
    while part.next is not None:
        part = listed_pages(library, sort=sort, descending=descending, limit=2, after=part.next)
        walked += part.pages
    assert walked == whole.pages
    back = part.pages
    while part.previous is not None:
        part = listed_pages(library, sort=sort, descending=descending, limit=2, after=part.previous, backwards=True)
        back = part.pages + back
    assert back == whole.pages


def test_a_list_is_filtered_by_what_is_known_of_documents_and_of_their_pages(library: Warehouse) -> None:
    def names(**filters: Any) -> list[str]:
        found = listed(library, DocumentFilter(**filters), sort="source_uri", descending=False)
        assert found.total == len(found.documents)
        return [row.source_uri.rsplit("/", 1)[1] for row in found.documents]

    assert names(name="REPORTS") == ["annual.pdf", "party.pdf"]
    assert names(name="title of bad") == ["bad.pdf"]
    assert names(status="rejected") == ["locked.pdf"]
    assert names(reason="repetition") == ["bad.pdf"]
    assert names(reason="encrypted", status="rejected") == ["locked.pdf"]
    assert names(name="gone") == []
    assert listed(library, DocumentFilter(name="bad")).documents[0].bad_pages == 1
    with pytest.raises(WarehouseError, match="cannot sort by 'markdown; DROP'"):
        listed(library, sort="markdown; DROP")


def test_purge_removes_a_document_from_every_table_and_nothing_else(library: Warehouse) -> None:
    load_batch(library, "b0", to_tables([result("bad.pdf", batch="b0", uploaded=-9, pages=9, recipe_id="r0")]))
    mark_deleted(library, {document_id("bad.pdf"): instant(99)})
    before = contents(library)
    counts = purge(library, document_id("bad.pdf"))
    assert (counts.documents, counts.pages, counts.regions, counts.attempts) == (1, 3, 4, 12)
    assert not any(left_of(library, document_id("bad.pdf")).values())
    assert contents(library) == {
        table: [row for row in rows if row[0] != document_id("bad.pdf")] for table, rows in before.items()
    }
    assert purge(library, document_id("bad.pdf")).documents == 0


def test_a_compacted_file_holds_the_same_rows_keys_and_views_and_no_byte_of_what_was_purged(tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path / "w.duckdb"))
    assert compact(warehouse) == 0
    word = "Zyxwvutsrqp"
    with warehouse.session() as connection:
        connection.execute("SET force_compression = 'uncompressed'")  # so that the word would show
        tables = to_tables(
            [result("a.pdf", batch="b1", pages=2, markdown={1: word}), result("b.pdf", batch="b1", pages=300)]
        )
        connection.begin()
        load_rows(connection, tables)
        connection.commit()
    assert word.encode() in Path(warehouse.target).read_bytes()
    purge(warehouse, document_id("a.pdf"))
    before = contents(warehouse)
    compact(warehouse)
    assert word.encode() not in Path(warehouse.target).read_bytes()
    assert contents(warehouse) == before
    load_batch(warehouse, "b2", to_tables([result("b.pdf", batch="b2", uploaded=1, pages=2)]))
    assert [hit.page_number for hit in search(warehouse, "e", limit=9)] != []
    with pytest.raises(duckdb.ConstraintException):
        warehouse.run(lambda connection: connection.execute("INSERT INTO ocr.pages SELECT * FROM ocr.pages LIMIT 1"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w.duckdb", "w.duckdb.lock"]


def test_the_r2_secret_is_one_statement_whatever_stands_in_the_keys() -> None:
    sql = r2_secret_sql(key_id="k'; DROP TABLE x; --", secret="s'\"", account_id="acc", endpoint=None, scope="r2://b/")
    assert len(duckdb.extract_statements(sql)) == 1
    assert "KEY_ID 'k''; DROP TABLE x; --'" in sql
    assert "IN MOTHERDUCK" in sql
    eu = r2_secret_sql(
        key_id="k", secret="s", account_id="acc", endpoint="https://acc.eu.storage.example/", scope="r2://b/"
    )
    assert "ENDPOINT 'acc.eu.storage.example'" in eu
    assert "ACCOUNT_ID" not in eu
    with pytest.raises(WarehouseError, match="R2_ACCOUNT_ID or R2_ENDPOINT_URL"):
        r2_secret_sql(key_id="k", secret="s", account_id=None, endpoint=None, scope="r2://b/")
