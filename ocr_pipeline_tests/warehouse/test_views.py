"""The views people look at, on rows whose answers are known beforehand."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from ocr_pipeline.records import Attempt, DocumentResult, PageAttempt, PageStatus, Reason
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.costs import BackendCost, set_backend_costs
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.load import load_batch, mark_deleted
from ocr_pipeline_tests.warehouse.sample_rows import document_id, instant, result, to_tables


def ask(warehouse: Warehouse, sql: str) -> list[tuple[object, ...]]:
    with warehouse.read() as connection:
        return connection.execute(sql).fetchall()


def requests(name: str, *sent: tuple[float, float, str], backend: str = "rtx4090", tokens: int = 100) -> DocumentResult:
    """A document with one request a page: (seconds after 08:00, seconds it took, outcome)."""
    base = result(name, batch="b1", pages=len(sent), backend=backend)
    attempts = tuple(
        PageAttempt(
            recipe_id="r1",
            attempt=Attempt(
                document_id=document_id(name),
                page_number=number,
                attempt=1,
                backend=backend,
                model="m",
                choice="default",
                started_at=instant(at / 60),
                seconds=seconds,
                outcome=outcome,
                completion_tokens=tokens if outcome == "ok" else None,
            ),
        )
        for number, (at, seconds, outcome) in enumerate(sent, start=1)
    )
    return DocumentResult(document=base.document, pages=base.pages, regions=base.regions, attempts=attempts)


def test_failed_pages_name_the_reason_and_the_command_that_runs_them_again(warehouse: Warehouse) -> None:
    load_batch(
        warehouse,
        "b1",
        to_tables(
            [
                result(
                    "a.pdf",
                    batch="b1",
                    pages=4,
                    statuses={
                        2: (PageStatus.FAILED, Reason.REPETITION),
                        3: (PageStatus.SKIPPED, Reason.PAGE_TOO_LARGE),
                        4: (PageStatus.FALLBACK, Reason.TRUNCATED),
                    },
                ),
                result("locked.pdf", batch="b1", rejected=Reason.ENCRYPTED),
                result("gone.pdf", batch="b1", pages=1, statuses={1: (PageStatus.FAILED, Reason.GARBAGE)}),
                result("fine.pdf", batch="b1"),
            ]
        ),
    )
    mark_deleted(warehouse, {document_id("gone.pdf"): instant(60)})
    found = ask(
        warehouse, "SELECT source_uri, page_number, status, reason, run_again FROM ocr.failed_pages ORDER BY ALL"
    )
    assert found == [
        ("s3://docs.example/inbox/a.pdf", 2, "failed", "repetition", "ocr-pipeline retry --reason repetition"),
        ("s3://docs.example/inbox/a.pdf", 3, "skipped", "page_too_large", "ocr-pipeline retry --reason page_too_large"),
        ("s3://docs.example/inbox/locked.pdf", None, "rejected", "encrypted", "ocr-pipeline retry --reason encrypted"),
    ]


def test_current_documents_and_pages_leave_out_what_was_deleted(warehouse: Warehouse) -> None:
    load_batch(warehouse, "b1", to_tables([result("a.pdf", batch="b1"), result("b.pdf", batch="b1", pages=3)]))
    mark_deleted(warehouse, {document_id("a.pdf"): instant(1)})
    assert ask(warehouse, "SELECT source_uri FROM ocr.current_documents") == [("s3://docs.example/inbox/b.pdf",)]
    assert ask(warehouse, "SELECT source_uri, page_number, title FROM ocr.current_pages ORDER BY 2") == [
        ("s3://docs.example/inbox/b.pdf", number, "Title of b.pdf") for number in (1, 2, 3)
    ]


def test_speed_counts_time_in_which_requests_overlap_once_and_idle_time_never(warehouse: Warehouse) -> None:
    load_batch(
        warehouse,
        "b1",
        to_tables(
            [
                # busy from 0 to 10 (two at a time, one inside the other) and from 100 to 104; one fault in it
                requests("a.pdf", (0, 10, "ok"), (2, 3, "ok"), (9, 1, "http_503"), (100, 4, "ok")),
                requests("b.pdf", (3600, 2, "ok"), backend="rtx4090", tokens=50),
                requests("c.pdf", (0, 5, "timeout"), backend="dgx-spark"),
            ]
        ),
    )
    found = ask(
        warehouse,
        """
        SELECT backend, hour, requests, pages, faults, busy_seconds, pages_per_second, tokens_per_second,
            median_seconds, p95_seconds, p99_seconds
        FROM ocr.backend_speed ORDER BY ALL
        """,
    )
    eight, nine = datetime(2026, 11, 1, 8, tzinfo=UTC), datetime(2026, 11, 1, 9, tzinfo=UTC)
    assert found == [
        ("dgx-spark", eight, 1, 0, 1, 5.0, 0.0, 0.0, None, None, None),
        ("rtx4090", eight, 4, 3, 1, 14.0, round(3 / 14, 3), round(300 / 14, 1), 4.0, 9.4, 9.88),
        ("rtx4090", nine, 1, 1, 0, 2.0, 0.5, 25.0, 2.0, 2.0, 2.0),
    ]


def test_costs_follow_the_price_list_and_documents_add_up_to_the_backend(warehouse: Warehouse) -> None:
    load_batch(
        warehouse,
        "b1",
        to_tables(
            [
                requests("a.pdf", (0, 30, "ok"), (0, 30, "ok")),
                requests("b.pdf", (0, 36, "ok"), (30, 6, "truncated")),
                requests("c.pdf", (0, 5, "ok"), backend="no-price"),
            ]
        ),
    )
    set_backend_costs(warehouse, {"rtx4090": BackendCost(40.0, hardware_usd=1980.0, hardware_months=6)})
    per_month = 40 + 1980 / 6
    busy = per_month * 36 / (730 * 3600)
    found = ask(warehouse, "SELECT * EXCLUDE (month) FROM ocr.backend_cost ORDER BY backend DESC")
    assert found[0] == (
        "rtx4090",
        3,
        102.0,
        pytest.approx(36.0),
        *map(pytest.approx, (per_month, busy, 1000 * busy / 3, 1000 * per_month / 3)),
    )
    assert found[1] == ("no-price", 1, 5.0, pytest.approx(5.0), None, None, None, None)
    assert ask(warehouse, "SELECT DISTINCT month FROM ocr.backend_cost") == [(datetime(2026, 11, 1, tzinfo=UTC),)]
    documents = ask(warehouse, "SELECT source_uri, requests, pages, usd FROM ocr.document_cost ORDER BY 1")
    assert documents == [
        ("s3://docs.example/inbox/a.pdf", 2, 2, pytest.approx(busy * 60 / 102)),
        ("s3://docs.example/inbox/b.pdf", 2, 2, pytest.approx(busy * 42 / 102)),
        ("s3://docs.example/inbox/c.pdf", 1, 1, None),
    ]


def test_the_users_own_table_of_costs_comes_out() -> None:
    """480 dollars for a year of the RTX 4090, 5,500 to 15,500 for the first year of a DGX Spark."""
    assert 12 * BackendCost(40).usd_per_month == 480
    assert 12 * BackendCost(45, 5_000, 12).usd_per_month == pytest.approx(5_540)
    assert 12 * BackendCost(45, 15_000, 12).usd_per_month == pytest.approx(15_540)


def test_a_price_takes_the_place_of_the_one_before_others_stay_and_an_unchanged_one_writes_nothing(
    warehouse: Warehouse,
) -> None:
    assert set_backend_costs(warehouse, {"a": BackendCost(1), "b": BackendCost(2)})
    assert set_backend_costs(warehouse, {"b": BackendCost(3)})
    assert not set_backend_costs(warehouse, {"b": BackendCost(3)})
    assert ask(warehouse, "FROM ocr.backend_costs ORDER BY 1") == [("a", 1.0, 0.0, 36.0), ("b", 3.0, 0.0, 36.0)]
    with pytest.raises(WarehouseError, match="backend b: prices must not be negative"):
        set_backend_costs(warehouse, {"b": BackendCost(3, 100, 0)})


def test_a_price_can_be_taken_back(warehouse: Warehouse) -> None:
    set_backend_costs(warehouse, {"a": BackendCost(1), "b": BackendCost(2)})
    assert set_backend_costs(warehouse, {"b": None, "c": None})
    assert not set_backend_costs(warehouse, {"b": None, "c": None})
    assert ask(warehouse, "FROM ocr.backend_costs") == [("a", 1.0, 0.0, 36.0)]


def test_agreement_is_told_by_backend_and_day(warehouse: Warehouse) -> None:
    load_batch(
        warehouse,
        "b1",
        to_tables([result("a.pdf", batch="b1", pages=3), result("b.pdf", batch="b1", pages=2, asked=60 * 24)]),
    )
    warehouse.run(lambda connection: connection.execute("UPDATE ocr.pages SET agreement = page_number * 0.3"))
    warehouse.run(
        lambda connection: connection.execute(
            "UPDATE ocr.pages SET agreement = NULL WHERE page_number = 2 AND document_id = ?", [document_id("b.pdf")]
        )
    )
    found = ask(
        warehouse,
        """
        SELECT day, backend, pages, mean_agreement, median_agreement, pages_below_80_percent
        FROM ocr.agreement ORDER BY day
        """,
    )
    assert found == [(date(2026, 11, 1), "rtx4090", 3, 0.6, 0.6, 2), (date(2026, 11, 2), "rtx4090", 1, 0.3, 0.3, 1)]
