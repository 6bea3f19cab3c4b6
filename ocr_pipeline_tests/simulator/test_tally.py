"""Figures from events, and a journal that a kill cut short."""

from __future__ import annotations

import json
from pathlib import Path

from ocr_pipeline_tests.simulator.tally import Journal, read_journal, replay


def _lines(*events: tuple[str, float, dict[str, object]]) -> list[str]:
    return [json.dumps({"e": kind, "t": at, **more}) + "\n" for kind, at, more in events]


def test_slot_time_is_counted_from_taking_a_slot_to_leaving_it() -> None:
    tally = replay(
        _lines(
            ("boot", 0, {"slots": 2}),
            ("asked", 10, {"job": 1, "sha": "a", "id": "x"}),
            ("start", 10, {"job": 1}),
            ("asked", 10, {"job": 2, "sha": "b", "id": "y"}),
            ("start", 10, {"job": 2}),
            ("asked", 11, {"job": 3, "sha": "a", "id": "z"}),
            ("end", 14, {"job": 1, "how": "stop"}),
            ("start", 14, {"job": 3}),
            ("preempted", 16, {"job": 2}),
            ("start", 18, {"job": 2}),
            ("end", 20, {"job": 2, "how": "length"}),
            ("end", 20, {"job": 3, "how": "stop"}),
        )
    )
    assert tally.busy_slot_seconds == 4 + (6 + 2) + 6
    assert (tally.first_request_at, tally.last_answer_at, tally.busy_share) == (10, 20, 18 / 20)
    assert (tally.requests, tally.answered, tally.max_running, tally.max_waiting) == (3, 3, 2, 1)
    assert (tally.pages["a"].asked, tally.pages["a"].slot_seconds, tally.asked_more_than_once) == (2, 10, 1)
    assert (tally.order, tally.ids) == (["a", "b", "a"], ["x", "y", "z"])


def test_a_kill_ends_the_slots_at_the_last_event_and_the_next_life_goes_on() -> None:
    tally = replay(
        _lines(
            ("boot", 0, {"slots": 1}),
            ("asked", 1, {"job": 1, "sha": "a", "id": ""}),
            ("start", 1, {"job": 1}),
            ("asked", 4, {"job": 2, "sha": "b", "id": ""}),
            ("boot", 50, {"slots": 1}),
            ("asked", 51, {"job": 1, "sha": "a", "id": ""}),
            ("start", 51, {"job": 1}),
            ("end", 53, {"job": 1, "how": "abort"}),
        )
    )
    assert (tally.lives, tally.lost, tally.aborted, tally.answered) == (2, 2, 1, 0)
    assert tally.busy_slot_seconds == 3 + 2


def test_a_line_that_a_kill_cut_short_never_happened(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "journal"))
    journal.write("boot", 0.0, slots=3)
    journal.write("asked", 1.0, job=1, sha="a", id="x")
    with (tmp_path / "journal").open("a") as file:
        file.write('{"e":"asked","t":2.0,"jo')
    tally = read_journal(tmp_path / "journal")
    assert (tally.requests, tally.slots) == (1, 3)
    assert tally.shown() == journal.tally.shown()
