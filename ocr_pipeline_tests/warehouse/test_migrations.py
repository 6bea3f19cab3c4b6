"""Old files are brought up to date, forward only; a newer one is left alone."""

from __future__ import annotations

import contextlib
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from ocr_pipeline.warehouse import migrations
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.load import load_batch
from ocr_pipeline.warehouse.schema import PRIMARY_KEYS, TABLES
from ocr_pipeline.warehouse.sql import create_table
from ocr_pipeline_tests.warehouse.sample_rows import contents, result, to_tables

VERSION_1 = Path(__file__).with_name("version_1.sql").read_text(encoding="utf-8")


@pytest.fixture
def old_file(tmp_path: Path) -> Warehouse:
    path = tmp_path / "old.duckdb"
    with contextlib.closing(duckdb.connect(str(path))) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(VERSION_1)
    return Warehouse(str(path), wait_seconds=5)


def structure(warehouse: Warehouse) -> list[tuple[object, ...]]:
    with warehouse.read() as connection:
        return (
            connection.execute(
                """
            SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns()
            WHERE schema_name = 'ocr' AND table_name NOT LIKE 'rebuilt%' ORDER BY table_name, column_index
            """
            ).fetchall()
            + connection.execute(
                "SELECT table_name, constraint_type, constraint_column_names FROM duckdb_constraints() "
                "WHERE schema_name = 'ocr' AND constraint_type = 'PRIMARY KEY' ORDER BY ALL"
            ).fetchall()
        )


def rows_of_version_1(path: str) -> dict[str, list[tuple[object, ...]]]:
    with contextlib.closing(duckdb.connect(path, read_only=True)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return {name: connection.execute(f"SELECT * FROM ocr.{name} ORDER BY ALL").fetchall() for name in TABLES}


def test_a_file_of_version_1_is_brought_up_to_date_with_every_row_kept(old_file: Warehouse, tmp_path: Path) -> None:
    before = rows_of_version_1(old_file.target)
    assert [len(rows) for rows in before.values()] == [2, 2, 1, 1]
    after = contents(old_file)  # reading is enough
    deletions = after.pop("deletions")
    assert after == before
    assert [row[0] for row in deletions] == ["d2"]
    fresh = Warehouse(str(tmp_path / "fresh.duckdb"))
    fresh.run(lambda _: None)
    assert structure(old_file) == structure(fresh)


def test_a_file_of_version_1_takes_loads_and_answers_questions(old_file: Warehouse) -> None:
    load_batch(old_file, "b2", to_tables([result("new.pdf", batch="b2")]))
    with old_file.read() as connection:
        assert connection.execute("SELECT count(*) FROM ocr.current_documents").fetchone() == (2,)
        assert connection.execute("SELECT version, views IS NULL FROM ocr.schema_version ORDER BY 1").fetchall() == [
            (1, True),
            *((number, True) for number in range(2, migrations.WAREHOUSE_VERSION)),
            (migrations.WAREHOUSE_VERSION, False),
        ]


def test_the_steps_end_at_the_columns_types_and_keys_of_the_schema(duckdb_file: Warehouse) -> None:
    duckdb_file.run(lambda connection: [connection.execute(create_table(t, f"main.{t}")) for t in TABLES])
    with duckdb_file.read() as connection:
        for name, schema in TABLES.items():
            described = {
                where: connection.execute(
                    f'SELECT column_name, column_type, "null", key FROM (DESCRIBE {where}.{name})'
                ).fetchall()
                for where in ("ocr", "main")
            }
            assert described["ocr"] == described["main"]
            assert [row[0] for row in described["ocr"]] == schema.names
            assert tuple(row[0] for row in described["ocr"] if row[3] == "PRI") == PRIMARY_KEYS[name]
            arrow = connection.execute(f"SELECT * FROM ocr.{name}").to_arrow_table().schema
            assert [pa.types.is_timestamp(field.type) for field in arrow] == [
                pa.types.is_timestamp(field.type) for field in schema
            ]


def test_a_warehouse_of_a_newer_program_is_left_alone(duckdb_file: Warehouse) -> None:
    load_batch(duckdb_file, "b1", to_tables([result("a.pdf", batch="b1")]))
    newer = migrations.WAREHOUSE_VERSION + 1
    duckdb_file.run(lambda c: c.execute("INSERT INTO ocr.schema_version VALUES (?, now(), NULL)", [newer]))
    with pytest.raises(WarehouseError, match=f"has version {newer}.*update ocr-pipeline"):
        load_batch(duckdb_file, "b2", to_tables([result("b.pdf", batch="b2")]))
    with pytest.raises(WarehouseError, match="update ocr-pipeline"), duckdb_file.read():
        pass


def test_views_are_made_anew_when_their_text_changed(duckdb_file: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    duckdb_file.run(lambda connection: connection.execute("CREATE OR REPLACE VIEW ocr.agreement AS SELECT 1 AS stale"))
    duckdb_file.run(lambda connection: connection.execute("UPDATE ocr.schema_version SET views = 'older text'"))
    with duckdb_file.read() as connection:
        columns = [row[0] for row in connection.execute("DESCRIBE ocr.agreement").fetchall()]
    assert columns[:2] == ["backend", "day"]


def test_a_step_that_fails_leaves_the_old_version_whole(old_file: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows_of_version_1(old_file.target)
    broken = ("DROP TABLE ocr.regions", "SELECT no_such_column FROM ocr.pages")
    monkeypatch.setattr(migrations, "MIGRATIONS", (migrations.MIGRATIONS[0], broken))
    with pytest.raises(duckdb.BinderException), old_file.transaction():
        pass
    assert rows_of_version_1(old_file.target) == before


def test_old_steps_are_not_edited() -> None:
    """The text of version 1 in the fixture and in the code make the same tables."""
    described = []
    for statements in (VERSION_1.split(";\n"), migrations.MIGRATIONS[0]):
        with contextlib.closing(duckdb.connect()) as connection:
            for statement in statements:
                if statement.strip():
                    connection.execute(statement)
            tables = "SELECT table_name, sql FROM duckdb_tables() WHERE schema_name = 'ocr' ORDER BY 1"
            described.append(connection.execute(tables).fetchall())
    assert described[0] == described[1]
