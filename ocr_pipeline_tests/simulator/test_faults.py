"""Every fault that can be asked for, on a real socket; and that it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Thread
from typing import Any

import httpx
import pytest

from ocr_pipeline_tests.simulator import SimulatedServer
from ocr_pipeline_tests.simulator.asking import PATH, ask, ask_all, body, finish, sha256, text
from ocr_pipeline_tests.simulator.faults import Faults, is_picked

PAGES = range(8)


@pytest.fixture(scope="module")
def shared_server() -> Iterator[SimulatedServer]:
    with SimulatedServer(speed=500, max_num_seqs=4) as server:
        yield server


@pytest.fixture
def server(shared_server: SimulatedServer) -> Iterator[SimulatedServer]:
    """One server for the faults that it survives, without any."""
    shared_server.clear_faults()
    yield shared_server
    shared_server.clear_faults()


@pytest.fixture
def mortal() -> Iterator[SimulatedServer]:
    """A server of one's own, for the faults that it dies of; slow enough to be killed in the middle of a page."""
    with SimulatedServer(seconds_per_page=0.4, max_num_seqs=4) as server:
        yield server


def _health(server: SimulatedServer) -> int:
    return httpx.get(f"{server.url}/health", trust_env=False).status_code


def _metric(server: SimulatedServer, name: str) -> float:
    metrics = httpx.get(f"{server.url}/metrics", trust_env=False).text
    return sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith(f"vllm:{name}{{"))


@pytest.mark.parametrize(("storm", "status"), [("storm_503", 503), ("storm_429", 429)])
def test_a_storm_refuses_chat_requests_and_nothing_else(server: SimulatedServer, storm: str, status: int) -> None:
    server.set_faults(**{storm: {"retry_after": 7}})
    answer = ask(server.url, 1)
    assert (answer.status_code, answer.headers["retry-after"]) == (status, "7")
    assert _health(server) == 200
    server.set_faults(**{storm: None})
    assert text(ask(server.url, 1))


def test_a_storm_for_some_requests_ends_by_itself(server: SimulatedServer) -> None:
    server.set_faults(storm_503={"requests": 3})
    assert [ask(server.url, 1).status_code for _ in range(5)] == [503, 503, 503, 200, 200]


def test_a_storm_for_some_seconds_ends_by_itself(server: SimulatedServer) -> None:
    server.set_faults(storm_503={"for_seconds": 0.3})
    assert ask(server.url, 1).status_code == 503
    assert _eventually(lambda: ask(server.url, 1).status_code == 200)


def test_a_hung_server_is_healthy_and_generates_nothing(server: SimulatedServer) -> None:
    server.set_faults(hang=True)
    with pytest.raises(httpx.ReadTimeout):
        ask(server.url, 1, timeout=0.3)
    with httpx.Client(trust_env=False) as client:
        waiting = Thread(target=lambda: client.post(server.url + PATH, json=body(2), timeout=20))
        waiting.start()
        assert _eventually(lambda: _metric(server, "num_requests_running") == 1)
        tokens = _metric(server, "generation_tokens_total")
        assert _health(server) == 200
        assert _metric(server, "generation_tokens_total") == tokens
        server.clear_faults()
        waiting.join(timeout=20)
        assert not waiting.is_alive()
    assert _metric(server, "generation_tokens_total") > tokens


def test_a_hung_engine_may_report_what_it_was_doing_when_it_hung(server: SimulatedServer) -> None:
    server.set_faults(hang={"frozen_gauges": True, "for_seconds": 1.0})
    waiting = Thread(target=ask_all, args=(server.url, [1, 2]))
    waiting.start()
    while server.stats().max_running < 2 and waiting.is_alive():
        time.sleep(0.01)  # between two polls
    assert _metric(server, "num_requests_running") == 0
    waiting.join()
    assert text(ask(server.url, 1))


def test_a_sick_server_says_so(server: SimulatedServer) -> None:
    server.set_faults(unhealthy=True)
    assert _health(server) == 503


@pytest.mark.parametrize(("fault", "error"), [({"drop": True}, httpx.RemoteProtocolError),
                                              ({"drop": {"half": True}}, httpx.RemoteProtocolError),
                                              ({"half_dead": True}, httpx.ReadTimeout),
                                              ({"slow_headers": {"delay": 30}}, httpx.ReadTimeout)])  # fmt: skip
def test_an_answer_is_lost_on_the_way(server: SimulatedServer, fault: dict[str, Any], error: type[Exception]) -> None:
    server.set_faults(**fault)
    with pytest.raises(error):
        ask(server.url, 1, timeout=0.5)
    server.clear_faults()
    assert text(ask(server.url, 1))


def test_any_answer_can_be_given(server: SimulatedServer) -> None:
    server.set_faults(canned={"status": 502, "body": "<html>", "content_type": "text/html", "requests": 1})
    answer = ask(server.url, 1)
    assert (answer.status_code, answer.text, answer.headers["content-type"]) == (502, "<html>", "text/html")
    assert ask(server.url, 1).status_code == 200


