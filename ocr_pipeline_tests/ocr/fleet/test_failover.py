"""A page's troubles on the wire: back-off, refusals, deaths, and when it is enough."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_pipeline.ocr.fleet.failover import Troubles, wait_after
from ocr_pipeline.ocr.vllm.answers import Answer, Fault

SERVERS = ("rtx4090", "spark")


def fault(outcome: str = "http_503", kind: Fault = Fault.TRANSIENT, **more) -> Answer:
    return Answer(outcome, 1.0, fault=kind, **more)


def noted(*answers: tuple[str, Answer, float], alone: bool = False) -> Troubles:
    troubles = Troubles()
    for server, answer, now in answers:
        troubles.note(server, answer, now, alone=alone, jitter=1.0)
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
    troubles.note("spark", fault("refused", Fault.PAGE), 1.0, alone=False, jitter=0.0)
    assert troubles.refused_by_all(SERVERS)
    assert troubles.refused_by_all((*SERVERS, "third"))


def test_a_page_at_two_deaths_is_poisoned_only_if_it_was_alone_at_the_second():
    died = fault("connection_lost", Fault.DEATH)
    troubles = noted(("rtx4090", died, 0.0))
    assert troubles.suspect
    assert not troubles.poisoned
    troubles.note("spark", died, 1.0, alone=False, jitter=0.0)
    assert not troubles.poisoned
    troubles.note("spark", died, 2.0, alone=True, jitter=0.0)
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
