"""A MotherDuck account that is not there, for tests of what is asked of one and of what follows from its answers.

It says what MotherDuck was seen to say; that it says so today, nobody can know without a token.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import duckdb

_connect = duckdb.connect


class Account:
    """Each database that was made is an empty DuckDB, which takes the statements that only MotherDuck knows too.

    `failures`: raised by the first openings, one each. `refuse`: what a statement is answered with, None: DuckDB's own
    answer. `prepare`: called with each database that is made.
    """

    def __init__(
        self,
        *failures: duckdb.Error,
        refuse: Callable[[str], duckdb.Error | None] = lambda statement: None,
        prepare: Callable[[duckdb.DuckDBPyConnection], None] = lambda connection: None,
    ) -> None:
        self.opened: list[tuple[str, dict[str, Any]]] = []
        self.secrets: list[str] = []
        self.databases: dict[str, duckdb.DuckDBPyConnection] = {}
        self._failures, self._refuse, self._prepare = list(failures), refuse, prepare

    @contextlib.contextmanager
    def connect(self, name: str, read_only: bool, config: Mapping[str, Any]) -> Iterator[duckdb.DuckDBPyConnection]:
        """As `Warehouse` takes it."""
        with contextlib.closing(self.duckdb_connect(name, read_only, config)) as connection:
            yield connection

    def duckdb_connect(self, database: str, read_only: bool, config: Mapping[str, Any]) -> duckdb.DuckDBPyConnection:
        """In place of `duckdb.connect`."""
        self.opened.append((database, dict(config)))
        assert database != "md:?attach_mode=single"  # MotherDuck opens no whole workspace in that mode
        database = database.removesuffix("?attach_mode=single")
        if self._failures:
            raise self._failures.pop(0)
        if database != "md:" and database not in self.databases:
            raise duckdb.InvalidInputException(
                'Initialization function "motherduck_duckdb_cpp_init" from file "motherduck.duckdb_extension" threw an '
                f"exception: \"Failed to attach '{database[3:]}': no database/share named '{database[3:]}' found\""
            )
        connection = self.databases[database].cursor() if database != "md:" else _connect()
        return _Connection(self, connection)  # type: ignore[return-value]

    def answer(self, connection: duckdb.DuckDBPyConnection, statement: str, *parameters: object) -> object:
        if error := self._refuse(statement):
            raise error
        if " IN MOTHERDUCK " in statement:
            self.secrets.append(statement)
            return connection
        if made := re.fullmatch(r'CREATE DATABASE IF NOT EXISTS "(.+)"', statement):
            self.databases[f"md:{made[1]}"] = _connect()
            self._prepare(self.databases[f"md:{made[1]}"])
            return connection
        return connection.execute(statement, *parameters)


class _Connection:
    def __init__(self, account: Account, connection: duckdb.DuckDBPyConnection) -> None:
        self._account, self._connection = account, connection

    def execute(self, statement: str, *parameters: object) -> object:
        return self._account.answer(self._connection, statement, *parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)
