"""A page's troubles on the wire: back-off, refusals, deaths, and when it is enough."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_pipeline.ocr.fleet.failover import Evidence, Troubles, wait_after
from ocr_pipeline.ocr.vllm.answers import Answer, Fault

SERVERS = ("rtx4090", "spark")


def fault(outcome: str = "http_503", kind: Fault = Fault.TRANSIENT, **more) -> Answer:
    return Answer(outcome, 1.0, fault=kind, **more)


def noted(*answers: tuple[str, Answer, float]) -> Troubles:
    troubles = Troubles()
    for server, answer, now in answers:
        troubles.note(server, answer, now, jitter=1.0)
    return troubles


def test_each_fault_on_a_server_doubles_the_wait_there_and_only_there():
    troubles = noted(*(("rtx4090", fault(), 0.0) for _ in range(3)))
    assert troubles.avoided(1.9) == {"rtx4090": "http_503"}
    assert troubles.avoided(2.0) == {}


def test_a_servers_retry_after_is_a_lower_bound():
    assert noted(("rtx4090", fault(retry_after=20.0), 0.0)).avoided(19.9)
    assert wait_after(1, 20.0, 0.0) == 20.0


@given(st.integers(1, 10_000), st.none() | st.floats(0, 300), st.floats(0, 1))
def test_a_wait_is_never_endless_and_never_nothing(faults, retry_after, jitter):
    assert 0.25 <= wait_after(faults, retry_after, jitter) <= 300


def test_one_refusal_and_a_second_opinion_are_enough():
    troubles = noted(("rtx4090", fault("refused", Fault.PAGE, detail="truncated"), 0.0))
    assert not troubles.refused_by_all(SERVERS)
    assert troubles.refused_by_all(("rtx4090",))
    assert troubles.avoided(1e9) == {"rtx4090": "refused"}
    troubles.note("spark", fault("refused", Fault.PAGE), 1.0, jitter=0.0)
    assert troubles.refused_by_all(SERVERS)
    assert troubles.refused_by_all((*SERVERS, "third"))


DIED = fault("connection_lost", Fault.DEATH)


def test_a_page_at_two_deaths_is_poisoned_only_if_the_second_is_proved_to_be_its_doing():
    troubles = noted(("rtx4090", DIED, 0.0), ("spark", DIED, 1.0))
    assert troubles.suspect
    assert not troubles.poisoned
    troubles.note("spark", DIED, 2.0, evidence=Evidence.PROVED, jitter=0.0)
    assert troubles.poisoned


def test_two_doubtful_deaths_are_enough_since_a_page_must_end_and_an_answer_between_clears_it():
    troubles = noted(("rtx4090", DIED, 0.0))
    troubles.note("spark", DIED, 1.0, evidence=Evidence.DOUBTFUL, jitter=0.0)
    assert not troubles.poisoned
    troubles.answered()
    for now in (2.0, 3.0):
        assert not troubles.poisoned
        troubles.note("spark", DIED, now, evidence=Evidence.DOUBTFUL, jitter=0.0)
    assert troubles.poisoned


def test_a_page_that_a_server_survived_is_no_suspect_any_more():
    troubles = noted(("rtx4090", fault("connection_lost", Fault.DEATH), 0.0), ("rtx4090", fault(), 0.0))
    troubles.answered()
    assert not troubles.suspect
    assert not troubles.avoided(0.0)
    assert troubles.first_at is None


@pytest.mark.parametrize(("now", "worn_out"), [(899.0, False), (900.0, True)])
def test_a_page_with_faults_over_the_whole_outage_wait_is_given_up(now, worn_out):
    assert noted(("rtx4090", fault(), 0.0)).worn_out(now, 900.0) is worn_out


def test_a_page_that_times_out_three_times_is_given_up():
    slow = fault("timeout")
    assert not noted(*[("rtx4090", slow, 0.0)] * 2).worn_out(1.0, 900.0)
    assert noted(*[("rtx4090", slow, 0.0)] * 3).worn_out(1.0, 900.0)


def test_a_server_that_is_set_up_wrongly_is_not_held_against_the_page():
    assert noted(("rtx4090", fault("unauthorized", Fault.CONFIG), 0.0)) == Troubles(last="rtx4090 unauthorized")


@pytest.mark.parametrize("outcome", ["http_500", "bad_answer", "hung"])
def test_three_faults_of_a_kind_that_a_page_can_cause_are_a_refusal_where_the_server_reads_other_pages(outcome):
    troubles = Troubles()
    for now in (0.0, 1.0):
        troubles.note("rtx4090", fault(outcome), now, reads_others=True, jitter=0.0)
        troubles.note("rtx4090", fault(outcome), now, reads_others=False, jitter=0.0)
        troubles.note("rtx4090", fault("http_503"), now, reads_others=True, jitter=0.0)
        assert not troubles.refused
    troubles.note("rtx4090", fault(outcome, detail="no reason"), 2.0, reads_others=True, jitter=0.0)
    assert troubles.refused == {"rtx4090": f"{outcome} 3 times while other pages were read (no reason)"}
