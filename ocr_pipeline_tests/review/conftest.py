"""The app over shelves of documents, on a socket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ocr_pipeline.review.app import build_app
from ocr_pipeline_tests.review.library import Library, library
from ocr_pipeline_tests.review.server import serving
from ocr_pipeline_tests.review.shelves import Shelves
from ocr_pipeline_tests.review.shelves import shelves as fill


@pytest.fixture(scope="session")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> Shelves:
    """Read-only: tests that change something take `empty`."""
    return fill(library(tmp_path_factory.mktemp("shelves")))


@pytest.fixture
def empty(tmp_path: Path) -> Library:
    return library(tmp_path)


@pytest.fixture(scope="session")
def client(shelves: Shelves) -> Iterator[httpx.Client]:
    with asking(shelves.library) as found:
        yield found


@contextmanager
def asking(of: Library, **choices: Any) -> Iterator[httpx.Client]:
    """A client of the app over this library, started with these choices."""
    with (
        serving(build_app(of.lake, of.warehouse, **choices)) as url,
        httpx.Client(base_url=url, follow_redirects=True, timeout=60) as client,
    ):
        yield client