def test_stripped_tags_are_lost_although_they_were_asked_for(server: SimulatedServer) -> None:
    server.set_faults(stripped_tags=True)
    assert "<|ref|>" not in text(ask(server.url, 1))


def test_about_a_share_of_pages_is_struck_and_on_every_server_the_same() -> None:
    struck = [n for n in range(4000) if is_picked(f"{n:064x}", 0.05)]
    assert 140 < len(struck) < 260
    assert struck != [n for n in range(4000) if is_picked(f"{n:064x}", 0.05, seed="another")]


def test_struck_pages_loop_when_greedy_and_are_clean_when_warmer(server: SimulatedServer) -> None:
    clean = {n: text(ask(server.url, n)) for n in PAGES}
    server.set_faults(loops={"images": [sha256(3)]})
    for number in PAGES:
        answer = ask(server.url, number)
        assert finish(answer) == ("length" if number == 3 else "stop")
        assert (text(answer) == clean[number]) is (number != 3)
    assert text(ask(server.url, 3, temperature=0.3)) == clean[3]


@pytest.mark.parametrize(
    ("when", "fields", "loops"),
    [
        ("always", {"temperature": 0.9}, True),
        ("greedy", {"temperature": 0.2}, False),
        ("unguarded", {}, False),
        ("unguarded", {"vllm_xargs": {}}, True),
        ("grounded", {}, True),
    ],
)
def test_loops_strike_by_how_a_page_is_asked(
    server: SimulatedServer, when: str, fields: dict[str, Any], loops: bool
) -> None:
    server.set_faults(loops={"share": 1.0, "when": when})
    assert finish(ask(server.url, 1, **fields)) == ("length" if loops else "stop")


def test_struck_pages_come_back_empty_or_as_garbage(server: SimulatedServer) -> None:
    server.set_faults(empty={"images": [sha256(1)]}, garbage={"images": [sha256(2)]})
    assert text(ask(server.url, 1)) == ""
    assert "\ufffd" in text(ask(server.url, 2))
    assert text(ask(server.url, 3)).startswith("<|ref|>title")


def test_the_engine_dies_with_the_nth_request_and_takes_all_in_flight_with_it(mortal: SimulatedServer) -> None:
    mortal.set_faults(die={"at_request": 3})
    answers = ask_all(mortal.url, PAGES[:3])
    assert [a.status_code for a in answers if isinstance(a, httpx.Response)] == [500, 500, 500]
    assert mortal.wait_for_death() == 0  # as the real one's: a supervisor that restarts on failure only does nothing
    assert (mortal.stats().lost, mortal.stats().answered) == (3, 0)


def test_a_server_that_is_lost_answers_nobody(mortal: SimulatedServer) -> None:
    mortal.set_faults(die={"at_request": 2, "manner": "lost"})
    answers = ask_all(mortal.url, PAGES[:2])
    assert all(isinstance(answer, httpx.TransportError) for answer in answers)
    assert mortal.wait_for_death() == -9


def test_out_of_memory_kills_when_the_slots_hold_too_much(mortal: SimulatedServer) -> None:
    mortal.set_faults(oom={"tokens": 1200})
    assert text(ask(mortal.url, 1, max_tokens=200))  # 293 tokens of prompt: alone it fits
    answers = ask_all(mortal.url, PAGES[:4], max_tokens=200)
    assert [a.status_code for a in answers if isinstance(a, httpx.Response)] == [500] * 4
    assert mortal.wait_for_death() == 0


def test_a_poison_page_kills_each_time_and_still_after_a_restart(mortal: SimulatedServer) -> None:
    mortal.set_faults(poison={"images": [sha256(5)]})
    for _ in range(2):
        assert text(ask(mortal.url, 1))
        answer = ask(mortal.url, 5)
        assert answer.status_code == 500
        assert "EngineCore encountered an issue" in answer.text
        mortal.wait_for_death()
        mortal.restart().ready()
    assert mortal.stats().pages[sha256(5)].asked == 2


def test_a_poison_page_kills_a_server_that_hangs_when_it_goes_on(mortal: SimulatedServer) -> None:
    mortal.set_faults(hang=True, poison={"images": [sha256(5)]})
    with pytest.raises(httpx.ReadTimeout):
        ask(mortal.url, 5, timeout=0.3)
    assert _health(mortal) == 200
    mortal.set_faults(hang=None)
    mortal.wait_for_death()


def test_a_fault_that_does_not_exist_is_refused_with_the_list(server: SimulatedServer) -> None:
    with pytest.raises(ValueError, match="no fault 'tired'; there are storm_503"):
        server.set_faults(tired=True)
    with pytest.raises(ValueError, match="settings of hang are an object"):
        server.set_faults(hang={"for_second": 3})


def test_what_is_on_is_shown() -> None:
    faults = Faults()
    faults.update({"storm_503": True, "oom": {"tokens": 5}})
    assert set(faults.shown()) == {"storm_503", "oom"}
    faults.update({"storm_503": False})
    assert set(faults.shown()) == {"oom"}


def _eventually(condition: Any, seconds: float = 10) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)  # between two polls
    return True
