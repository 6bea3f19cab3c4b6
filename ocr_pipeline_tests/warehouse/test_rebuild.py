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
from ocr_pipeline.warehouse.rebuild import PublishedBatch, RebuildCounts, RebuildRefused, rebuild
from ocr_pipeline_tests.warehouse.sample_rows import contents, document_id, instant, result, to_tables
from ocr_pipeline_tests.warehouse.shelf import Shelf


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


def leftovers(warehouse: Warehouse) -> list[tuple[object, ...]]:
    with warehouse.read() as connection:
        return connection.execute("SELECT table_name FROM duckdb_tables() WHERE table_name LIKE 'rebuilt%'").fetchall()


def load_all(warehouse: Warehouse, batches: list[dict[str, pa.Table]]) -> None:
    for tables in batches:
        names = tables["documents"]["batch"].to_pylist()
        load_batch(warehouse, names[0] if names else "empty", tables)


def test_a_rebuild_equals_the_original_every_table(warehouse: Warehouse, batches: list[dict[str, pa.Table]]) -> None:
    load_all(warehouse, batches)
    mark_deleted(warehouse, {document_id("b.pdf"): instant(30)})
    before = contents(warehouse)
    counts = rebuild(warehouse, Shelf(batches[::-1]))
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
    rebuild(empty, Shelf(batches, deletions))
    assert contents(empty) == contents(duckdb_file)


def test_after_a_rebuild_keys_hold_views_answer_and_loads_go_on_in_a_new_process_too(
    duckdb_file: Warehouse, batches: list[dict[str, pa.Table]]
) -> None:
    load_all(duckdb_file, batches)
    rebuild(duckdb_file, Shelf(batches))
    before = contents(duckdb_file)
    with contextlib.closing(duckdb.connect(duckdb_file.target)) as connection:
        for table in ("documents", "pages", "regions", "attempts"):
            with pytest.raises(duckdb.ConstraintException, match="primary key"):
                connection.execute(f"INSERT INTO ocr.{table} SELECT * FROM ocr.{table} LIMIT 1")
        assert connection.execute("SELECT count(*) FROM ocr.current_pages").fetchone() == (len(before["pages"]),)
    assert leftovers(duckdb_file) == []
    load_all(duckdb_file, batches)
    assert contents(duckdb_file) == before


def test_a_rebuild_that_fails_leaves_the_old_tables_and_can_be_run_again(
    warehouse: Warehouse, batches: list[dict[str, pa.Table]]
) -> None:
    load_all(warehouse, batches)
    before = contents(warehouse)

    class Broken(Shelf):
        @contextlib.contextmanager
        def batch(self, name: str) -> Iterator[PublishedBatch]:
            if name == "b2":
                raise OSError("the lake went away")
            with super().batch(name) as batch:
                yield batch

    with pytest.raises(OSError, match="the lake went away"):
        rebuild(warehouse, Broken(batches))
    assert contents(warehouse) == before
    assert leftovers(warehouse) == []
    rebuild(warehouse, Shelf(batches))
    assert contents(warehouse) == before


def test_batches_whose_parquet_is_gone_are_named(warehouse: Warehouse, batches: list[dict[str, pa.Table]]) -> None:
    load_all(warehouse, batches)
    before = contents(warehouse)
    with pytest.raises(RebuildRefused, match=r"1 batches have rows now and no Parquet was found for them \(b2\)"):
        rebuild(warehouse, Shelf(batches[:1]))
    assert contents(warehouse) == before
    assert leftovers(warehouse) == []
    counts = rebuild(warehouse, Shelf(batches[:1]), force=True)
    assert counts.missing_batches == ("b2",)  # b3 had no row left of its own
    assert counts.documents == 2


def test_a_lake_with_nothing_published_takes_no_table_away_unless_it_is_told_to(warehouse: Warehouse) -> None:
    with pytest.raises(RebuildRefused, match="no published batch was found: is OCR_LAKE the right lake"):
        rebuild(warehouse, Shelf([]))
    assert rebuild(warehouse, Shelf([]), force=True).documents == 0


