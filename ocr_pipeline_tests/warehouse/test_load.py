"""Loads: newest upload wins, nothing of an older one is left, and the order of loading never matters."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from itertools import permutations
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocr_pipeline.lake import keys
from ocr_pipeline.records import Deletion, PageAttempt, Reason
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.load import LoadCounts, load_batch, mark_deleted, outcome
from ocr_pipeline.warehouse.parquet import to_bytes
from ocr_pipeline.warehouse.rebuild import rebuild
from ocr_pipeline.warehouse.schema import TABLES
from ocr_pipeline_tests.warehouse.sample_rows import contents, document_id, instant, result, to_tables
from ocr_pipeline_tests.warehouse.shelf import Shelf

Tables = dict[str, pa.Table]
Steps = list[tuple[list[tuple[str, int, int, str]], bool]]  # rows (document, upload, pages, recipe) of a batch; twice?
Deletions = list[tuple[str, int]]  # document, minute


def load(warehouse: Warehouse, *results: object) -> LoadCounts:
    tables = to_tables(results)  # type: ignore[arg-type]
    return load_batch(warehouse, tables["documents"]["batch"][0].as_py(), tables)


def pages_of(warehouse: Warehouse, name: str) -> list[tuple[int, str]]:
    with warehouse.read() as connection:
        return connection.execute(
            "SELECT page_number, batch FROM ocr.pages WHERE document_id = ? ORDER BY 1", [document_id(name)]
        ).fetchall()


def test_a_batch_is_loaded_row_for_row(warehouse: Warehouse) -> None:
    tables = to_tables(
        [
            result("a.pdf", batch="b1", pages=3),
            result("b.pdf", batch="b1"),
            result("c", batch="b1", rejected=Reason.DAMAGED),
        ]
    )
    counts = load_batch(warehouse, "b1", tables)
    assert counts == LoadCounts(documents=3, pages=5, regions=10, attempts=5, replaced=0, outranked=0)
    with warehouse.read() as connection:
        for name, table in tables.items():
            found = connection.execute(f"SELECT * FROM ocr.{name} ORDER BY ALL").to_arrow_table()
            assert found.cast(pa.schema(list(TABLES[name]))).to_pylist() == table.to_pylist()


def test_loading_the_same_batch_again_changes_nothing(warehouse: Warehouse) -> None:
    load(warehouse, result("a.pdf", batch="b1"), result("b.pdf", batch="b1"))
    before = contents(warehouse)
    counts = load(warehouse, result("a.pdf", batch="b1"), result("b.pdf", batch="b1"))
    assert contents(warehouse) == before
    assert (counts.replaced, counts.attempts) == (2, 0)


def test_surplus_pages_and_regions_of_an_older_upload_go_and_its_attempts_stay(warehouse: Warehouse) -> None:
    load(warehouse, result("a.pdf", batch="b1", pages=5), result("other.pdf", batch="b1", pages=2))
    load(warehouse, result("a.pdf", batch="b2", uploaded=10, pages=2))
    assert pages_of(warehouse, "a.pdf") == [(1, "b2"), (2, "b2")]
    assert pages_of(warehouse, "other.pdf") == [(1, "b1"), (2, "b1")]
    with warehouse.read() as connection:
        regions = "SELECT count(*) FROM ocr.regions WHERE document_id = ? AND page_number > 2"
        assert connection.execute(regions, [document_id("a.pdf")]).fetchone() == (0,)
        attempts = "SELECT page_number, attempt FROM ocr.attempts WHERE document_id = ? ORDER BY ALL"
        found = connection.execute(attempts, [document_id("a.pdf")]).fetchall()
    assert found == [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (4, 1), (5, 1)]


def test_an_older_upload_never_replaces_a_newer_one(warehouse: Warehouse) -> None:
    load(warehouse, result("a.pdf", batch="b1", uploaded=10, pages=2))
    before = contents(warehouse)
    counts = load(warehouse, result("a.pdf", batch="b2", uploaded=5, pages=9, recipe_id="r1", asked=1))
    after = contents(warehouse)
    assert counts.outranked == 1
    assert (counts.documents, counts.pages, counts.regions) == (0, 0, 0)
    assert {name: after[name] for name in ("documents", "pages", "regions")} == {
        name: before[name] for name in ("documents", "pages", "regions")
    }


@pytest.mark.parametrize("order", [("b1", "b2"), ("b2", "b1")])
def test_of_two_batches_with_the_same_upload_the_later_name_wins(warehouse: Warehouse, order: tuple[str, str]) -> None:
    for batch in order:
        load(warehouse, result("a.pdf", batch=batch, uploaded=10, pages=3 if batch == "b1" else 2))
    assert pages_of(warehouse, "a.pdf") == [(1, "b2"), (2, "b2")]


def test_a_document_that_is_rejected_now_loses_the_pages_of_its_older_upload(warehouse: Warehouse) -> None:
    load(warehouse, result("a.pdf", batch="b1", pages=3))
    load(warehouse, result("a.pdf", batch="b2", uploaded=1, rejected=Reason.ENCRYPTED))
    assert pages_of(warehouse, "a.pdf") == []
    assert [row[8:10] for row in contents(warehouse)["documents"]] == [("rejected", "encrypted")]


def test_a_second_run_of_a_batch_replaces_its_own_rows(warehouse: Warehouse) -> None:
    load(warehouse, result("a.pdf", batch="b1", recipe_id="r2", asked=50))
    load(warehouse, result("a.pdf", batch="b1", recipe_id="r1", asked=20))  # back to the recipe from before
    assert {row[-4] for row in contents(warehouse)["pages"]} == {"r1"}


@pytest.mark.parametrize("order", [*permutations(range(4))], ids=str)
def test_every_request_is_a_row_numbered_by_time_whatever_was_loaded_when_and_how_often(
    warehouse: Warehouse, order: tuple[int, ...]
) -> None:
    """Two uploads with other images of page 1, so that both transcripts begin with 1; and the second run of the older
    one, which asked once more."""
    older = result("a.pdf", batch="b1", pages=1, asked=1)
    again = replace(older, attempts=(*older.attempts, *result("a.pdf", batch="b1", pages=1, asked=4).attempts))
    newer = result("a.pdf", batch="b2", uploaded=2, pages=1, asked=3)
    retried = replace(newer, attempts=(_with(newer.attempts[0], prompt_tokens=None), *newer.attempts))
    batches = [older, again, newer, retried]
    for place in (*order, *reversed(order)):
        one = batches[place]
        numbered = tuple(_with(attempt, attempt=number) for number, attempt in enumerate(one.attempts, 1))
        load(warehouse, replace(one, attempts=numbered))
    with warehouse.read() as connection:
        query = "SELECT attempt, date_trunc('minute', started_at), prompt_tokens IS NULL FROM ocr.attempts ORDER BY 1"
        found = connection.execute(query).fetchall()
    assert found == [(1, instant(1), False), (2, instant(3), False), (3, instant(3), True), (4, instant(4), False)]


def _with(row: PageAttempt, **changes: Any) -> PageAttempt:
    return replace(row, attempt=replace(row.attempt, **changes))


def test_a_batch_that_is_loaded_again_adds_no_attempt_and_counts_none(warehouse: Warehouse) -> None:
    twice = result("a.pdf", batch="b1", pages=1)
    twice = replace(twice, attempts=(*twice.attempts, _with(twice.attempts[0], attempt=2)))  # equal but for the number
    assert [load(warehouse, twice).attempts for _ in range(3)] == [2, 0, 0]
    assert load(warehouse, result("a.pdf", batch="b2", pages=1, asked=9), result("b.pdf", batch="b2")).attempts == 3


def test_rows_of_another_batch_and_missing_tables_are_refused(warehouse: Warehouse) -> None:
    tables = to_tables([result("a.pdf", batch="b1")])
    with pytest.raises(WarehouseError, match="batch b2: its documents are of the batch b1"):
        load_batch(warehouse, "b2", tables)
    with pytest.raises(WarehouseError, match="no rows were given for the tables attempts, regions"):
        load_batch(warehouse, "b1", {name: tables[name] for name in ("documents", "pages")})
    with pytest.raises(WarehouseError, match="table pages: these columns are not those"):
        load_batch(warehouse, "b1", tables | {"pages": tables["pages"].drop_columns(["markdown"])})
    assert contents(warehouse)["documents"] == []


def test_a_load_that_fails_in_the_middle_leaves_nothing_of_it(warehouse: Warehouse) -> None:
    load(warehouse, result("a.pdf", batch="b1", pages=3))
    before = contents(warehouse)
    tables = to_tables([result("a.pdf", batch="b2", uploaded=5, pages=1)])
    doubled = pa.concat_tables(
        [tables["regions"], tables["regions"]]
    )  # breaks the key, after documents and pages went in
    with pytest.raises(duckdb.ConstraintException):
        load_batch(warehouse, "b2", tables | {"regions": doubled})
    assert contents(warehouse) == before
    load_batch(warehouse, "b2", tables)
    assert pages_of(warehouse, "a.pdf") == [(1, "b2")]


def test_parquet_files_load_by_address_as_their_rows_do(duckdb_file: Warehouse, tmp_path: Path) -> None:
    tables = to_tables([result("it's.pdf", batch="b'1", pages=3)])
    addresses = {}
    for name, table in tables.items():
        path = tmp_path / keys.table(name, date(2026, 11, 1), "b'1")
        path.parent.mkdir(parents=True)
        path.write_bytes(to_bytes(name, table))
        addresses[name] = str(path)
    by_rows = Warehouse(str(tmp_path / "rows.duckdb"))
    assert load_batch(duckdb_file, "b'1", addresses) == load_batch(by_rows, "b'1", tables)
    assert contents(duckdb_file) == contents(by_rows)


def test_a_file_outside_a_folder_of_its_date_is_refused_with_its_address(duckdb_file: Warehouse) -> None:
    addresses = dict.fromkeys(TABLES, "somewhere/else/b1.parquet")
    with pytest.raises(WarehouseError, match=r"somewhere/else/b1.parquet: .* in a folder named ingest_date=<date>"):
        load_batch(duckdb_file, "b1", addresses)


def test_a_deletion_hides_the_upload_and_a_reload_of_it_does_not_bring_it_back(warehouse: Warehouse) -> None:
    load(warehouse, result("a.pdf", batch="b1", uploaded=10), result("b.pdf", batch="b1", uploaded=10))
    assert mark_deleted(warehouse, {document_id("a.pdf"): instant(20)}) == 1
    load(warehouse, result("a.pdf", batch="b2", uploaded=10))
    with warehouse.read() as connection:
        assert connection.execute("SELECT document_id FROM ocr.current_documents").fetchall() == [
            (document_id("b.pdf"),)
        ]
        assert connection.execute("SELECT DISTINCT document_id FROM ocr.current_pages").fetchall() == [
            (document_id("b.pdf"),)
        ]


def test_a_newer_upload_undoes_a_deletion_and_an_older_one_loaded_late_does_not(warehouse: Warehouse) -> None:
    mark_deleted(warehouse, {document_id("a.pdf"): instant(20)})
    load(warehouse, result("a.pdf", batch="b1", uploaded=10))
    assert [row[-2] for row in contents(warehouse)["documents"]] == [instant(20)]
    load(warehouse, result("a.pdf", batch="b2", uploaded=30))
    assert [row[-2] for row in contents(warehouse)["documents"]] == [None]
    mark_deleted(warehouse, {document_id("a.pdf"): instant(15)})  # an old message, delivered again
    assert [row[-2] for row in contents(warehouse)["documents"]] == [None]
    with pytest.raises(WarehouseError, match="without a time zone"):
        mark_deleted(warehouse, {"x": instant(1).replace(tzinfo=None)})


def test_a_deletion_hides_what_was_known_and_nothing_else_whatever_the_clocks_say(warehouse: Warehouse) -> None:
    old, new = result("a.pdf", batch="b1", uploaded=10), result("a.pdf", batch="b0", uploaded=10, pages=3)
    new = replace(new, document=replace(new.document, etag="other"))  # of the same second, in a batch named earlier
    # our clock is an hour ahead of the store's
    mark = Deletion(instant(70), old.document.uploaded_at, (old.document.etag,))
    load(warehouse, old)
    assert mark_deleted(warehouse, {document_id("a.pdf"): mark}) == 1
    load(warehouse, replace(new, document=replace(new.document, uploaded_at=instant(11))))
    assert [row[-2] for row in contents(warehouse)["documents"]] == [None]
    warehouse.run(lambda connection: connection.execute("DELETE FROM ocr.documents"))
    warehouse.run(lambda connection: connection.execute("DELETE FROM ocr.pages"))
    warehouse.run(lambda connection: connection.execute("DELETE FROM ocr.regions"))
    load(warehouse, new)
    assert [row[-2] for row in contents(warehouse)["documents"]] == [None]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
def test_an_upload_that_was_deleted_and_is_there_again_is_shown_in_whatever_order_that_is_told(
    warehouse: Warehouse, order: tuple[int, ...]
) -> None:
    row = result("a.pdf", batch="b1", uploaded=10)
    gone = Deletion(instant(20), row.document.uploaded_at, (row.document.etag,))
    back = Deletion(instant(21), None)
    steps = [
        lambda: load(warehouse, row),
        lambda: mark_deleted(warehouse, {document_id("a.pdf"): gone}),
        lambda: mark_deleted(warehouse, {document_id("a.pdf"): back}),
    ]
    for step in order:
        steps[step]()
    assert [found[-2] for found in contents(warehouse)["documents"]] == [None]
    mark_deleted(warehouse, {document_id("a.pdf"): replace(gone, deleted_at=instant(22))})
    assert [found[-2] for found in contents(warehouse)["documents"]] == [instant(22)]


@pytest.mark.parametrize("reason", [Reason.MISSING, Reason.REPLACED])
@pytest.mark.parametrize("lost", ["b1", "b3"])
def test_of_two_versions_in_one_second_the_one_that_was_not_found_loses(
    warehouse: Warehouse, reason: Reason, lost: str
) -> None:
    for batch in sorted([lost, "b2"]):
        load(warehouse, result("a.pdf", batch=batch, uploaded=10, rejected=reason if batch == lost else None))
    assert pages_of(warehouse, "a.pdf") == [(1, "b2"), (2, "b2")]


def test_which_documents_are_written_is_decided_by_upload_time_then_batch_name() -> None:
    incoming = {
        "new": (instant(1), True, "b"),
        "same": (instant(1), True, "b"),
        "older": (instant(1), True, "z"),
        "name": (instant(1), True, "b"),
        "lost": (instant(1), False, "z"),
    }
    present = {
        "same": (instant(1), True, "b"),
        "older": (instant(2), True, "a"),
        "name": (instant(1), True, "a"),
        "lost": (instant(1), True, "a"),
    }
    assert outcome(incoming, present) == (["name", "new", "same"], ["name", "same"])


@contextlib.contextmanager
def in_memory() -> Iterator[Warehouse]:
    """A warehouse without a file, for many small loads: connections come from the `connect` hook, as on MotherDuck."""
    with contextlib.closing(duckdb.connect()) as database:
        yield Warehouse("md:memory", "token", connect=lambda *_: contextlib.closing(database.cursor()))


STEPS = st.lists(
    st.tuples(
        st.lists(
            st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(0, 3), st.sampled_from(["r1", "r2"])),
            min_size=1,
            max_size=3,
            unique_by=lambda row: row[0],
        ),
        st.booleans(),
    ),
    min_size=2,
    max_size=5,
)
DELETIONS = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 4)), max_size=3)


def check_that_order_and_repeats_change_nothing(steps: Steps, deletions: Deletions, shuffle: random.Random) -> None:
    batches: list[tuple[str, Tables]] = []
    for number, (rows, twice) in enumerate(steps):
        name = f"b{number}"
        tables = to_tables(
            result(key, batch=name, uploaded=uploaded, pages=pages, regions=1, recipe_id=recipe, words=3)
            for key, uploaded, pages, recipe in rows
        )
        batches += [(name, tables)] * (2 if twice else 1)
    jobs: list[tuple[str, object]] = [*batches, *(("deletion", mark) for mark in deletions)]  # type: ignore[list-item]
    with in_memory() as one, in_memory() as other, in_memory() as fresh:
        for warehouse in (one, other):
            for name, job in jobs:
                if name == "deletion":
                    mark_deleted(warehouse, {document_id(job[0]): instant(job[1])})  # type: ignore[index]
                else:
                    load_batch(warehouse, name, job)  # type: ignore[arg-type]
            shuffle.shuffle(jobs)
        first = contents(one)
        assert contents(other) == first
        rebuild(other, Shelf([tables for _, tables in batches[::-1]]))
        assert contents(other) == first
        marks = {}
        for key, at in deletions:
            marks[document_id(key)] = max(instant(at), marks.get(document_id(key), instant(at)))
        rebuild(fresh, Shelf([tables for _, tables in batches], marks))
        assert contents(fresh) == first


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, DELETIONS, st.randoms(use_true_random=False))
def test_the_end_state_depends_on_what_was_loaded_and_never_on_order_or_repeats(
    steps: Steps, deletions: Deletions, shuffle: random.Random
) -> None:
    check_that_order_and_repeats_change_nothing(steps, deletions, shuffle)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, DELETIONS, st.randoms(use_true_random=False))
def test_the_end_state_depends_on_what_was_loaded_and_never_on_order_or_repeats_at_length(
    steps: Steps, deletions: Deletions, shuffle: random.Random
) -> None:
    check_that_order_and_repeats_change_nothing(steps, deletions, shuffle)
