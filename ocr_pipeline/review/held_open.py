"""A warehouse that stays open between two questions, but never for long.

Here belongs when it is closed again. Opening a DuckDB file costs 15 to 40 ms and throws away what it had read: with
100,000 pages a search takes twice as long on a file just opened (0.16 against 0.06 s). But while it is open here, the
loader cannot get in. So it is closed a second after the last question, and under steady questions at the first quiet
moment after five; the loader looks every 50 ms. MotherDuck has no such lock, and its first connection takes a second:
it stays open.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import duckdb

from ocr_pipeline.warehouse.connection import Warehouse

LINGER = 1.0  # seconds after the last question
LONGEST = 5.0  # seconds, then at the first moment without one
AWAY = 0.2  # seconds for which it then stays closed, so that a loader that waits gets in


class HeldOpen:
    """Use `read` in place of the warehouse's own: a connection of one's own, on a database that is likely open."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._lock = threading.Lock()
        self._held: ExitStack | None = None
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
        with self._lock:
            self._close()

    def _begin(self) -> None:
        wait = self._away_until - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        with self._lock:
            if self._closing:
                self._closing.cancel()
                self._closing = None
            if self._held is None:
                held = ExitStack()
                held.enter_context(self._warehouse.read())
                self._held, self._opened = held, time.monotonic()
            self._asking += 1
            if self._is_old():  # who asks at the same time goes on; who comes next waits for the loader
                self._away_until = time.monotonic() + AWAY

    def _end(self) -> None:
        with self._lock:
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
        return not self._warehouse.is_motherduck and time.monotonic() - self._opened > LONGEST

    def _close_if_idle(self) -> None:
        with self._lock:
            if not self._asking:
                self._close()

    def _close(self) -> None:
        if self._closing:
            self._closing.cancel()
            self._closing = None
        if self._held is not None:
            held, self._held = self._held, None
            held.close()