def test_deletions_of_a_batch_that_cannot_be_read_count_all_the_same_where_it_is_left_out(
    duckdb_file: Warehouse, batches: list[dict[str, pa.Table]]
) -> None:
    class Torn(Shelf):
        @contextlib.contextmanager
        def batch(self, name: str) -> Iterator[PublishedBatch]:
            with super().batch(name) as batch:
                yield PublishedBatch(None, batch.deletions, "torn") if name == "deletions" else batch

    shelf = Torn(batches, {document_id("b.pdf"): instant(30)})
    with pytest.raises(RebuildRefused, match="torn, or use --force"):
        rebuild(duckdb_file, shelf)
    assert leftovers(duckdb_file) == []
    counts = rebuild(duckdb_file, shelf, force=True)
    assert (counts.batches, counts.missing_batches) == (len(batches), ("deletions",))
    assert [row[-2] for row in contents(duckdb_file)["documents"] if row[0] == document_id("b.pdf")] == [instant(30)]


@pytest.mark.parametrize("whole_in_the_end", [False, True])
def test_a_batch_that_is_not_whole_right_after_the_swap_is_named_and_a_whole_one_loaded(
    warehouse: Warehouse, batches: list[dict[str, pa.Table]], whole_in_the_end: bool
) -> None:
    class Late(Shelf):
        """b1 is published again during the swap; b3 cannot be read before the swap is over."""

        looks = 0

        def listing(self) -> dict[str, str]:
            self.looks += 1
            if self.looks == 3:
                self.publish(batches[0])
            return super().listing()

        @contextlib.contextmanager
        def batch(self, name: str) -> Iterator[PublishedBatch]:
            torn = self.looks == 3 and not whole_in_the_end if name == "b1" else name == "b3" and self.looks < 3
            with super().batch(name) as batch:
                yield PublishedBatch(None, fault="torn") if torn else batch

    load_all(warehouse, batches)
    before = contents(warehouse)
    counts = rebuild(warehouse, Late(batches), force=True)
    assert (counts.batches, counts.missing_batches) == (4, () if whole_in_the_end else ("b1",))
    assert contents(warehouse) == before


def test_batches_that_are_published_and_loaded_while_a_rebuild_runs_are_kept() -> None:
    """As on MotherDuck, where nothing locks: the same warehouse without a file, from two sides."""
    unread = to_tables([result("a.pdf", batch="b1", statuses={1: (PageStatus.FAILED, Reason.BACKEND_UNAVAILABLE)})])
    read, other = to_tables([result("a.pdf", batch="b1", asked=99)]), to_tables([result("b.pdf", batch="b2")])
    during, after = to_tables([result("c.pdf", batch="b3")]), to_tables([result("d.pdf", batch="b4")])
    with contextlib.closing(duckdb.connect()) as database:
        warehouse = Warehouse("md:memory", "token", connect=lambda *_: contextlib.closing(database.cursor()))

        class Busy(Shelf):
            busy = False
            looks = 0

            @contextlib.contextmanager
            def batch(self, name: str) -> Iterator[PublishedBatch]:
                with super().batch(name) as batch:
                    yield batch
                if name == "b1" and not self.busy:  # its failed page is read after all; and one is new
                    self.busy = True
                    self.publish(read)
                    self.publish(during)
                    load_batch(warehouse, "b1", read)
                    load_batch(warehouse, "b3", during)

            def listing(self) -> dict[str, str]:
                self.looks += 1
                found = super().listing()
                if self.looks == 2:  # after the swap's own look at the list
                    self.publish(after)
                return found

        load_batch(warehouse, "b1", unread)
        load_batch(warehouse, "b2", other)
        counts = rebuild(warehouse, Busy([unread, other]))
        assert (counts.batches, counts.documents) == (4, 4)
        found = contents(warehouse)
    with contextlib.closing(duckdb.connect()) as database:
        serial = Warehouse("md:memory", "token", connect=lambda *_: contextlib.closing(database.cursor()))
        load_all(serial, [unread, read, other, during, after])  # type: ignore[list-item]
        assert found == contents(serial)
