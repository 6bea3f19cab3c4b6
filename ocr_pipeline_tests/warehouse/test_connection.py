"""Connections: closed whatever happens, locked only while loading, never a browser login."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest
from filelock import FileLock

from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.load import load_batch
from ocr_pipeline.warehouse.retry import passes_by_itself, with_retries
from ocr_pipeline_tests.warehouse.sample_rows import contents, result, to_tables

Opened = contextlib.AbstractContextManager[duckdb.DuckDBPyConnection]


def opens_in_another_process(path: str) -> bool:
    code = "import duckdb, sys; duckdb.connect(sys.argv[1]).close()"
    return subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("token", [None, "", "  "])
def test_motherduck_without_a_token_is_an_error_at_once(token: str | None) -> None:
    with pytest.raises(WarehouseError, match="md:scans needs a token: set MOTHERDUCK_TOKEN"):
        Warehouse("md:scans", token)


@pytest.mark.parametrize("target", ["md:", "md:scans?motherduck_token=t0ken", "md:a b", 'md:a"b'])
def test_a_motherduck_target_that_is_no_database_name_is_refused(target: str) -> None:
    with pytest.raises(WarehouseError, match="OCR_WAREHOUSE must be md: and the name") as caught:
        Warehouse(target, "t0ken")
    assert "t0ken" not in str(caught.value)


@pytest.mark.parametrize("target", ["md:ocr", "md:OCR", "ocr.duckdb", "OCR", "ocr.v2.db", ".ocr.duckdb"])
def test_a_database_of_the_schemas_name_is_refused_with_another_one_to_take(tmp_path: Path, target: str) -> None:
    if not target.startswith("md:"):
        target = str(tmp_path / target)
        with contextlib.closing(duckdb.connect(target)) as plain:
            plain.execute("CREATE SCHEMA ocr")
            with pytest.raises(duckdb.BinderException, match="Ambiguous reference to catalog or schema"):
                plain.execute("CREATE TABLE ocr.pages (number INTEGER)")
    with pytest.raises(WarehouseError, match=r"DuckDB cannot tell .*: take another name in OCR_WAREHOUSE, such as "):
        Warehouse(target, "t0ken")


def test_a_file_whose_name_only_holds_that_of_the_schema_is_fine(tmp_path: Path) -> None:
    for name in ("ocr-2026.duckdb", "my.ocr.duckdb"):
        Warehouse(str(tmp_path / name)).run(lambda connection: connection.execute("SELECT count(*) FROM ocr.pages"))


@pytest.mark.parametrize("target", ["", ":memory:"])
def test_a_warehouse_that_would_be_forgotten_is_refused(target: str) -> None:
    with pytest.raises(WarehouseError, match="path of a DuckDB file"):
        Warehouse(target)


def test_the_token_shows_in_no_representation_and_no_error() -> None:
    def connect(database: str, read_only: bool, config: Mapping[str, Any]) -> Opened:
        raise duckdb.IOException(f"login with {config['motherduck_token']} was refused")

    warehouse = Warehouse("md:scans", "s3cret-token", connect=connect)
    assert "s3cret" not in repr(warehouse)
    with pytest.raises(WarehouseError, match=r"cannot open md:scans: login with \*\*\* was refused") as caught:
        warehouse.run(lambda _: None)
    assert caught.value.__cause__ is None


def test_after_an_exception_the_file_is_closed_unlocked_and_unchanged(duckdb_file: Warehouse) -> None:
    load_batch(duckdb_file, "b1", to_tables([result("a.pdf", batch="b1")]))
    before = contents(duckdb_file)
    used: list[duckdb.DuckDBPyConnection] = []

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        used.append(connection)
        connection.execute("DELETE FROM ocr.pages")
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle") as kept:
        duckdb_file.run(work)
    assert kept.traceback  # it holds the frames, and with them dagster-duckdb's resource held the connection
    with pytest.raises(duckdb.ConnectionException):
        used[0].execute("SELECT 1")
    assert opens_in_another_process(duckdb_file.target)
    with FileLock(f"{duckdb_file.target}.lock", timeout=0):
        pass
    assert contents(duckdb_file) == before


def test_a_load_waits_for_another_one_and_gives_up_with_a_word_when_told_to(duckdb_file: Warehouse) -> None:
    impatient = Warehouse(duckdb_file.target, wait_seconds=0.2)
    with duckdb_file.transaction(), pytest.raises(WarehouseError, match="has been loaded by another process"):
        impatient.run(lambda _: None)
    impatient.run(lambda _: None)


def test_a_file_that_another_program_holds_is_waited_for(duckdb_file: Warehouse) -> None:
    duckdb_file.run(lambda _: None)
    code = (
        "import duckdb, sys\n"
        "connection = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == 'reader')\n"
        "print('open', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    for kind in ("reader", "writer"):
        with subprocess.Popen(
            [sys.executable, "-c", code, duckdb_file.target, kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as other:
            assert other.stdin is not None
            assert other.stdout is not None
            assert other.stdout.readline() == "open\n"
            with pytest.raises(WarehouseError, match="open in another program"):
                Warehouse(duckdb_file.target, wait_seconds=0.2).run(lambda _: None)
            done = threading.Thread(target=duckdb_file.run, args=(lambda _: None,))
            done.start()
            other.stdin.write("\n")
            other.stdin.close()
            done.join(timeout=60)
            assert not done.is_alive()


def test_a_wait_that_lasts_is_told_once_with_the_process_that_has_the_file(
    duckdb_file: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    duckdb_file.run(lambda _: None)
    told: list[str] = []
    waiting = threading.Event()

    def tell(text: str) -> None:
        told.append(text)
        waiting.set()

    warehouse = Warehouse(duckdb_file.target, on_wait=tell)
    warehouse.run(lambda _: None)
    assert told == []  # nothing was waited for
    monkeypatch.setattr("ocr_pipeline.warehouse.connection._WAIT_WORTH_A_WORD", 0.2)
    code = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print(flush=True); sys.stdin.readline()"
    with subprocess.Popen(
        [sys.executable, "-c", code, warehouse.target], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        done = threading.Thread(target=warehouse.run, args=(lambda _: None,))
        done.start()
        assert waiting.wait(timeout=60)
        other.communicate("\n", timeout=60)
        done.join(timeout=60)
    assert told == [f"waiting for {warehouse.target}: open in PID {other.pid}"]
    waiting.clear()
    with duckdb_file.transaction():
        done = threading.Thread(target=warehouse.run, args=(lambda _: None,))
        done.start()
        assert waiting.wait(timeout=60)
    done.join(timeout=60)
    assert told[1:] == [f"waiting for {warehouse.target}: it is being loaded by another process"]


def test_a_file_that_opens_slowly_is_not_told_as_open_elsewhere_and_a_slow_motherduck_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(database: str, read_only: bool, config: Mapping[str, Any]) -> Opened:
        for thread in threading.enumerate():  # whatever is to be told of the wait is told now
            if isinstance(thread, threading.Timer):
                thread.join()
        return contextlib.closing(duckdb.connect())

    monkeypatch.setattr("ocr_pipeline.warehouse.connection._WAIT_WORTH_A_WORD", 0.0)
    told: list[str] = []
    file = tmp_path / "slow.duckdb"
    with Warehouse(str(file), connect=slowly, on_wait=told.append).exclusive():
        assert told[-1] == f"waiting for {file}: it takes long to open, or another program has it"
    told.clear()
    with Warehouse("md:scans", "t0ken", connect=slowly, on_wait=told.append).exclusive():
        assert told == []


def test_a_warehouse_in_a_folder_that_cannot_be_made_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(WarehouseError, match=r"file/w\.duckdb cannot be written: .*; look at that folder"):
        Warehouse(str(tmp_path / "file" / "w.duckdb")).run(lambda _: None)


def test_a_reader_in_the_same_process_waits_for_the_load_to_end(duckdb_file: Warehouse) -> None:
    load_batch(duckdb_file, "b1", to_tables([result("a.pdf", batch="b1")]))
    seen: list[int] = []

    def read() -> None:
        with duckdb_file.read() as connection:
            row = connection.execute("SELECT count(*) FROM ocr.documents").fetchone()
            seen.append(row[0] if row else -1)

    reader = threading.Thread(target=read)
    with duckdb_file.transaction() as connection:
        connection.execute("DELETE FROM ocr.documents")
        reader.start()
    reader.join(timeout=60)
    assert seen == [0]


def test_questions_cannot_write(duckdb_file: Warehouse) -> None:
    duckdb_file.run(lambda _: None)
    with duckdb_file.read() as connection, pytest.raises(duckdb.InvalidInputException, match="read-only"):
        connection.execute("DELETE FROM ocr.documents")


def test_a_warehouse_that_was_never_loaded_reads_as_empty_and_makes_no_file(tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path / "deep" / "warehouse.duckdb"))
    with warehouse.read() as connection:
        assert connection.execute("SELECT count(*) FROM ocr.failed_pages").fetchone() == (0,)
    assert list(tmp_path.iterdir()) == []
    warehouse.run(lambda _: None)
    assert (tmp_path / "deep" / "warehouse.duckdb").exists()


def test_a_file_that_is_no_database_is_an_error_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database " * 1000)
    with pytest.raises(WarehouseError, match=r"cannot open the DuckDB file .*notes\.txt"):
        Warehouse(str(path)).run(lambda _: None)


def test_connections_of_ones_own_are_used_and_closed(tmp_path: Path) -> None:
    given: list[duckdb.DuckDBPyConnection] = []

    @contextlib.contextmanager
    def connect(database: str, read_only: bool, config: Mapping[str, Any]) -> Iterator[duckdb.DuckDBPyConnection]:
        given.append(duckdb.connect(database, read_only=read_only, config={"custom_user_agent": "dagster", **config}))
        yield given[-1]  # and not closed where the block raises, as dagster-duckdb does it

    warehouse = Warehouse(str(tmp_path / "w.duckdb"), connect=connect)
    load_batch(warehouse, "b1", to_tables([result("a.pdf", batch="b1")]))
    assert len(contents(warehouse)["documents"]) == 1
    with pytest.raises(RuntimeError, match="in the middle"), warehouse.transaction():
        raise RuntimeError("in the middle")
    assert len(given) == 3
    for connection in given:
        with pytest.raises(duckdb.ConnectionException):
            connection.execute("SELECT 1")


def test_days_and_hours_are_utc_whatever_the_zone_of_the_machine(
    duckdb_file: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_batch(duckdb_file, "b1", to_tables([result("a.pdf", batch="b1")]))
    with duckdb_file.read() as connection:
        assert connection.execute("SELECT current_setting('TimeZone')").fetchone() == ("UTC",)
    with contextlib.closing(duckdb.connect(duckdb_file.target, read_only=True)) as plain:
        plain.execute("SET TimeZone = 'Pacific/Kiritimati'")  # the views give UTC to those who open the file themselves
        assert plain.execute("SELECT epoch(hour) FROM ocr.backend_speed").fetchall() == [(1793520000.0,)]
        assert plain.execute("SELECT CAST(day AS VARCHAR) FROM ocr.agreement").fetchall() == [("2026-11-01",)]


def test_conflicts_pass_by_themselves_and_faults_of_the_rows_do_not() -> None:
    assert passes_by_itself(duckdb.TransactionException("Conflict on tuple deletion!"))
    assert passes_by_itself(duckdb.CatalogException("write-write conflict on create"))
    assert passes_by_itself(duckdb.IOException("Could not set lock on file"))
    assert passes_by_itself(duckdb.IOException("connection reset"), remote=True)
    assert passes_by_itself(duckdb.ConstraintException("Duplicate key violates primary key"), remote=True)
    assert passes_by_itself(duckdb.CatalogException("Remote catalog has changed. Please rerun query."), remote=True)
    unreachable = "Request failed: failed to connect to all addresses; last error: … (UNAVAILABLE, RPC 'SETUP', …)"
    assert passes_by_itself(duckdb.InvalidInputException(unreachable), remote=True)
    assert passes_by_itself(duckdb.Error("Request failed: (DEADLINE_EXCEEDED, RPC 'PULL', …)"), remote=True)
    assert not passes_by_itself(duckdb.InvalidInputException("Your request is not authenticated"), remote=True)
    assert not passes_by_itself(duckdb.IOException("No space left on device"))
    assert not passes_by_itself(duckdb.ConstraintException("Duplicate key violates primary key"))
    assert not passes_by_itself(duckdb.ConstraintException("NOT NULL constraint failed"), remote=True)
    assert not passes_by_itself(duckdb.BinderException("column not found"), remote=True)
    assert not passes_by_itself(KeyboardInterrupt())


def test_two_writers_that_conflict_both_end_up_done_the_second_on_a_fresh_connection(tmp_path: Path) -> None:
    """A real conflict of DuckDB's: the other one has no lock, as on MotherDuck."""
    path = str(tmp_path / "w.duckdb")
    load_batch(Warehouse(path), "b1", to_tables([result("a.pdf", batch="b1", pages=3)]))
    other = duckdb.connect(path)
    other.begin()
    for table in ("documents", "pages", "regions"):
        other.execute(f"DELETE FROM ocr.{table}")
    opened: list[int] = []

    def connect(database: str, read_only: bool, config: Mapping[str, Any]) -> Opened:
        opened.append(1)
        if len(opened) == 2:
            other.commit()
            other.close()
        return contextlib.closing(duckdb.connect(database))

    load_batch(Warehouse(path, connect=connect), "b2", to_tables([result("a.pdf", batch="b2", pages=2)]))
    assert len(opened) == 2
    assert [row[-3] for row in contents(Warehouse(path))["pages"]] == ["b2", "b2"]


def test_retries_wait_longer_each_time_and_end() -> None:
    waited: list[float] = []

    def work() -> None:
        raise duckdb.TransactionException("Conflict")

    with pytest.raises(duckdb.TransactionException):
        with_retries(work, attempts=6, sleep=waited.append)
    assert len(waited) == 5
    assert all(0.1 * 0.1 * 2**n <= wait <= 0.1 * 2**n for n, wait in enumerate(waited))
