"""Which late pages are asked a second time."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ocr_pipeline.ocr.fleet.health import Condition
from ocr_pipeline.ocr.fleet.hedging import Hedge, InFlight, hedges
from ocr_pipeline.ocr.fleet.routing import BackendState

SLOW = BackendState(name="slow", size="small", in_flight=4, limit=4, seconds=8.0)
FAST = BackendState(name="fast", size="large", in_flight=14, limit=16, seconds=0.8)
CALM = replace(SLOW, seconds=0.8)


def request(page: int, elapsed: float, usual: float | None = 0.8, backend: str = "slow", **more) -> InFlight:
    return InFlight(page=page, backend=backend, elapsed=elapsed, usual=usual, **more)


def test_a_page_within_its_usual_time_is_left_alone():
    assert hedges([request(1, 1.9)], [CALM, FAST], backlog=False) == []


def test_a_page_far_over_its_usual_time_is_asked_elsewhere():
    assert hedges([request(1, 2.1)], [CALM, FAST], backlog=False) == [Hedge(1, "fast", "hedge: 2.1 s on slow")]


def test_on_a_server_known_to_crawl_a_page_is_asked_elsewhere_at_once():
    assert [h.page for h in hedges([request(1, 0.1, usual=8.0)], [SLOW, FAST], backlog=False)] == [1]


def test_a_page_that_is_nearly_done_is_left_alone_even_there():
    assert hedges([request(1, 7.5, usual=8.0)], [SLOW, FAST], backlog=False) == []


def test_a_page_that_is_overdue_there_is_not_waited_for():
    assert [h.page for h in hedges([request(1, 8.1, usual=8.0)], [SLOW, FAST], backlog=False)] == [1]


def test_with_a_backlog_only_a_probe_is_asked_elsewhere():
    late = [request(1, 5.0), request(2, 5.0, probe=True)]
    assert [h.page for h in hedges(late, [CALM, FAST], backlog=True)] == [2]


def test_free_slots_go_to_the_pages_with_the_longest_wait_ahead():
    late = [request(1, 3.0), request(2, 9.0), request(3, 6.0)]
    assert [h.page for h in hedges(late, [CALM, FAST], backlog=False)] == [2, 3]


def test_no_page_goes_where_it_was_refused_nor_to_a_server_that_is_not_well():
    assert hedges([request(1, 5.0, not_on=frozenset({"fast"}))], [CALM, FAST], backlog=False) == []
    for state in (
        replace(FAST, condition=Condition.OPEN),
        replace(FAST, condition=Condition.HALF_OPEN, in_flight=0),
        replace(FAST, reserved=True),
        replace(FAST, in_flight=16),
    ):
        assert hedges([request(1, 5.0)], [CALM, state], backlog=False) == []


def test_a_server_that_has_not_answered_yet_is_measured_by_the_other():
    silent = replace(SLOW, seconds=None)
    assert hedges([request(1, 1.0, usual=None)], [silent, FAST], backlog=False) == []
    assert [h.page for h in hedges([request(1, 2.5, usual=None)], [silent, FAST], backlog=False)] == [1]


FLIGHTS = st.lists(
    st.builds(
        InFlight,
        page=st.integers(0, 10**6),
        backend=st.sampled_from(["slow", "fast"]),
        elapsed=st.floats(0, 100),
        usual=st.none() | st.floats(0.01, 50),
        probe=st.booleans(),
    ),
    max_size=20,
    unique_by=lambda f: f.page,
)


@given(FLIGHTS, st.integers(0, 20), st.integers(0, 20), st.booleans())
def test_never_more_second_requests_than_free_slots_and_never_on_the_same_server(pending, there, here, backlog):
    states = [replace(SLOW, in_flight=here, limit=6), replace(FAST, in_flight=there)]
    sent = hedges(pending, states, backlog=backlog)
    where = {f.page: f.backend for f in pending}
    assert len({h.page for h in sent}) == len(sent)
    assert all(h.backend != where[h.page] for h in sent)
    for state in states:
        assert sum(h.backend == state.name for h in sent) <= max(0, state.limit - state.in_flight)
