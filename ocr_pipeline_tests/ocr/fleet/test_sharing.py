"""Several runs, each a process of its own, on one server of 4 slots, with nobody between them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from ocr_pipeline_tests.simulator import SimulatedServer

ROOT = Path(__file__).resolve().parents[3]
SLOTS = 4


def start(name: str, server: SimulatedServer, seconds: float, look: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ocr_pipeline_tests.ocr.fleet.backlog", name, server.url, str(seconds), str(look)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, int]:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    good, pushed_back = map(int, out.split())
    return good, pushed_back


def both(page_seconds: float, seconds: float) -> tuple[float, float, int, int]:
    """Two runs, the second 2 s later: the first's share of the requests after both had time to settle, share of the
    slots' time in use, pages, refusals."""
    options = {"profile": "rtx-4090-as-asked", "seconds_per_page": page_seconds, "mean_tokens": 60}
    with SimulatedServer(**options) as server:
        server.ready()
        first = start("first", server, seconds + 2, page_seconds * 1.25)
        time.sleep(2)
        second = start("second", server, seconds, page_seconds * 1.25)
        counts = [ended(first), ended(second)]
        tally = server.stats()
        # the middle: from where both were there and settled to where the first of them ended
        begins = next(n for n, name in enumerate(tally.ids) if name.startswith("second"))
        middle = tally.ids[begins + len(tally.ids) // 5 : -8 * SLOTS]
        share = sum(name.startswith("first") for name in middle) / len(middle)
        assert tally.busy_share is not None
        print(
            f"share {share:.2f} of {len(middle)} requests, slots busy {tally.busy_share:.3f}, "
            f"at most {tally.max_waiting} waiting, pages {counts[0][0]} + {counts[1][0]}, refused {tally.refused}"
        )
        return share, tally.busy_share, counts[0][0] + counts[1][0], tally.refused + counts[0][1] + counts[1][1]


def alone(page_seconds: float, seconds: float) -> float:
    options = {"profile": "rtx-4090-as-asked", "seconds_per_page": page_seconds, "mean_tokens": 60}
    with SimulatedServer(**options) as server:
        server.ready()
        ended(start("first", server, seconds, page_seconds * 1.25))
        tally = server.stats()
        assert tally.busy_share is not None
        print(f"alone: slots busy {tally.busy_share:.3f}, at most {tally.max_waiting} waiting")
        return tally.busy_share


@pytest.mark.slow
def test_two_runs_on_one_server_both_progress_with_an_even_share_and_no_storm():
    share, _, pages, refused = both(page_seconds=0.25, seconds=8)
    assert 0.4 <= share <= 0.6
    assert pages > 0
    assert refused == 0


@pytest.mark.slow
def test_two_runs_share_and_one_alone_is_not_held_back_at_the_speed_of_a_real_card():
    share, busy, _, refused = both(page_seconds=0.8, seconds=40)
    assert 0.4 <= share <= 0.6
    assert busy >= 0.9
    assert refused == 0
    assert alone(page_seconds=0.8, seconds=20) >= 0.9
