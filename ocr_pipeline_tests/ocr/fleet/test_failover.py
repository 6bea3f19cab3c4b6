"""A page's history on the wire: back-off, refusals, deaths, and when it is enough."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_pipeline.ocr.fleet.failover import Evidence, FaultHistory, backoff
from ocr_pipeline.ocr.vllm.answers import Answer, Fault

SERVERS = ("rtx4090", "spark")


def fault(outcome: str = "http_503", kind: Fault = Fault.TRANSIENT, **more) -> Answer:
    return Answer(outcome, 1.0, fault=kind, **more)


def noted(*answers: tuple[str, Answer, float]) -> FaultHistory:
    history = FaultHistory()
    for server, answer, now in answers:
        history.record(server, answer, now, jitter=1.0)
    return history


def test_each_fault_on_a_server_doubles_the_wait_there_and_only_there():
    history = noted(*(("rtx4090", fault(), 0.0) for _ in range(3)))
    assert history.avoided(1.9) == {"rtx4090": "http_503"}
    assert history.avoided(2.0) == {}


def test_a_servers_retry_after_is_a_lower_bound():
    assert noted(("rtx4090", fault(retry_after=20.0), 0.0)).avoided(19.9)
    assert backoff(1, 20.0, 0.0) == 20.0


@given(st.integers(1, 10_000), st.none() | st.floats(0, 300), st.floats(0, 1))
def test_a_wait_is_never_endless_and_never_nothing(faults, retry_after, jitter):
    assert 0.25 <= backoff(faults, retry_after, jitter) <= 300


def test_one_refusal_and_a_second_opinion_are_enough():
    history = noted(("rtx4090", fault("refused", Fault.PAGE, detail="truncated"), 0.0))
    assert not history.refused_by_all(SERVERS)
    assert history.refused_by_all(("rtx4090",))
    assert history.avoided(1e9) == {"rtx4090": "refused"}
    history.record("spark", fault("refused", Fault.PAGE), 1.0, jitter=0.0)
    assert history.refused_by_all(SERVERS)
    assert history.refused_by_all((*SERVERS, "third"))


def test_faults_of_this_program_are_no_refusals_and_a_text_ends_their_count():
    history = FaultHistory()
    for _ in range(5):
        history.record("spark", fault("client_failed"), 0.0, reads_others=True, jitter=0.0)
    assert not history.refused
    assert history.own_faults == 5
    history.reset()
    assert history.own_faults == 0


DIED = fault("connection_lost", Fault.DEATH)


def test_a_page_at_two_deaths_is_poisoned_only_if_the_second_is_proved_to_be_its_doing():
    history = noted(("rtx4090", DIED, 0.0), ("spark", DIED, 1.0))
    assert history.suspect
    assert not history.poisoned
    history.record("spark", DIED, 2.0, evidence=Evidence.PROVED, jitter=0.0)
    assert history.poisoned


def test_two_doubtful_deaths_are_enough_since_a_page_must_end_and_an_answer_between_clears_it():
    history = noted(("rtx4090", DIED, 0.0))
    history.record("spark", DIED, 1.0, evidence=Evidence.DOUBTFUL, jitter=0.0)
    assert not history.poisoned
    history.reset()
    for now in (2.0, 3.0):
        assert not history.poisoned
        history.record("spark", DIED, now, evidence=Evidence.DOUBTFUL, jitter=0.0)
    assert history.poisoned


def test_a_page_that_a_server_survived_is_no_suspect_any_more():
    history = noted(("rtx4090", fault("connection_lost", Fault.DEATH), 0.0), ("rtx4090", fault(), 0.0))
    history.reset()
    assert not history.suspect
    assert not history.avoided(0.0)
    assert history.first_at is None


@pytest.mark.parametrize(("now", "exhausted"), [(899.0, False), (900.0, True)])
def test_a_page_with_faults_over_the_whole_outage_wait_is_given_up(now, exhausted):
    assert noted(("rtx4090", fault(), 0.0)).exhausted(now, 900.0) is exhausted


def test_a_page_that_times_out_three_times_is_given_up():
    slow = fault("timeout")
    assert not noted(*[("rtx4090", slow, 0.0)] * 2).exhausted(1.0, 900.0)
    assert noted(*[("rtx4090", slow, 0.0)] * 3).exhausted(1.0, 900.0)


def test_a_server_that_is_set_up_wrongly_is_not_held_against_the_page():
    assert noted(("rtx4090", fault("unauthorized", Fault.CONFIG), 0.0)) == FaultHistory(last="rtx4090 unauthorized")


@pytest.mark.parametrize("outcome", ["http_500", "bad_answer", "hung"])
def test_three_faults_of_a_kind_that_a_page_can_cause_are_a_refusal_where_the_server_reads_other_pages(outcome):
    history = FaultHistory()
    for now in (0.0, 1.0):
        history.record("rtx4090", fault(outcome), now, reads_others=True, jitter=0.0)
        history.record("rtx4090", fault(outcome), now, reads_others=False, jitter=0.0)
        history.record("rtx4090", fault("http_503"), now, reads_others=True, jitter=0.0)
        assert not history.refused
    history.record("rtx4090", fault(outcome, detail="no reason"), 2.0, reads_others=True, jitter=0.0)
    assert history.refused == {"rtx4090": f"{outcome} 3 times while other pages were read (no reason)"}
