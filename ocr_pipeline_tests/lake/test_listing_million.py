"""A look at an inbox of a million keys finds what is new in bounded memory and few requests."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_million_keys_are_swept_in_bounded_memory_and_looked_at_in_order_with_three_requests() -> None:
    """In a process of its own, whose peak memory is that of the look and not of the test run."""
    command = [sys.executable, "-m", "benchmarks.listing", "1000000"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1400)
    figures = {line["strategy"]: line for line in map(json.loads, done.stdout.splitlines())}
    print(done.stdout)
    for strategy in ("ordered", "sweep"):
        assert figures[strategy]["new"] == 100
        assert figures[strategy]["peak_mb"] < 250
    assert figures["ordered"]["requests"] <= 3
    assert figures["sweep"]["requests"] == 1001, "a page is not asked for twice"
