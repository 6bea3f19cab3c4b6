"""Purge beside a rebuild: rows of a rebuild that was killed are found and go, one at work brings nothing back."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import duckdb
import pytest

from ocr_pipeline.warehouse.compact import compact
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.load import load_batch
from ocr_pipeline.warehouse.purge import check_ready, left_of, purge
from ocr_pipeline.warehouse.rebuild import PublishedBatch, rebuild
from ocr_pipeline_tests.warehouse.sample_rows import contents, document_id, result, to_tables
from ocr_pipeline_tests.warehouse.shelf import Shelf

SECRET = document_id("secret.pdf")
BOTH = [result("a.pdf", batch="b1"), result("secret.pdf", batch="b1")]
WITHOUT = [result("a.pdf", batch="b1")]

DIES_AT_THE_SWAP = """
import os, signal, sys
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.rebuild import rebuild
from ocr_pipeline_tests.warehouse.sample_rows import to_tables
from ocr_pipeline_tests.warehouse.shelf import Shelf
from ocr_pipeline_tests.warehouse.test_purge import BOTH

class Dying(Shelf):
    looks = 0

    def listing(self):
        self.looks += 1
        if self.looks == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().listing()

rebuild(Warehouse(sys.argv[1]), Dying([to_tables(BOTH)]))
"""


def rows_left(warehouse: Warehouse) -> dict[str, int]:
    return {table: count for table, count in left_of(warehouse, SECRET).items() if count}


def kill_a_rebuild(path: str) -> None:
    killed = subprocess.run([sys.executable, "-c", DIES_AT_THE_SWAP, path], check=False)
    assert killed.returncode == -signal.SIGKILL


@pytest.fixture
def remote() -> Iterator[Warehouse]:
    """As on MotherDuck, where nothing locks: the same warehouse without a file, from several sides."""
    with contextlib.closing(duckdb.connect()) as database:
        yield Warehouse("md:memory", "token", connect=lambda *_: contextlib.closing(database.cursor()))


class Meanwhile(Shelf):
    """Does something right after a batch was read for the first time that `now` says yes to."""

    def __init__(self, now: Callable[[Meanwhile], bool], does: Callable[[Meanwhile], None]) -> None:
        super().__init__([to_tables(BOTH)])
        self.looks, self.done = 0, False
        self._now, self._does = now, does

    def listing(self) -> dict[str, str]:
        self.looks += 1
        found = super().listing()
        if self.looks == 2:  # published again after the swap's own look at the list
            self.publish(to_tables(BOTH))
        return found

    @contextlib.contextmanager
    def batch(self, name: str) -> Iterator[PublishedBatch]:
        with super().batch(name) as batch:
            if not self.done and self._now(self):
                self.done = True
                self._does(self)
            yield batch


def test_rows_that_a_killed_rebuild_has_left_are_found_and_go_with_the_purge(duckdb_file: Warehouse) -> None:
    load_batch(duckdb_file, "b1", to_tables(BOTH))
    kill_a_rebuild(duckdb_file.target)
    assert rows_left(duckdb_file).keys() == {
        *("documents", "pages", "regions", "attempts"),
        *("rebuilt_documents", "rebuilt_pages", "rebuilt_regions", "rebuilt_attempts"),
    }
    check_ready(duckdb_file)
    assert purge(duckdb_file, SECRET).documents == 1
    assert rows_left(duckdb_file) == {}
    assert SECRET.encode() not in _logical_bytes(duckdb_file)


def _logical_bytes(warehouse: Warehouse) -> bytes:
    with warehouse.read() as connection:
        tables = connection.execute("SELECT schema_name, table_name FROM duckdb_tables()").fetchall()
        return repr([connection.execute(f'FROM "{schema}"."{table}"').fetchall() for schema, table in tables]).encode()


@pytest.mark.parametrize("swapped", [False, True])
def test_a_purge_is_refused_until_a_rebuild_is_over_which_then_brings_nothing_back(
    remote: Warehouse, swapped: bool
) -> None:
    def meanwhile(shelf: Meanwhile) -> None:
        shelf.publish(to_tables(WITHOUT))  # a purge that began before the rebuild has written Parquet again
        with pytest.raises(WarehouseError, match="a rebuild is at work, or was killed"):
            purge(remote, SECRET)

    load_batch(remote, "b1", to_tables(BOTH))
    shelf = Meanwhile(lambda shelf: shelf.looks == (3 if swapped else 1), meanwhile)
    rebuild(remote, shelf)
    assert shelf.done
    purge(remote, SECRET)
    assert rows_left(remote) == {}
    assert len(contents(remote)["documents"]) == 1


def test_a_document_that_a_batch_no_longer_holds_when_it_is_read_again_is_in_no_table(remote: Warehouse) -> None:
    class Smaller(Shelf):
        looks = 0

        def listing(self) -> dict[str, str]:
            self.looks += 1
            if self.looks == 2:
                self.publish(to_tables(WITHOUT))
            return super().listing()

    load_batch(remote, "b1", to_tables(BOTH))
    rebuild(remote, Smaller([to_tables(BOTH)]))
    assert rows_left(remote) == {}
    assert len(contents(remote)["attempts"]) == 2


def test_on_motherduck_what_a_killed_rebuild_has_left_goes_with_the_next_one(remote: Warehouse) -> None:
    load_batch(remote, "b1", to_tables(BOTH))
    remote.run(lambda connection: connection.execute("CREATE TABLE ocr.rebuilt_pages AS FROM ocr.pages"))
    with pytest.raises(WarehouseError, match="run `ocr-pipeline rebuild-warehouse` again; then purge again"):
        check_ready(remote)
    assert rows_left(remote)["rebuilt_pages"] == 2
    rebuild(remote, Shelf([to_tables(WITHOUT)]))
    check_ready(remote)
    assert rows_left(remote) == {}


def test_what_a_killed_rebuild_has_left_is_not_copied_into_a_compacted_file(duckdb_file: Warehouse) -> None:
    load_batch(duckdb_file, "b1", to_tables(BOTH))
    kill_a_rebuild(duckdb_file.target)
    compact(duckdb_file)
    assert not [table for table in rows_left(duckdb_file) if table.startswith("rebuilt")]
