"""MotherDuck: with a token, every test here that takes `warehouse` runs there too; this file has what only it has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import duckdb
import pytest

from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.differences import differences
from ocr_pipeline.warehouse.errors import WarehouseError, WarehouseUnreachable
from ocr_pipeline.warehouse.load import load_batch
from ocr_pipeline.warehouse.motherduck import make_r2_secret, r2_secret_sql, secret_name
from ocr_pipeline.warehouse.retry import ATTEMPTS
from ocr_pipeline_tests.warehouse.account import Account
from ocr_pipeline_tests.warehouse.conftest import TOKEN
from ocr_pipeline_tests.warehouse.sample_rows import result, to_tables


def documents(warehouse: Warehouse) -> int:
    with warehouse.read() as connection:
        row = connection.execute("SELECT count(*) FROM ocr.documents").fetchone()
    return row[0] if row else -1


def test_a_database_that_is_not_there_is_made_and_each_address_is_opened_with_one_configuration() -> None:
    account = Account()
    warehouse = Warehouse("md:scans", "t0ken\n", connect=account.connect)  # as a file of one line holds it
    warehouse.run(lambda _: None)
    assert documents(warehouse) == 0
    one, all_of_it = "md:scans?attach_mode=single", "md:"
    assert [name for name, _ in account.opened] == [one, all_of_it, one, one]
    assert {str(config) for _, config in account.opened} == {
        "{'motherduck_token': 't0ken', 'custom_user_agent': 'ocr-pipeline'}"
    }


def unreachable() -> duckdb.Error:
    return duckdb.InvalidInputException(
        'Initialization function … threw an exception: "Request failed: failed to connect to all addresses; last error:'
        " … for s3cret (UNAVAILABLE, RPC 'GET_WELCOME_PACK', request id: '8192b044')\""
    )


def test_a_motherduck_that_is_away_for_a_moment_while_it_is_opened_is_opened_again() -> None:
    account = Account(unreachable(), unreachable())
    warehouse = Warehouse("md:scans", "t0ken", connect=account.connect)
    warehouse.run(lambda _: None)
    assert documents(warehouse) == 0


def test_one_that_stays_away_is_an_error_without_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocr_pipeline.warehouse.retry._LONGEST_WAIT", 0.0)
    account = Account(*[unreachable() for _ in range(100)])
    with pytest.raises(WarehouseUnreachable, match=r"cannot open md:scans: .* for \*\*\* \(UNAVAILABLE") as caught:
        Warehouse("md:scans", "s3cret", connect=account.connect).run(lambda _: None)
    assert caught.value.__cause__ is None
    assert len(account.opened) == ATTEMPTS


@pytest.mark.parametrize(
    "refusal",
    [
        duckdb.InvalidInputException("Your request is not authenticated. Please check your MotherDuck token."),
        duckdb.ConnectionException("Can't open a connection to same database file with a different configuration"),
    ],
)
def test_one_that_refuses_is_an_error_soon(refusal: duckdb.Error, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocr_pipeline.warehouse.retry._LONGEST_WAIT", 0.0)
    account = Account(*[refusal] * 100)
    with pytest.raises(WarehouseError, match="cannot open md:scans: "):
        Warehouse("md:scans", "t0ken", connect=account.connect).run(lambda _: None)


def test_a_load_and_its_comparison_go_on_where_motherduck_is_away_for_a_moment_in_between() -> None:
    parts = ["INSERT INTO ocr.pages", "EXCEPT ALL"]

    def away_once(statement: str) -> duckdb.Error | None:
        if part := next((part for part in parts if part in statement), None):
            parts.remove(part)
            return duckdb.IOException("Request failed: (DEADLINE_EXCEEDED, RPC 'PULL_RESULT', request id: '8192b044')")
        return None

    account = Account(refuse=away_once)
    warehouse = Warehouse("md:scans", "t0ken", connect=account.connect)
    rows = to_tables([result("a.pdf", batch="b1")])
    assert load_batch(warehouse, "b1", rows).pages == 2
    assert differences(warehouse, "b1", rows) == []
    assert parts == []


def test_a_question_that_gets_no_answer_is_an_error_in_words_without_the_token() -> None:
    def away(statement: str) -> duckdb.Error | None:
        return unreachable() if "FROM ocr.documents" in statement else None

    warehouse = Warehouse("md:scans", "s3cret", connect=Account(refuse=away).connect)
    with pytest.raises(WarehouseUnreachable, match=r"md:scans does not answer: .* for \*\*\* \(UNAVAILABLE"):
        documents(warehouse)


class Stale:
    """A connection whose first question is refused, since another process changed the tables meanwhile."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, refusals: list[duckdb.Error]) -> None:
        self._connection, self._refusals = connection, refusals

    def execute(self, statement: str, *parameters: object) -> object:
        if self._refusals and "schema_version" in statement:
            raise self._refusals.pop()
        return self._connection.execute(statement, *parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def test_a_question_after_another_process_changed_the_tables_is_asked_again_and_no_table_is_made_anew() -> None:
    refusals: list[duckdb.Error] = []
    with contextlib.closing(duckdb.connect()) as database:
        opened: list[str] = []

        @contextlib.contextmanager
        def connect(name: str, read_only: bool, config: Mapping[str, Any]) -> Iterator[duckdb.DuckDBPyConnection]:
            opened.append(name)
            yield Stale(database.cursor(), refusals)  # type: ignore[misc]

        warehouse = Warehouse("md:scans", "t0ken", connect=connect)
        warehouse.run(lambda _: None)
        opened.clear()
        refusals.append(duckdb.CatalogException("Remote catalog has changed. Please rerun query."))
        assert documents(warehouse) == 0
        assert (len(opened), refusals) == (1, [])
        refusals.append(duckdb.CatalogException("Remote catalog has changed. Please rerun query."))
        warehouse.run(lambda _: None)
        assert (len(opened), refusals) == (3, [])


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
        "(TYPE R2, KEY_ID 'k', SECRET 'it''s', ACCOUNT_ID 'acc', REGION 'auto', SCOPE 'r2://bucket/lake/')"
    )
