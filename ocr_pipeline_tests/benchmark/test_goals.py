"""What the benchmarks say of a goal, and how the README's tables are made of it."""

from __future__ import annotations

from benchmarks import all as driver
from benchmarks.backfill import Backfilled, Run, held_by
from benchmarks.measure import Goal
from benchmarks.slots import shares
from ocr_pipeline_tests.simulator.tally import Tally


def test_a_goal_is_met_from_below_or_from_above() -> None:
    assert Goal("cost", 0.08, 0.08).met
    assert not Goal("cost", 0.081, 0.08).met
    assert Goal("busy", 0.95, 0.95, least=True).met
    assert not Goal("busy", 0.94, 0.95, least=True).met


def test_the_readme_says_of_each_goal_whether_it_is_met_which_command_says_so_and_if_the_machine_was_busy() -> None:
    goal = {"what": "cost", "asked": "<= 0.08", "figure": 0.0912, "met": False, "note": "84 pages"}
    machine = {"load_at_start": 3.1, "busy": True}
    slots, cost = driver.Command("slots", "slots", 1), driver.Command("client_cost", "client_cost", 1)
    table = driver.goal_table(
        {cost: {"machine": machine, "arguments": ["--pages-up-to", "20"], "goals": [goal]}, slots: None}
    ).splitlines()
    assert table[2] == (
        "| cost | <= 0.08 | 0.0912 | **no**, busy machine | 84 pages | 3.1 | "
        "`python -m benchmarks.client_cost --pages-up-to 20` |"
    )
    assert "failed" in table[3]
    assert "benchmarks.slots" in table[3]


def test_a_second_request_for_a_page_keeps_a_slot_busy_and_gives_no_second_answer() -> None:
    tally = Tally(slots=2, requests=5, first_request_at=0.0, last_answer_at=10.0, busy_slot_seconds=20.0)
    found = shares({"gpu": tally}, 4, 4.0)
    assert found["busy"] == 1.0
    assert found["answered pages x seconds / (slots x span)"] == 0.8
    assert found["requests beyond one a page"] == 1


def test_what_holds_a_backfill_down_is_named_from_its_own_times() -> None:
    full = tuple(Run(0.0, 5.0 * n, 5.0 * n + 3, 5.0 * n + 10) for n in range(10))
    assert held_by(Backfilled(10, 55.0, 100.0, full, busy=0.95), 2)[1].endswith("10.0 CPU s a batch on 2 cores")
    assert "others" in held_by(Backfilled(10, 55.0, 20.0, full, busy=0.95), 2)[1]
    assert "max_concurrent_runs" in held_by(Backfilled(10, 55.0, 20.0, full), 2)[1]
    sparse = tuple(Run(0.0, 5.0 * n, 5.0 * n + 1, 5.0 * n + 4) for n in range(10))
    assert "tick" in held_by(Backfilled(10, 55.0, 20.0, sparse), 2)[1]
