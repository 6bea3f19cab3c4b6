"""Charts as geometry."""

from __future__ import annotations

import math
from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_pipeline.review.charts import WIDTH, Row, bars, columns, nice, number
from ocr_pipeline.review.overview import MAX_COLUMNS, in_periods

NUMBERS = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.integers(0, 10**9).map(float))


@settings(deadline=None)
@given(st.lists(st.lists(NUMBERS, max_size=3), max_size=30))
def test_every_mark_lies_on_the_drawing_whatever_the_numbers(values: list[list[float]]) -> None:
    rows = [Row("a", "b", "/", tuple(("ok", value) for value in row)) for row in values]
    for chart in (bars(rows), bars(rows, narrow=True), columns(rows)):
        assert len(chart.marks) == len(rows)
        for piece in (piece for mark in chart.marks for piece in mark.pieces):
            assert all(math.isfinite(value) for value in (piece.x, piece.y, piece.width, piece.height))
            assert -5 <= piece.x <= piece.x + piece.width <= chart.width + 5
            assert -5 <= piece.y <= piece.y + piece.height <= chart.height + 5


def test_in_a_narrow_chart_whole_labels_stand_above_their_bars() -> None:
    chart = bars([Row("failed: a reason with a long name", "1 page", "/", (("failed", 1),))] * 2, narrow=True)
    for mark in chart.marks:
        assert mark.short == mark.label
        assert mark.y < mark.label_y < mark.pieces[0].y
        assert mark.pieces[0].y + mark.pieces[0].height <= mark.y + chart.row
    assert chart.height == 2 * chart.row


def test_bars_are_to_one_scale_and_a_single_page_among_a_million_is_still_seen() -> None:
    chart = bars(
        [
            Row("a", "", "/", (("ok", 1_000_000),)),
            Row("b", "", "/", (("failed", 500_000),)),
            Row("c", "", "/", (("x", 1),)),
        ]
    )
    widths = [mark.pieces[0].width for mark in chart.marks]
    assert widths[1] == pytest.approx(widths[0] / 2)
    assert widths[2] >= 1


@pytest.mark.parametrize(("value", "end"), [(0, 2), (3, 4), (5, 6), (11, 20), (40, 40), (81, 100), (float("inf"), 2)])
def test_an_axis_ends_at_a_round_number(value: float, end: float) -> None:
    assert nice(value) == end


@pytest.mark.parametrize(("value", "text"), [(0.111, "0.111"), (5.0, "5"), (12400, "12,400"), (1_234_567, "1.23 M")])
def test_numbers_are_written_for_people(value: float, text: str) -> None:
    assert number(value) == text


@settings(deadline=None)
@given(st.dictionaries(st.integers(0, 4000), st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40))
def test_days_gather_in_stretches_without_a_gap_and_no_page_is_lost(days: dict[int, tuple[int, int]]) -> None:
    rows = [(date(2020, 1, 1) + timedelta(days=day), *days[day]) for day in sorted(days)]
    periods = in_periods(rows)
    assert len(periods) <= MAX_COLUMNS
    assert sum(period.good for period in periods) == sum(good for _, good, _ in rows)
    assert sum(period.bad for period in periods) == sum(bad for _, _, bad in rows)
    assert periods[0].first == rows[0][0]
    assert periods[-1].last == rows[-1][0]
    assert all(after.first - before.last == timedelta(days=1) for before, after in pairwise(periods))


def test_the_longest_bar_leaves_room_for_a_long_value() -> None:
    (mark,) = bars([Row("cpu", "201,000 pages/s", "/", (("speed", 201_000.0),))]).marks
    assert mark.value_x + 7 * len(mark.value) <= WIDTH, "letters are about 7 wide"
