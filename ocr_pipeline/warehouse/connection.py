"""The entry point to the warehouse: a DuckDB file or a MotherDuck database, opened, locked, migrated and closed.

Here belong connections, transactions and the lock on a file. Not here: what is done with them (`load.py`, `views.py`,
the questions).

While a process has a DuckDB file open for writing, no other process can open it at all. So a writer holds an OS lock on
`<file>.lock` from before it opens the file until it has closed it (the kernel frees the lock when the process dies);
readers open the file for one question, and wait a little if it is in use. MotherDuck needs neither.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import duckdb
from filelock import FileLock, Timeout

from ocr_pipeline.warehouse.errors import WarehouseError, WarehouseInUse, WarehouseUnreachable
from ocr_pipeline.warehouse.migrations import is_current, migrate
from ocr_pipeline.warehouse.retry import file_is_in_use, is_of_the_network, passes_by_itself, with_retries
from ocr_pipeline.warehouse.sql import identifier, in_transaction

T = TypeVar("T")

Connect = Callable[
    [str, bool, Mapping[str, Any]], contextlib.AbstractContextManager[duckdb.DuckDBPyConnection]
]  # (database, read_only, config)
"""How a database is opened. It may raise what `duckdb.connect` raises; `Warehouse` closes what it opens, too."""

_MOTHERDUCK = "md:"
_DATABASE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_SCHEMA = "ocr"
"""Where the tables are. No database of the same name can hold it: DuckDB, MotherDuck's too, refuses `ocr.pages` there
as ambiguous."""
_MB = 1024 * 1024
_WAIT_WORTH_A_WORD = 2.0
"""Seconds. A load takes less, as a rule; who waits longer wants to know for what."""
_PID = re.compile(r"\(PID (\d+)\)")
"""As DuckDB names the process that has the file."""


class Warehouse:
    """A DuckDB file, or `md:name` with a token. Holds no connection: each use opens one and closes it.

    `connect` opens in place of `duckdb.connect` (dagster-duckdb's resource, an emulator); what it opens is closed here
    whatever happens. `wait_seconds`: how long to wait for a file that others use. `on_wait` is told once, from another
    thread, of a wait that lasts: for what, and which process has it where that is known.
    """

    def __init__(
        self,
        target: str,
        token: str | None = None,
        *,
        connect: Connect | None = None,
        wait_seconds: float = 600.0,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        self.target = target
        self.is_motherduck = target.startswith(_MOTHERDUCK)
        self._connect = connect or _plain_connect
        self._wait_seconds = wait_seconds
        self._on_wait = on_wait
        self._token = (token or "").strip()  # a token from a file ends with its line, and would not be taken
        if self.is_motherduck:
            if not _DATABASE_NAME.fullmatch(target.removeprefix(_MOTHERDUCK)):
                raise WarehouseError(
                    "OCR_WAREHOUSE must be md: and the name of a database, letters, digits, _ and -, such as "
                    "md:scans (the token belongs in MOTHERDUCK_TOKEN)"
                )
            if not self._token:
                # With no token the extension would open a browser and wait for a login: a service would hang.
                raise WarehouseError(f"{target} needs a token: set MOTHERDUCK_TOKEN (made in MotherDuck's settings)")
        elif not target or target == ":memory:":
            raise WarehouseError("OCR_WAREHOUSE must be the path of a DuckDB file, or md: and the name of a database")
        if _name_of(target).lower() == _SCHEMA:
            raise WarehouseError(
                f"{target}: no database can be named {_SCHEMA}, as the tables' schema is: DuckDB cannot tell which "
                f"is meant in {_SCHEMA}.pages: take another name in OCR_WAREHOUSE, such as "
                + ("md:scans" if self.is_motherduck else "warehouse.duckdb")
            )

    def __repr__(self) -> str:
        return f"Warehouse({self.target!r})"

    @property
    def path(self) -> Path | None:
        """The DuckDB file; None on MotherDuck."""
        return None if self.is_motherduck else Path(self.target)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for writing that no other process has beside it (on a file), as it is: nothing made, nothing
        migrated. Raises WarehouseError where the file stays in use for `wait_seconds`."""
        with self._file_lock(), self._open(read_only=False) as connection:
            yield connection

    @contextlib.contextmanager
    def session(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The same, with tables and views there and of today's version; no transaction is begun.

        Raises WarehouseError where the warehouse is of a newer version.
        """
        with self.exclusive() as connection:
            self._defer_checkpoints(connection)
            migrate(connection)
            yield connection

    @contextlib.contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection with a transaction begun: committed at the end of the block, rolled back on any exception."""
        with self.session() as connection, in_transaction(connection):
            yield connection

    def run(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """What `work` returns, done in one transaction; on a conflict done again, whole, on a fresh connection."""

        def once() -> T:
            with self.transaction() as connection:
                return work(connection)

        return with_retries(once, remote=self.is_motherduck)

    def ask(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """What `work` returns, asked on a connection for questions; asked again where MotherDuck was away."""

        def once() -> T:
            with self.read() as connection:
                return work(connection)

        return with_retries(once, remote=self.is_motherduck)

    @contextlib.contextmanager
    def read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for questions: read-only on a file. A file that is not there yet reads as an empty warehouse.

        Raises WarehouseUnreachable where MotherDuck stops to answer, also in the block.
        """
        if self.path is not None and not self.path.exists():
            with contextlib.closing(duckdb.connect()) as empty:
                empty.execute("SET TimeZone = 'UTC'")
                migrate(empty)
                yield empty
            return
        with self._telling_of_the_network(), contextlib.ExitStack() as opened:
            connection = opened.enter_context(self._open(read_only=True))
            # MotherDuck refuses the first question after another process changed a table or view, and takes the second
            if not with_retries(lambda: is_current(connection), remote=self.is_motherduck):
                opened.close()
                self.run(lambda _: None)  # whoever comes first after an update brings the tables up to date
                connection = opened.enter_context(self._open(read_only=True))
            yield connection

    def use_one_thread(self, connection: duckdb.DuckDBPyConnection) -> None:
        """For loads: each thread of DuckDB holds row groups of its own. 3,000 pages: 40 MB less, and a fifth less CPU.
        MotherDuck has threads of its own."""
        if not self.is_motherduck:
            connection.execute("SET threads = 1")

    def checkpoint(self) -> None:
        """Writes what still stands in the file's log into the file, so that the file alone is everything."""
        if self.path is not None and self.path.exists():
            with self.session() as connection:
                connection.execute("CHECKPOINT")

    @contextlib.contextmanager
    def _file_lock(self) -> Iterator[None]:
        if self.path is None:
            yield
            return
        lock = FileLock(f"{self.path}.lock", timeout=self._wait_seconds)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._telling(lambda: "it is being loaded by another process"):
                lock.acquire()
        except Timeout:
            raise WarehouseInUse(
                f"{self.path} has been loaded by another process for {self._wait_seconds:.0f} s: wait, or stop it"
            ) from None
        except OSError as error:
            raise WarehouseError(
                f"{self.path} cannot be written: {error.strerror} ({error.filename}); look at that folder, and at this "
                "user's rights there"
            ) from error
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def _open(self, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        with contextlib.ExitStack() as opened:
            connection = self._connected(opened, read_only=read_only)
            # dagster-duckdb's resource does not close it after an exception; twice does no harm
            opened.callback(connection.close)
            connection.execute("SET TimeZone = 'UTC'")  # days and hours in queries are UTC's
            yield connection

    def _connected(self, opened: contextlib.ExitStack, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        deadline = time.monotonic() + self._wait_seconds
        why = "it takes long to open, or another program has it"
        with self._telling(lambda: why):
            while True:
                try:
                    if self.path is not None:
                        return opened.enter_context(self._connect(str(self.path), read_only, {}))
                    return self._connected_to_motherduck(opened)
                except duckdb.Error as error:
                    if self.path is None or not file_is_in_use(error):
                        raise self._without_token(error) from None
                    if time.monotonic() > deadline:
                        raise WarehouseInUse(
                            f"{self.path} has been open in another program for {self._wait_seconds:.0f} s: close it "
                            f"there ({error})"
                        ) from error
                    found = _PID.search(str(error))
                    why = f"open in PID {found[1]}" if found else "open in another program"
                time.sleep(0.05)

    @contextlib.contextmanager
    def _telling(self, why: Callable[[], str]) -> Iterator[None]:
        """Tells why a file is waited for where the block takes long. By a timer: dagster-duckdb's resource waits inside
        its own call, for 102 s, and does not say why."""
        if self._on_wait is None or self.path is None:
            yield
            return
        on_wait = self._on_wait
        timer = threading.Timer(_WAIT_WORTH_A_WORD, lambda: on_wait(f"waiting for {self.path}: {why()}"))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    @contextlib.contextmanager
    def _telling_of_the_network(self) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            if self.is_motherduck and is_of_the_network(error):
                raise WarehouseUnreachable(f"{self.target} does not answer: {self._hidden(str(error))}") from None
            raise

    def _connected_to_motherduck(self, opened: contextlib.ExitStack) -> duckdb.DuckDBPyConnection:
        # single: with the account's whole workspace, its other databases are there too (one may be named `ocr`), and
        # whoever detaches this one in a browser takes it away here
        address, config = f"{self.target}?attach_mode=single", motherduck_account(self._token)
        try:
            return opened.enter_context(self._connect(address, False, config))
        except duckdb.Error as error:
            if "no database" not in str(error).lower():
                raise
        with self._connect(_MOTHERDUCK, False, config) as connection, contextlib.closing(connection):
            connection.execute(f"CREATE DATABASE IF NOT EXISTS {identifier(_name_of(self.target))}")
        return opened.enter_context(self._connect(address, False, config))

    def _without_token(self, error: duckdb.Error) -> Exception:
        message = self._hidden(str(error))
        if self.is_motherduck:
            # no other IOException: it may be the extension's download, for which dagster-duckdb has waited already
            passing = is_of_the_network(error) or passes_by_itself(error)
            return (WarehouseUnreachable if passing else WarehouseError)(f"cannot open {self.target}: {message}")
        return WarehouseError(f"cannot open the DuckDB file {self.target}: {message}")

    def _hidden(self, message: str) -> str:
        return message.replace(self._token, "***") if self._token else message

    def _defer_checkpoints(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Lets the log of a large file grow over several loads, up to an eighth of the file, before it is written in.

        A checkpoint writes each key's whole index again: 0.8 s at 80,000 pages, and growing with the table, for a load
        that takes 0.1 s itself. A small file is written at each commit, and not in the log first: the file alone is
        everything, and 3,000 pages take 16 MB and a sixth of the time less.
        """
        if self.path is None or not self.path.exists():
            return
        size = self.path.stat().st_size
        if size < 64 * _MB:
            connection.execute("SET checkpoint_threshold = '1KB'")
            return
        connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        connection.execute(f"SET checkpoint_threshold = '{max(16, min(64, size // _MB // 8))}MB'")


def _name_of(target: str) -> str:
    """The database's name: a file's is that of the file, up to its first dot."""
    if target.startswith(_MOTHERDUCK):
        return target.removeprefix(_MOTHERDUCK)
    return Path(target).name.lstrip(".").split(".")[0]


def motherduck_account(token: str) -> dict[str, str]:
    """The configuration with which MotherDuck is opened, one database or `md:` (to make and to drop databases).

    DuckDB keeps a MotherDuck database open for 15 minutes after the last connection to it is closed, and refuses
    another configuration for the same address meanwhile, so a process has only this one. The token is not in the
    address, which stands in error messages.
    """
    return {"motherduck_token": token, "custom_user_agent": "ocr-pipeline"}


def _plain_connect(
    database: str, read_only: bool, config: Mapping[str, Any]
) -> contextlib.AbstractContextManager[duckdb.DuckDBPyConnection]:
    return contextlib.closing(duckdb.connect(database, read_only=read_only, config=dict(config)))
