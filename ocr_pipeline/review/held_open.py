"""A warehouse that stays open between two questions, but never for long.

Here belongs when it is opened and when it is closed again. Opening a DuckDB file costs 15 to 40 ms, and what had been
read of it is lost: with 100,000 pages a search takes twice as long on a file just opened (0.16 against 0.06 s). But
while the file is open here no process can load into it. So it is closed a second after the last question. If questions
keep coming it is closed five seconds after it was opened: new questions then wait until the running ones are done, the
file is closed, and a loader, which looks every 50 ms, has had its chance. MotherDuck has no such lock, and its first
connection takes a second: it stays open.

While the loader has the file, one question tries to open it and the others wait for that one: they get the same file,
or the same error, and not each its own wait one after the other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager

import duckdb

from ocr_pipeline.warehouse.connection import Warehouse

LINGER = 1.0  # seconds after the last question
LONGEST = 5.0  # seconds, then no further question is let in
AWAY = 0.2  # seconds for which it then stays closed, so that a loader that waits gets in


class HeldOpen:
    """Use `read` in place of the warehouse's own: a connection of one's own, on a database that is likely open."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._changed = threading.Condition()  # guards what follows
        self._held: ExitStack | None = None
        self._opening: Future[ExitStack] | None = None
        self._asking = 0
        self._opened = 0.0
        self._away_until = 0.0
        self._closing: threading.Timer | None = None

    @contextmanager
    def read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """As `Warehouse.read`. Raises WarehouseError where the file stays in use."""
        self._begin()
        try:
            with self._warehouse.read() as connection:
                yield connection
        finally:
            self._end()

    def close(self) -> None:
        with self._changed:
            self._close()

    def _begin(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not (self._asking and self._is_old()))
                away = self._away_until - time.monotonic()
                if away > 0:
                    self._changed.wait(away)
                    continue
                if self._held is not None:
                    self._asking += 1
                    if self._closing:
                        self._closing.cancel()
                        self._closing = None
                    return
                opening, is_mine = self._opening, self._opening is None
                if opening is None:
                    opening = self._opening = Future()
            if is_mine:
                self._open(opening)
            opening.result()

    def _open(self, opening: Future[ExitStack]) -> None:
        """Outside of the lock, since a file that is being loaded is waited for."""
        held = ExitStack()
        try:
            held.enter_context(self._warehouse.read())
        except BaseException as error:
            with self._changed:
                self._opening = None
            opening.set_exception(error)
            return
        with self._changed:
            self._held, self._opened, self._opening = held, time.monotonic(), None
        opening.set_result(held)

    def _end(self) -> None:
        with self._changed:
            self._asking -= 1
            if self._asking or self._warehouse.is_motherduck:
                return
            if self._is_old():
                self._away_until = time.monotonic() + AWAY
                self._close()
                return
            self._closing = threading.Timer(LINGER, self._close_if_idle)
            self._closing.daemon = True
            self._closing.start()

    def _is_old(self) -> bool:
        age = time.monotonic() - self._opened
        return self._held is not None and age > LONGEST and not self._warehouse.is_motherduck

    def _close_if_idle(self) -> None:
        with self._changed:
            if not self._asking:
                self._close()

    def _close(self) -> None:
        if self._closing:
            self._closing.cancel()
            self._closing = None
        if self._held is not None:
            held, self._held = self._held, None
            held.close()
            self._changed.notify_all()
