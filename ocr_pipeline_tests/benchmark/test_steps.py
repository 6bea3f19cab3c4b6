"""The arithmetic of a benchmark."""

from __future__ import annotations

import io
import itertools

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ocr_pipeline.benchmark import pages
from ocr_pipeline.benchmark.steps import (
    Step,
    cost_per_thousand,
    given_up,
    goes_on,
    ladder,
    percentile,
    recommended,
    requests_of,
    still_rising,
    summarise,
)
from ocr_pipeline.ocr.vllm.answers import Answer, Fault


def step(in_flight: int, rate: float, failed: int = 0) -> Step:
    return Step(in_flight, 100, 1.0, rate, 0.0, 1.0, 1.0, {"http_503": failed} if failed else {})


def test_the_fewest_in_flight_that_give_nearly_the_best_rate_are_recommended() -> None:
    steps = [step(1, 1.0), step(4, 3.9), step(8, 7.7), step(16, 8.0), step(32, 7.9)]
    assert recommended(steps) is steps[2]


def test_a_step_with_failures_is_never_recommended() -> None:
    steps = [step(1, 1.0), step(4, 3.0), step(8, 9.0, failed=10)]
    assert recommended(steps) is steps[1]
    assert recommended([step(1, 1.0, failed=100)]) is None
    assert recommended([]) is None


def test_rising_ends_after_two_steps_without_gain_or_at_failures() -> None:
    assert goes_on([])
    assert goes_on([step(1, 1.0), step(2, 2.0), step(4, 2.0)])
    assert not goes_on([step(1, 1.0), step(2, 2.0), step(4, 2.0), step(8, 2.05)])
    assert not goes_on([step(1, 1.0), step(2, 2.0, failed=5)])


def test_a_last_step_that_still_gained_says_that_the_best_is_beyond_the_ceiling() -> None:
    assert still_rising([step(1, 1.0), step(2, 2.0)], 2)
    assert not still_rising([step(1, 1.0), step(2, 2.0)], 4)
    assert not still_rising([step(1, 1.0), step(2, 1.02)], 2)
    assert not still_rising([step(1, 1.0), step(2, 2.0, failed=50)], 2)


def test_a_server_is_given_up_when_a_round_of_its_slots_and_three_at_least_failed_one_after_the_other() -> None:
    good, bad = Answer("ok", 1.0, text="x"), Answer("timeout", 1.0, fault=Fault.TRANSIENT)
    assert given_up([bad, bad, bad], 1)
    assert not given_up([bad, bad], 1)
    assert not given_up([bad, good, bad, bad], 1)
    assert not given_up([bad, bad, bad], 4)
    assert given_up([good, bad, bad, bad, bad], 4)


@given(st.integers(1, 500))
def test_the_ladder_rises_to_its_end_and_each_step_has_rounds_enough(most: int) -> None:
    steps = ladder(most)
    assert steps[-1] == most
    assert list(steps) == sorted(set(steps))
    assert all(requests_of(step, 1) >= 4 * step for step in steps)


def test_a_summary_counts_only_texts_and_rates_only_what_came_while_all_slots_were_asked_for() -> None:
    good = Answer("ok", 2.0, text="x", completion_tokens=100)
    slow = Answer("ok", 8.0, text="x", completion_tokens=300)
    bad = Answer("http_503", 0.1, fault=Fault.TRANSIENT)
    found = summarise(2, [good, good, slow, bad], 4.0, [good, good, bad])
    assert (found.pages_per_second, found.tokens_per_second) == (0.5, 50.0)
    assert (found.median, found.p95, found.failures) == (2.0, 8.0, {"http_503": 1})
    assert found.failed_share == 0.25


def test_percentiles_are_nearest_rank_and_costs_follow_from_price_and_rate() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert percentile([], 0.5) is None
    assert cost_per_thousand(3.6, 2.0) == 0.5
    assert cost_per_thousand(None, 2.0) is None
    assert cost_per_thousand(1.0, 0.0) is None


def test_no_image_is_given_twice_however_many_rounds_there_are() -> None:
    out = io.BytesIO()
    Image.new("RGB", (400, 500), "white").save(out, "JPEG", quality=85)
    given_out = list(itertools.islice(pages.endless([out.getvalue()]), 300))
    pixels = {Image.open(io.BytesIO(jpeg)).tobytes() for jpeg in given_out}
    assert len(pixels) == 300
