"""All tables again from Parquet alone: equal to what was there, and swapped in one step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pytest

from ocr_pipeline.records import PageStatus, Reason
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.load import load_batch, mark_deleted
from ocr_pipeline.warehouse.parquet import from_bytes, to_bytes
from ocr_pipeline.warehouse.rebuild import RebuildCounts, rebuild
from ocr_pipeline.warehouse.rows import to_tables
from ocr_pipeline_tests.warehouse.sample_rows import contents, document_id, instant, result


@pytest.fixture
def batches() -> list[dict[str, pa.Table]]:
    made = [
        to_tables(
            [result("a.pdf", batch="b1", pages=4), result("b.pdf", batch="b1", statuses={1: (PageStatus.BLANK, None)})]
        ),  # type: ignore[dict-item]
        to_tables(
            [result("a.pdf", batch="b2", uploaded=10, pages=2), result("c.pdf", batch="b2", rejected=Reason.DAMAGED)]
        ),
        to_tables([]),
        to_tables([result("b.pdf", batch="b3", uploaded=-5, pages=7, asked=0)]),
    ]
    return [{name: from_bytes(name, to_bytes(name, table)) for name, table in tables.items()} for tables in made]


def load_all(warehouse: Warehouse, batches: list[dict[str, pa.Table]]) -> None:
    for tables in batches:
        names = tables["documents"]["batch"].to_pylist()
        load_batch(warehouse, names[0] if names else "empty", tables)


def test_a_rebuild_equals_the_original_every_table(warehouse: Warehouse, batches: list[dict[str, pa.Table]]) -> None:
    load_all(warehouse, batches)
    mark_deleted(warehouse, {document_id("b.pdf"): instant(30)})
    before = contents(warehouse)
    counts = rebuild(warehouse, reversed(batches))
    assert contents(warehouse) == before
    assert counts == RebuildCounts(
        batches=4, **{name: len(before[name]) for name in ("documents", "pages", "regions", "attempts")}
    )


def test_from_nothing_a_rebuild_gets_the_same_with_the_deletions_that_the_lake_knows(
    duckdb_file: Warehouse, tmp_path_factory: pytest.TempPathFactory, batches: list[dict[str, pa.Table]]
) -> None:
    load_all(duckdb_file, batches)
    deletions = {document_id("b.pdf"): instant(30), document_id("never loaded"): instant(1)}
    mark_deleted(duckdb_file, deletions)
    empty = Warehouse(str(tmp_path_factory.mktemp("empty") / "w.duckdb"))
    rebuild(empty, batches, deletions)
    assert contents(empty) == contents(duckdb_file)


def test_after_a_rebuild_keys_hold_views_answer_and_loads_go_on_in_a_new_process_too(
    duckdb_file: Warehouse, batches: list[dict[str, pa.Table]]
) -> None:
    load_all(duckdb_file, batches)
    rebuild(duckdb_file, batches)
    before = contents(duckdb_file)
    with contextlib.closing(duckdb.connect(duckdb_file.target)) as connection:
        for table in ("documents", "pages", "regions", "attempts"):
            with pytest.raises(duckdb.ConstraintException, match="primary key"):
                connection.execute(f"INSERT INTO ocr.{table} SELECT * FROM ocr.{table} LIMIT 1")
        assert connection.execute("SELECT count(*) FROM ocr.current_pages").fetchone() == (len(before["pages"]),)
        leftovers = "SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE 'rebuilt%'"
        assert connection.execute(leftovers).fetchone() == (0,)
    load_all(duckdb_file, batches)
    assert contents(duckdb_file) == before


def test_a_rebuild_that_fails_leaves_the_old_tables_and_can_be_run_again(
    warehouse: Warehouse, batches: list[dict[str, pa.Table]]
) -> None:
    load_all(warehouse, batches)
    before = contents(warehouse)

    def broken() -> Iterator[dict[str, pa.Table]]:
        yield batches[0]
        raise OSError("the lake went away")

    with pytest.raises(OSError, match="the lake went away"):
        rebuild(warehouse, broken())
    assert contents(warehouse) == before
    rebuild(warehouse, batches)
    assert contents(warehouse) == before


def test_batches_whose_parquet_is_gone_are_named(warehouse: Warehouse, batches: list[dict[str, pa.Table]]) -> None:
    load_all(warehouse, batches)
    counts = rebuild(warehouse, batches[:1])
    assert counts.missing_batches == ("b2",)  # b3 had no row left of its own
    assert counts.documents == 2
