"""The overview as charts: each bar a link to the pages behind it.

Here belongs which numbers become which bar. The numbers are asked in `overview.py`, drawn in the template.
"""

from __future__ import annotations

from datetime import date

from starlette.requests import Request
from starlette.responses import Response

from ocr_pipeline.review import charts, links
from ocr_pipeline.review import overview as numbers
from ocr_pipeline.review.charts import Chart, Row, number
from ocr_pipeline.review.context import context
from ocr_pipeline.warehouse.views import BAD_PAGES

_ORDER = ("ok", "blank", "fallback", "failed", "skipped")


def overview(request: Request) -> Response:
    """`/overview`."""
    app = context(request)
    with app.tables.read() as connection:
        found = numbers.overview(connection)
    pages = sum(count for _, _, count in found.ledger.pages)
    bad = sum(count for status, _, count in found.ledger.pages if status in BAD_PAGES)
    priced = any(backend.usd_per_1000_pages_busy is not None for backend in found.backends)
    return app.screen(
        request,
        "overview.html",
        pages=pages,
        bad=bad,
        documents=sum(count for _, count in found.ledger.documents),
        rejected=sum(count for _, count in found.ledger.rejected),
        ledger=found.ledger,
        ledger_chart=_both(_ledger(found.ledger)),
        periods=found.periods,
        periods_chart=charts.columns(_periods(found.periods), every=max(1, len(found.periods) // 7)),
        backends=found.backends,
        speed_chart=_both(_speed(found.backends)),
        cost_chart=_both(_cost(found.backends)) if priced else None,
        agreement=found.agreement,
        agreement_chart=charts.columns(_agreement(found.agreement), every=4),
        in_layer=sum(found.agreement.buckets),
    )


def _both(rows: list[Row]) -> tuple[Chart, Chart]:
    """For a wide window and for a narrow one."""
    return charts.bars(rows), charts.bars(rows, narrow=True)


def _ledger(ledger: numbers.Ledger) -> list[Row]:
    rows = [
        Row(
            f"{status}: {reason}" if reason else status,
            _pages(count),
            links.with_query("/pages", {"status": status, "reason": reason}),
            ((status, count),),
        )
        for status, reason, count in sorted(ledger.pages, key=lambda row: (_place(row[0]), -row[2]))
    ]
    return rows + [
        Row(
            f"rejected: {reason}" if reason else "rejected",
            f"{number(count)} document{'' if count == 1 else 's'}",
            links.with_query("/documents", {"status": "rejected", "reason": reason}),
            (("rejected", count),),
        )
        for reason, count in ledger.rejected
    ]


def _place(status: str) -> int:
    return _ORDER.index(status) if status in _ORDER else len(_ORDER)


def _periods(periods: list[numbers.Period]) -> list[Row]:
    return [
        Row(
            _days(period.first, period.last),
            _pages(period.good + period.bad) + (f", {number(period.bad)} failed" if period.bad else ""),
            links.with_query("/pages", {"since": period.first, "until": period.last}),
            (("ok", period.good), ("failed", period.bad)),
        )
        for period in periods
    ]


def _days(first: date, last: date) -> str:
    return f"{first:%d %b %Y}" if first == last else f"{first:%d %b} to {last:%d %b %Y}"


def _speed(backends: list[numbers.BackendFigures]) -> list[Row]:
    return [
        Row(
            backend.backend,
            "not known"
            if backend.pages_per_second is None
            else f"{number(round(backend.pages_per_second, 3))} pages/s",
            links.with_query("/pages", {"backend": backend.backend}),
            () if backend.pages_per_second is None else (("speed", backend.pages_per_second),),
        )
        for backend in backends
    ]


def _cost(backends: list[numbers.BackendFigures]) -> list[Row]:
    return [
        Row(
            backend.backend,
            "no price set"
            if backend.usd_per_1000_pages_busy is None
            else f"${backend.usd_per_1000_pages_busy:,.3f} / 1,000",
            links.with_query("/pages", {"backend": backend.backend}),
            () if backend.usd_per_1000_pages_busy is None else (("cost", backend.usd_per_1000_pages_busy),),
        )
        for backend in backends
    ]


def _agreement(agreement: numbers.Agreement) -> list[Row]:
    rows = []
    for index, count in enumerate(agreement.buckets):
        low, high = index / numbers.BUCKETS, (index + 1) / numbers.BUCKETS
        rows.append(
            Row(
                f"{low:.2f}–{high:.2f}",
                _pages(count),
                links.with_query("/pages", {"agreement_from": low, "agreement_to": high, "sort": "agreement"}),
                (("poor" if high <= 0.8 else "ok", count),),
                tick=f"{low:.1f}",
            )
        )
    return rows


def _pages(count: int) -> str:
    return f"{number(count)} page{'' if count == 1 else 's'}"
