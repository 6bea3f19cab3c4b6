"""Simulated servers for the fleet's tests: two unlike machines, each a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ocr_pipeline_tests.simulator import Fleet as Servers


@contextmanager
def _two(seconds: float) -> Iterator[Servers]:
    """The user's two machines as asked for: 4 and 16 slots."""
    with Servers(
        rtx4090={"profile": "rtx-4090-as-asked", "seconds_per_page": seconds, "mean_tokens": 60},
        spark={"profile": "dgx-spark-as-asked", "seconds_per_page": seconds, "mean_tokens": 60},
    ) as servers:
        yield servers


@pytest.fixture(scope="module")
def _running() -> Iterator[Servers]:
    with _two(0.2) as servers:
        yield servers


@pytest.fixture
def servers(_running: Servers) -> Iterator[Servers]:
    """The same processes for a whole module, since each costs a second to start; well at each test's end."""
    yield _running
    for server in _running:
        if not server.alive:
            server.start()
        server.ready().clear_faults()


@pytest.fixture
def fresh_servers() -> Iterator[Servers]:
    """Where the servers' own figures are looked at, or their lives ended."""
    with _two(0.2) as servers:
        yield servers


@pytest.fixture
def slow_servers() -> Iterator[Servers]:
    """Where connections are lost: below 0.25 s the client takes a lost connection for a stale one."""
    with _two(0.7) as servers:
        yield servers
