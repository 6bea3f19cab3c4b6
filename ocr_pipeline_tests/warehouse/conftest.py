"""A fresh warehouse for each test: a DuckDB file, and with MOTHERDUCK_TOKEN a MotherDuck database too."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from ocr_pipeline.warehouse.connection import Warehouse, motherduck_account

TOKEN = os.environ.get("MOTHERDUCK_TOKEN", "").strip()
# Without a token the tests are not made for MotherDuck at all; test_motherduck.py has the one line that says so.
KINDS = ["duckdb", *([pytest.param("motherduck", marks=pytest.mark.motherduck)] if TOKEN else [])]


@pytest.fixture(params=KINDS)
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Warehouse]:
    if request.param == "duckdb":
        yield Warehouse(str(tmp_path / "warehouse.duckdb"), wait_seconds=60)
        return
    name = f"test_{uuid.uuid4().hex}"
    try:
        yield Warehouse(f"md:{name}", TOKEN)
    finally:
        # with the configuration of the warehouse: with another one it would be refused, and the database would stay
        with contextlib.closing(duckdb.connect("md:", config=motherduck_account(TOKEN))) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name}")


@pytest.fixture
def duckdb_file(tmp_path: Path) -> Warehouse:
    """For what only a file has: locks, crashes, the log beside it."""
    return Warehouse(str(tmp_path / "warehouse.duckdb"), wait_seconds=60)
