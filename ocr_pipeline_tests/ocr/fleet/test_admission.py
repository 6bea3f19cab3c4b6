"""The control law: on a model of a server with slots, alone and beside others, and for any sequence of events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_pipeline.ocr.fleet.admission import Admission
from ocr_pipeline_tests.ocr.fleet.slot_model import Client, SlotServer

SEEDS = range(6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("spread", [0.0, 0.3, 0.8])
@pytest.mark.parametrize(("slots", "profile"), [(4, 4), (4, 24), (16, 20)])
def test_two_runs_on_one_server_share_it_evenly_and_fill_it(slots, profile, spread, seed):
    first, second = Client(Admission(profile)), Client(Admission(profile), begins=5)
    server = SlotServer(slots, 0.8, spread, seed)
    server.run([first, second], until=90, measure_from=30)
    assert 0.4 <= first.done / (first.done + second.done) <= 0.6
    assert server.busy_seconds >= 0.95 * slots * 60


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("slots", "profile"), [(4, 4), (4, 24), (16, 16), (16, 20)])
def test_one_run_alone_fills_the_server_from_its_first_second(slots, profile, seed):
    alone = Client(Admission(profile))
    server = SlotServer(slots, 0.8, 0.3, seed)
    server.run([alone], until=60, measure_from=0)
    assert server.busy_seconds >= 0.95 * slots * 60


def test_a_run_whose_neighbour_ends_takes_over_its_slots():
    stays, ends = Client(Admission(4)), Client(Admission(4), ends=30)
    server = SlotServer(4, 0.8, 0.3, seed=1)
    server.run([stays, ends], until=90, measure_from=40)
    assert server.busy_seconds >= 0.95 * 4 * 50


def test_three_runs_share_as_well():
    clients = [Client(Admission(8), begins=3.0 * n) for n in range(3)]
    server = SlotServer(8, 0.8, 0.5, seed=2)
    server.run(clients, until=120, measure_from=40)
    total = sum(client.done for client in clients)
    assert all(0.25 <= client.done / total <= 0.42 for client in clients)


def test_a_server_with_a_short_queue_is_not_stormed_by_two_runs_that_ask_for_six_times_its_slots():
    first, second = Client(Admission(24)), Client(Admission(24))
    server = SlotServer(4, 0.8, 0.3, seed=3, queue_limit=4)
    server.run([first, second], until=90, measure_from=20)
    answered = first.done + second.done
    assert server.refused <= 0.02 * answered
    assert server.busy_seconds >= 0.9 * 4 * 70


def test_a_server_that_tells_nothing_of_its_queue_is_kept_at_the_profiles_number():
    alone = Client(Admission(16))
    server = SlotServer(16, 0.8, 0.3, seed=4, tells=False)
    server.run([alone], until=60, measure_from=0)
    assert alone.most_in_flight == 16
    assert server.busy_seconds >= 0.9 * 16 * 60


def test_latency_far_above_its_floor_lowers_the_limit_where_the_server_is_silent():
    admission = Admission(20)
    for _ in range(64):
        admission.on_success(1.0, admission.limit)
    assert admission.limit == 20
    for _ in range(16):
        admission.on_success(5.0, admission.limit)
    assert admission.limit == 16


def test_a_server_with_more_slots_than_the_profile_asks_for_is_left_at_the_profiles_number():
    admission = Admission(4)
    for _ in range(10):
        admission.observe_queue(running=admission.limit, waiting=0, in_flight=admission.limit)
    assert admission.limit == 4


def test_a_full_queue_that_refuses_many_pages_at_once_halves_the_limit_once():
    admission = Admission(16)
    for _ in range(16):
        admission.on_overload(now=100.0)
    assert admission.limit == 8
    admission.on_overload(now=101.5)
    assert admission.limit == 4


def test_a_server_that_comes_back_gets_one_page_then_twice_as_many_each_round():
    admission = Admission(16)
    admission.on_recovery()
    rounds = []
    while admission.limit < 16:
        rounds.append(admission.limit)
        for _ in range(admission.limit):
            admission.on_success(0.8, admission.limit)
    assert rounds == [1, 2, 4, 8]


EVENTS = st.one_of(
    st.tuples(st.just("success"), st.floats(0, 1000), st.integers(0, 50)),
    st.tuples(st.just("overload"), st.floats(0, 1e6), st.none()),
    st.tuples(st.just("recovery"), st.none(), st.none()),
    st.tuples(st.just("death"), st.integers(0, 64), st.none()),
    st.tuples(st.just("undo_last_death"), st.none(), st.none()),
    st.tuples(st.just("queue"), st.none() | st.floats(0, 1e6), st.none() | st.floats(0, 1e6)),
)


@given(st.integers(1, 64), st.lists(EVENTS, max_size=60))
def test_whatever_a_server_says_the_limit_stays_between_one_and_the_ceiling(profile, events):
    admission = Admission(profile)
    for kind, one, other in events:
        match kind:
            case "success":
                admission.on_success(one, other)
            case "overload":
                admission.on_overload(one)
            case "recovery":
                admission.on_recovery()
            case "death":
                admission.on_death(one)
            case "undo_last_death":
                admission.undo_last_death()
            case "queue":
                admission.observe_queue(one, other, admission.limit)
        assert 1 <= admission.limit <= admission.ceiling <= profile + 2


def rounds_to_the_full_number(admission: Admission) -> int:
    rounds = 0
    while admission.ceiling < admission.max_in_flight:
        rounds += 1
        for _ in range(admission.limit):
            admission.on_success(0.8, admission.limit)
    return rounds


def test_after_a_death_a_server_gets_half_as_many_pages_and_more_only_slowly():
    admission = Admission(16)
    admission.on_death(in_flight=18)
    assert admission.ceiling == admission.limit == 9
    admission.on_recovery()
    first = rounds_to_the_full_number(admission)
    admission.on_death(in_flight=16)
    assert admission.ceiling == 8
    assert rounds_to_the_full_number(admission) > 2 * first >= 28
    assert admission.ceiling == 18


def test_a_death_that_was_a_pages_doing_leaves_the_limit_as_it_was():
    admission = Admission(16)
    admission.on_death(in_flight=16)
    admission.on_death(in_flight=1)  # one page alone
    admission.undo_last_death()
    assert admission.ceiling == 18
