"""The servers' health check: a hung engine is told from an idle, a busy and a new one, on simulated servers."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from ocr_pipeline_tests.deploy.files import DEPLOY
from ocr_pipeline_tests.simulator import SimulatedServer
from ocr_pipeline_tests.simulator.asking import ask

SCRIPT = DEPLOY / "gpu/health.py"


@pytest.fixture(scope="module")
def health() -> ModuleType:
    spec = importlib.util.spec_from_file_location("health", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def mark() -> str:
    """What the simulated server's command line holds, and no other process's."""
    return f"0.32.{uuid.uuid4().int}"


@pytest.fixture
def server(mark: str) -> Iterator[SimulatedServer]:
    with SimulatedServer(vllm_version=mark, seconds_per_page=0.05) as server:
        yield server.ready()


def look(server: SimulatedServer, state: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--url", server.url, "--state", str(state), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def held(server: SimulatedServer) -> bool:
    text = httpx.get(f"{server.url}/metrics", trust_env=False).text
    return any(
        line.startswith("vllm:num_requests_running{") and not line.endswith(" 0.0") for line in text.splitlines()
    )


def hang_with_a_page(server: SimulatedServer, pool: ThreadPoolExecutor) -> None:
    server.set_faults(crawl={"factor": 1e-6})
    pool.submit(ask, server.url, 1, timeout=60)
    while not held(server):
        pass
    server.set_faults(hang={"frozen_gauges": True})


def test_an_idle_server_is_well_however_long_no_token_came(server: SimulatedServer, tmp_path: Path) -> None:
    for _ in range(3):
        assert look(server, tmp_path / "state", "--hung-after", "0").returncode == 0


def test_a_server_that_runs_requests_and_gives_no_token_is_hung_while_its_health_page_says_200(
    server: SimulatedServer, mark: str, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    with ThreadPoolExecutor(1) as pool:
        hang_with_a_page(server, pool)
        assert httpx.get(f"{server.url}/health", trust_env=False).status_code == 200
        assert look(server, state, "--hung-after", "3600").returncode == 0  # busy so far
        remembered = json.loads(state.read_text())
        state.write_text(json.dumps({**remembered, "since": remembered["since"] - 3601}))
        verdict = look(server, state, "--hung-after", "3600")
        assert verdict.returncode == 1
        assert "hung: 1 requests are held" in verdict.stdout
        assert server.alive  # only told to does it end anything

        state.write_text(json.dumps({**remembered, "since": remembered["since"] - 3601}))
        verdict = look(server, state, "--hung-after", "3600", "--end-a-hung-server", "--server", mark)
        assert verdict.returncode == 1
        assert server.wait_for_death() == -9


def test_a_server_that_is_gone_is_unwell_and_nothing_is_ended(
    server: SimulatedServer, mark: str, tmp_path: Path
) -> None:
    server.kill()
    verdict = look(server, tmp_path / "state", "--end-a-hung-server", "--server", mark)
    assert verdict.returncode == 1
    assert "ending" not in verdict.stdout


def silent(server: SimulatedServer) -> None:
    """Its port still takes connections, as the system does that; nobody answers them."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)


def test_a_server_that_answered_once_and_then_never_is_ended(
    server: SimulatedServer, mark: str, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    flags = ("--timeout", "0.5", "--hung-after", "3600", "--end-a-hung-server", "--server", mark)
    assert look(server, state, *flags).returncode == 0
    silent(server)
    verdict = look(server, state, *flags)
    assert verdict.returncode == 1
    assert "no answer" in verdict.stdout
    assert server.alive  # not yet: it may be busy
    remembered = json.loads(state.read_text())
    state.write_text(json.dumps({**remembered, "silent_since": remembered["silent_since"] - 3601}))
    verdict = look(server, state, *flags)
    assert verdict.returncode == 1
    assert "hung: it has answered nothing for 36" in verdict.stdout
    assert server.wait_for_death() == -9


def test_an_answer_between_ends_the_silence(health: ModuleType) -> None:
    state, _ = health.judge_silence({"answered": True, "generated": 5.0, "since": None}, 0.0, 60)
    state, _ = health.judge({**state}, 0, 5.0, 59.0, 60)
    _, wrong = health.judge_silence({**state, "answered": True}, 61.0, 60)
    assert wrong is None


def test_a_server_that_never_answered_starts_up_and_is_not_ended(
    server: SimulatedServer, mark: str, tmp_path: Path
) -> None:
    silent(server)
    flags = ("--timeout", "0.5", "--hung-after", "0", "--end-a-hung-server", "--server", mark)
    for _ in range(2):
        assert look(server, tmp_path / "state", *flags).returncode == 1
    assert server.alive


def test_what_an_earlier_start_of_the_container_left_is_not_believed(
    server: SimulatedServer, mark: str, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.write_text(json.dumps({"answered": True, "silent_since": 1.0, "life": "another"}))
    silent(server)
    flags = ("--timeout", "0.5", "--hung-after", "60", "--end-a-hung-server", "--server", mark)
    assert look(server, state, *flags).returncode == 1
    assert server.alive


def test_whether_flash_attention_is_loaded_is_told_and_changes_no_verdict(
    server: SimulatedServer, tmp_path: Path
) -> None:
    without = look(server, tmp_path / "state")
    assert without.returncode == 0
    assert without.stdout.startswith("well; Flash Attention: not loaded")
    library = tmp_path / "_vllm_fa2_C.abi3.so"
    library.write_bytes(bytes(4096))
    load = "import mmap, sys; f = open(sys.argv[1]); m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{load}; print(flush=True); input()", str(library)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as engine:
        assert engine.stdout
        engine.stdout.readline()
        told = look(server, tmp_path / "state")
        engine.communicate("\n")
    assert told.returncode == 0
    assert told.stdout == "well; Flash Attention: _vllm_fa2_C.abi3.so\n"


def test_tokens_that_move_start_the_clock_anew(health: ModuleType) -> None:
    state, wrong = health.judge({}, 3, 100, 0.0, 60)
    assert wrong is None
    state, wrong = health.judge(state, 3, 101, 59.0, 60)
    assert wrong is None
    state, wrong = health.judge(state, 3, 101, 118.0, 60)
    assert wrong is None  # 59 s
    state, wrong = health.judge(state, 3, 101, 119.0, 60)
    assert wrong is not None


def test_a_restarted_server_is_given_its_own_time(health: ModuleType) -> None:
    _, wrong = health.judge({"generated": 900.0, "since": 0.0}, 2, 0.0, 1000.0, 60)
    assert wrong is None


@pytest.mark.parametrize("text", ["", "# only comments\n", "vllm:num_requests_running{} not-a-number\n", "\x00\xff"])
def test_an_answer_that_is_not_vllms_is_unwell(health: ModuleType, text: str) -> None:
    assert health.total(text, health.RUNNING) is None
    assert health.judge({}, None, None, 0.0, 60)[1] is not None


def test_the_engines_of_one_server_are_added_up(health: ModuleType) -> None:
    text = 'vllm:num_requests_running{engine="0"} 2.0\nvllm:num_requests_running{engine="1"} 3.0 1700000000\n'
    assert health.total(text, "vllm:num_requests_running") == 5.0
