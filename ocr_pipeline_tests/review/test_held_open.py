"""The app keeps the tables open for a moment, and yet never keeps the loader out."""

from __future__ import annotations

import subprocess
import sys
import threading

import httpx
import pytest

from ocr_pipeline.review import held_open
from ocr_pipeline_tests.review.conftest import asking
from ocr_pipeline_tests.review.library import Library, PageMade

LOADER = """
import sys
from ocr_pipeline.warehouse.connection import Warehouse
with Warehouse(sys.argv[1], wait_seconds=60).transaction() as connection:
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


def test_a_loader_gets_in_though_questions_never_stop(empty: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_open, "LONGEST", 0.5)
    empty.add("a.pdf", [PageMade(markdown="a")])
    empty.load()
    stop = threading.Event()
    statuses = []

    def ask(client: httpx.Client) -> None:
        while not stop.is_set():
            statuses.append(client.get("/search?q=a").status_code)

    with asking(empty) as client:
        askers = [threading.Thread(target=ask, args=(client,)) for _ in range(3)]
        for asker in askers:
            asker.start()
        try:
            assert load(empty) == 0
        finally:
            stop.set()
            for asker in askers:
                asker.join()
        assert "loaded" in client.get("/documents").text
    assert set(statuses) == {200}
