"""The app keeps the tables open for a moment, and yet never keeps the loader out."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import httpx
import pytest

from ocr_pipeline.review import held_open, queries
from ocr_pipeline.review.held_open import HeldOpen
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline_tests.review.conftest import asking
from ocr_pipeline_tests.review.library import Library, PageMade

WAIT = 20
"""Seconds that the loader waits; questions go on without end for as long as it does."""
LOADER = f"""
import sys
from ocr_pipeline.warehouse.connection import Warehouse
with Warehouse(sys.argv[1], wait_seconds={WAIT}).transaction() as connection:
    connection.execute("UPDATE ocr.documents SET title = 'loaded'")
"""


def load(of: Library) -> int:
    return subprocess.run([sys.executable, "-c", LOADER, of.warehouse.target], timeout=120, check=False).returncode


def test_the_file_is_closed_after_the_last_question(empty: Library) -> None:
    empty.add("a.pdf", [PageMade(markdown="a")])
    empty.load()
    with asking(empty) as client:
        client.get("/documents")
        assert load(empty) == 0
        assert "loaded" in client.get("/documents").text


@contextmanager
def questions(client: httpx.Client, path: str, askers: int) -> Iterator[list[int]]:
    """Asked again and again, by so many at once, until the end of the block; the statuses of the answers."""
    stop = threading.Event()
    statuses: list[int] = []

    def ask() -> None:
        while not stop.is_set():
            statuses.append(client.get(path).status_code)

    threads = [threading.Thread(target=ask) for _ in range(askers)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_loader_gets_in_though_questions_never_stop(empty: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_open, "LONGEST", 0.5)
    empty.add("a.pdf", [PageMade(markdown="a")])
    empty.load()
    with asking(empty) as client:
        with questions(client, "/search?q=a", 3) as statuses:
            assert load(empty) == 0
        assert "loaded" in client.get("/documents").text
    assert set(statuses) == {200}


def test_a_loader_gets_in_though_slow_questions_overlap_without_end(
    empty: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No question ends before a later one has begun, or has not been let in for 0.7 s: there is no quiet moment."""
    monkeypatch.setattr(held_open, "LONGEST", 0.5)
    choices = queries.choices
    begun, one_more = 0, threading.Condition()

    def slow(connection: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
        nonlocal begun
        with one_more:
            begun += 1
            own = begun
            one_more.notify_all()
            one_more.wait_for(lambda: begun > own, 0.7)
        return choices(connection)

    monkeypatch.setattr(queries, "choices", slow)
    empty.add("a.pdf", [PageMade(markdown="a")])
    empty.load()
    with asking(empty) as client:
        with questions(client, "/documents", 4) as statuses:
            assert load(empty) == 0
        assert "loaded" in client.get("/documents").text
    assert set(statuses) == {200}


def test_while_the_file_is_loaded_all_questions_share_one_wait_and_its_error(empty: Library) -> None:
    empty.add("a.pdf", [PageMade(markdown="a")])
    empty.load()
    opened = []

    class Counted(Warehouse):
        @contextmanager
        def read(self) -> Iterator[duckdb.DuckDBPyConnection]:
            opened.append(1)
            with super().read() as connection:
                yield connection

    held = HeldOpen(Counted(empty.warehouse.target, wait_seconds=3.0))
    together = threading.Barrier(5)
    errors: list[str] = []

    def ask() -> None:
        together.wait()
        try:
            with held.read():
                pass
        except WarehouseError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(5)]
    with empty.warehouse.session():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(errors) == 5
    assert len(opened) == 1
    with held.read() as connection:
        assert connection.execute("SELECT count(*) FROM ocr.documents").fetchone() == (1,)
    held.close()
