"""The scale model: its simulated day on cases that can be worked out by hand, and its classes of R2's requests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.scale_model.constants import Constants
from benchmarks.scale_model.counting import classified
from benchmarks.scale_model.day import Setup, of_a_day, simulate
from benchmarks.scale_model.operations import Work, of_class, operations

PLAIN = Constants(
    settle_seconds=2.0, sensor_seconds=4.0, queue_seconds=6.0, launch_to_start=3.0, start_to_end=1.0, page_seconds=5.0,
    batch_cpu_own_process=0.0, batch_cpu_loaded=0.0, client_cpu_a_page=0.0, load_seconds_a_batch=1.0,
    load_seconds_a_page=0.0, tokens_a_page=1.0, tokens_a_second=10.0,
)  # fmt: skip


def test_one_upload_waits_for_each_stage_in_turn() -> None:
    # ticks of the sensor at 2, 6, … (settled at 2), of the queue at 2, 8: cut at 2 and launched at 2
    outcome = simulate([(0.0, 1)], PLAIN, Setup(), pages_a_pdf=10)
    assert outcome.waits == [(2.0 + 3.0 + 10 / 10 + 5.0 + 1.0, 1)]  # start, OCR of 10 pages at 10 a second, load


def test_a_backlog_ends_when_the_gpus_have_read_its_pages_and_twice_the_gpus_take_half_the_time() -> None:
    backlog = [(0.0, 2_000)]
    one, two = (simulate(backlog, PLAIN, Setup(pairs=pairs, places=9), pages_a_pdf=10).ended for pairs in (1, 2))
    assert 2_000 < one < 2_000 * 1.02
    assert 1_000 < two < 1_000 * 1.03


def test_a_warehouse_with_one_writer_loads_one_batch_after_the_other() -> None:
    slow = replace(PLAIN, load_seconds_a_batch=50.0, documents_a_batch=1, tokens_a_second=1e9)
    one = simulate([(0.0, 8)], slow, Setup(places=8), pages_a_pdf=1)
    several = simulate([(0.0, 8)], slow, Setup(places=8, one_writer=False), pages_a_pdf=1)
    assert one.ended == pytest.approx(several.ended + 7 * 50)


def test_no_upload_is_lost_and_those_without_rows_make_the_late_percentiles_infinite() -> None:
    day = of_a_day(5_000, PLAIN)
    outcome = simulate(day, replace(PLAIN, tokens_a_second=0.2), Setup(), until=86_400.0)
    assert sum(count for _, count in outcome.waits) + outcome.unfinished == 5_000
    assert outcome.unfinished
    assert outcome.percentile(0.99) == float("inf")
    assert sum(count for _, count in of_a_day(1_000_000, PLAIN)) in range(999_990, 1_000_001)


def test_partial_batches_wait_while_runs_are_queued() -> None:
    every_second = [(float(second), 1) for second in range(600)]
    quick = simulate(every_second, PLAIN, Setup(places=50), pages_a_pdf=1)
    clogged = simulate(every_second, replace(PLAIN, start_to_end=200.0), Setup(places=1), pages_a_pdf=1)
    assert quick.batches > 100
    assert clogged.batches < 10


def test_requests_of_a_day_follow_from_its_pages_documents_and_batches() -> None:
    found = operations(Work(documents=10, pages=18, batches=2, commands=1))
    assert found["A", "write transcripts/*.json"] == 18
    assert found["A", "write tables/*.parquet"] == 8
    assert found["B", "look at inbox/*.pdf"] == 50
    assert of_class(found, "A") == 93  # 2 a page, 4 a document, 7 a batch, 3 a command


@pytest.mark.parametrize(
    ("request_line", "expected"),
    [
        (("PUT", "/lake/pages/b/d/0001.jpg", ""), ("A", "write pages/*.jpg")),
        (("GET", "/lake/pages/b/d/reading.json", ""), ("B", "read pages/reading.json")),
        (("HEAD", "/lake/inbox/a/b.pdf", ""), ("B", "look at inbox/*.pdf")),
        (("GET", "/lake", "list-type=2&prefix=inbox%2F"), ("A", "list inbox/")),
        (("POST", "/lake", "delete"), ("free", "delete")),
        (("DELETE", "/lake/inbox/a.pdf", ""), ("free", "delete")),
        (("POST", "/lake/inbox/a.pdf", "uploads"), ("A", "write inbox/*.pdf")),
    ],
)
def test_requests_are_charged_as_r2_does(request_line: tuple[str, str, str], expected: tuple[str, str]) -> None:
    assert classified(*request_line) == expected
