"""MotherDuck: with a token, every test here that takes `warehouse` runs there too; this file has what only it has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import duckdb
import pytest

from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.motherduck import make_r2_secret, r2_secret_sql, secret_name
from ocr_pipeline_tests.warehouse.conftest import TOKEN


@pytest.mark.motherduck
@pytest.mark.skipif(not TOKEN, reason="MOTHERDUCK_TOKEN is not set: nothing was run on MotherDuck")
def test_a_wrong_token_is_an_error_that_does_not_repeat_it() -> None:
    with pytest.raises(WarehouseError) as caught:
        Warehouse("md:test_never_made", f"{TOKEN}wrong").run(lambda _: None)
    assert str(TOKEN) not in str(caught.value)


def test_a_secret_that_is_not_taken_shows_no_key_in_the_error(duckdb_file: Warehouse) -> None:
    """A DuckDB file knows no storage named MOTHERDUCK, so the statement fails there."""
    with pytest.raises(WarehouseError, match="did not take the R2 secret") as caught:
        make_r2_secret(duckdb_file, key_id="key-of-mine", secret="it's secret", account_id="acc", scope="r2://b/")
    assert "key-of-mine" not in str(caught.value)
    assert "secret'" not in str(caught.value)
    assert caught.value.__cause__ is None


class TakesSecrets:
    """A connection to a MotherDuck that is not there: DuckDB with the one statement that only MotherDuck knows."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, taken: list[str], conflicts: list[int]) -> None:
        self._connection, self._taken, self._conflicts = connection, taken, conflicts

    def execute(self, statement: str, *parameters: object) -> object:
        if " IN MOTHERDUCK " not in statement:
            return self._connection.execute(statement, *parameters)
        if self._conflicts:
            self._conflicts.pop()
            raise duckdb.CatalogException("write-write conflict on create with the secret")
        self._taken.append(statement)
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def test_the_secret_is_made_once_a_process_and_lake_and_a_conflict_with_another_process_passes() -> None:
    taken: list[str] = []
    conflicts = [1]
    with contextlib.closing(duckdb.connect()) as database:

        @contextlib.contextmanager
        def connect(name: str, read_only: bool, config: Mapping[str, Any]) -> Iterator[duckdb.DuckDBPyConnection]:
            yield TakesSecrets(database.cursor(), taken, conflicts)  # type: ignore[misc]

        keys = {"key_id": "k", "secret": "s", "account_id": "acc"}
        for scope in ("r2://bucket/one/", "r2://bucket/one/", "r2://bucket/two/", "r2://bucket/one/"):
            make_r2_secret(Warehouse("md:once", "token", connect=connect), scope=scope, **keys)
    assert [statement.partition("SCOPE ")[2] for statement in taken] == ["'r2://bucket/one/')", "'r2://bucket/two/')"]
    assert len({statement.split()[4] for statement in taken}) == 2  # each lake's secret has a name of its own


def test_the_secret_opens_one_lake_only() -> None:
    statement = r2_secret_sql(key_id="k", secret="it's", account_id="acc", endpoint=None, scope="r2://bucket/lake/")
    assert statement == (
        f"""CREATE OR REPLACE SECRET "{secret_name("r2://bucket/lake/")}" IN MOTHERDUCK """
        "(TYPE R2, KEY_ID 'k', SECRET 'it''s', ACCOUNT_ID 'acc', SCOPE 'r2://bucket/lake/')"
    )
