"""Servers as processes: slots, sameness, kill, restart, and that none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from ocr_pipeline_tests.simulator import Fleet, SimulatedServer
from ocr_pipeline_tests.simulator.asking import ask, ask_all, sha256, text


def test_no_more_pages_are_read_at_once_than_there_are_slots() -> None:
    with SimulatedServer(seconds_per_page=0.1, max_num_seqs=3) as server:
        answers = ask_all(server.url, range(12))
    stats = server.stats()
    assert all(text(answer) for answer in answers)
    assert (stats.requests, stats.answered, stats.max_running) == (12, 12, 3)
    assert stats.max_waiting >= 1
    assert stats.busy_slot_seconds > 12 * 0.1 * 0.95  # two clocks: one stamps, one waits
    assert stats.busy_share is not None
    assert 0 < stats.busy_share <= 1


def test_the_stats_over_http_are_those_of_the_journal() -> None:
    with SimulatedServer(speed=500) as server:
        for number in (1, 2, 1):
            ask(server.url, number)
        shown = httpx.get(f"{server.url}/sim/stats", trust_env=False).json()
        stats = server.stats()
    assert shown["order"] == stats.order == [sha256(1), sha256(2), sha256(1)]
    assert shown["ids"] == ["page-1", "page-2", "page-1"]
    assert shown["asked_more_than_once"] == stats.asked_more_than_once == 1
    assert shown["pages"][sha256(1)]["asked"] == 2


def test_a_fleet_of_which_one_does_not_start_says_so_and_leaves_none_running() -> None:
    fleet = Fleet(good={}, bad={"speed": 0})
    with pytest.raises(RuntimeError, match="the simulated server did not start"), fleet:
        raise AssertionError("the fleet must not be entered")
    assert not any(server.alive for server in fleet)


def test_unlike_servers_give_the_same_text_for_the_same_page() -> None:
    with Fleet(small={"profile": "rtx-4090", "speed": 500}, large={"profile": "dgx-spark", "speed": 500}) as fleet:
        texts = [[text(answer) for answer in ask_all(server.url, range(6))] for server in fleet]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) == 6


def test_a_killed_server_loses_its_connections_and_comes_back_at_the_same_address() -> None:
    with SimulatedServer(seconds_per_page=30) as server:
        url = server.url
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(ask_all, url, [1, 2])
            _until(lambda: server.stats().max_running == 2)
            server.kill()
            assert all(isinstance(answer, httpx.TransportError) for answer in asked.result())
        with pytest.raises(httpx.ConnectError):
            ask(url, 1)
        server.restart_after(0.1).join()
        server.ready()
        assert server.url == url
        stats = server.stats()
    assert (stats.lives, stats.lost, stats.requests) == (2, 2, 2)


def test_a_server_that_is_kept_alive_is_restarted_after_each_death() -> None:
    with SimulatedServer(speed=500) as server:
        server.keep_alive(0.05)
        for _ in range(2):
            before = server.pid
            assert before is not None
            os.kill(before, signal.SIGKILL)
            _until(lambda before=before: server.pid not in (None, before))  # type: ignore[misc]
            assert text(ask(server.ready().url, 1))
    assert not server.alive


def test_a_stopped_server_answers_those_in_flight_with_500() -> None:
    with SimulatedServer(seconds_per_page=30) as server, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, server.url, 1)
        _until(lambda: server.stats().max_running == 1)
        server.stop()
        assert asked.result().status_code == 500


def test_no_server_outlives_the_process_that_started_it() -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", "from ocr_pipeline_tests.simulator import SimulatedServer as S; import time\n"
         "s = S().start(); print(s.pid, flush=True); time.sleep(60)"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    pid = int(holder.stdout.readline())
    holder.kill()
    holder.wait()
    holder.stdout.close()
    _until(lambda: not _exists(pid))


def _until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)  # between two polls


def _exists(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_fleet_writes_the_backends_file_that_lists_it() -> None:
    with Fleet(rtx4090={"profile": "rtx-4090-as-asked"}, spark={"profile": "dgx-spark"}) as fleet:
        config = tomllib.loads(fleet.backends_toml("fastest", max_in_flight=3))
        assert config["policy"] == "fastest"
        assert [backend["gpu"] for backend in config["backend"]] == ["rtx-4090", "dgx-spark"]
        assert [backend["url"] for backend in config["backend"]] == [server.url for server in fleet]
        assert config["backend"][0]["max_in_flight"] == 3


@pytest.mark.parametrize(
    "flags", [["--profile", "abacus"], ["--kv-tokens", "100"], ["--speed", "0"], ["--faults", '{"tired": true}']]
)
def test_options_that_make_no_sense_are_refused(flags: list[str]) -> None:
    command = [sys.executable, "-m", "ocr_pipeline_tests.simulator", *flags]
    run = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert run.returncode == 2
    assert "error: " in run.stderr
    assert "http" not in run.stdout


def test_an_older_release_refuses_what_the_newer_one_clamps() -> None:
    with SimulatedServer(vllm_version="0.30.0", speed=500) as server:
        refused = ask(server.url, 1, max_tokens=8190)
        assert refused.status_code == 400
        assert "However, you requested 8190 output tokens" in refused.json()["error"]["message"]
        assert ask(server.url, 1, max_tokens=7192).status_code == 200
