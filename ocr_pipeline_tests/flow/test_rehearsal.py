"""One page from the lake into the database, as doctor tries it: on DuckDB, which answers as MotherDuck should."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ocr_pipeline.flow.rehearsal import rehearse
from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline_tests.storages import moto_store


@pytest.fixture(params=["folder", "bucket"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "folder":
        yield open_storage(str(tmp_path / "lake"))
        return
    with moto_store() as store:
        yield open_storage(store.new_lake(), store.options)


def left(lake: Storage, warehouse: Warehouse) -> list[str]:
    """What there is that was not there before."""
    with warehouse.read() as connection:
        tables = connection.execute("SELECT table_name FROM duckdb_tables() WHERE table_name LIKE 'doctor%'").fetchall()
    return [*(info.key for info in lake.list("doctor/")), *(name for (name,) in tables)]


def test_a_page_goes_from_the_lake_into_the_database_and_is_the_same_there(lake: Storage, tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path / "w.duckdb"))
    assert rehearse(lake, warehouse, on_r2=False).endswith("doctor/ingest_date=2026-11-01/pages.parquet")
    assert left(lake, warehouse) == []


class Altered:
    """A connection to a database that answers otherwise: `statement` is a part of those it does that to."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, part: str, answer: str | duckdb.Error) -> None:
        self._connection, self._part, self._answer = connection, part, answer

    def execute(self, statement: str, *parameters: object) -> object:
        if self._part not in statement:
            return self._connection.execute(statement, *parameters)
        if isinstance(self._answer, duckdb.Error):
            raise self._answer
        table = statement.split()[2]
        self._connection.execute(statement, *parameters)
        return self._connection.execute(f"UPDATE {table} SET {self._answer}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def altered(path: Path, part: str, answer: str | duckdb.Error) -> Warehouse:
    @contextlib.contextmanager
    def connect(database: str, read_only: bool, config: Mapping[str, Any]) -> Iterator[duckdb.DuckDBPyConnection]:
        with contextlib.closing(duckdb.connect(database, read_only=read_only)) as connection:
            yield Altered(connection, part, answer)  # type: ignore[misc]

    return Warehouse(str(path), connect=connect)


def test_a_database_that_gives_another_row_back_is_told(lake: Storage, tmp_path: Path) -> None:
    warehouse = altered(tmp_path / "w.duckdb", "INSERT INTO ocr.doctor_", "quality = 0.3333")
    with pytest.raises(WarehouseError, match=r"of 1 rows of .*pages\.parquet 0 are the same in the table"):
        rehearse(lake, warehouse, on_r2=False)
    assert left(lake, warehouse) == []


def test_a_database_that_does_not_read_the_file_is_told_with_its_own_words(lake: Storage, tmp_path: Path) -> None:
    refusal = duckdb.HTTPException("HTTP Error: HTTP GET error on '…' (HTTP 403)\nmore of it")
    warehouse = altered(tmp_path / "w.duckdb", "read_parquet", refusal)
    with pytest.raises(WarehouseError, match=r"does not load .*pages\.parquet: HTTP Error: .* \(HTTP 403\)$"):
        rehearse(lake, warehouse, on_r2=False)
    assert left(lake, warehouse) == []
