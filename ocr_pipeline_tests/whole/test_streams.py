"""stdout and stderr that are closed, full, or that nobody reads: work goes on, and a lost result is an error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ocr_pipeline_tests.pdfs import numbered

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def papers(tmp_path: Path) -> Path:
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "good.pdf").write_bytes(numbered(1, "good"))
    (folder / "bad.pdf").write_bytes(b"no PDF")
    return folder


@pytest.fixture
def nobody_reads() -> Iterator[int]:
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


def _run(
    tmp_path: Path, *arguments: str, redirections: str = "", stderr: int | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f'exec "$0" -m ocr_pipeline "$@" {redirections}', sys.executable, *arguments],
        env={**os.environ, "OCR_DATA": str(tmp_path / "data"), "OCR_CPU_ENGINE": "text_layer"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if stderr is None else stderr,
        text=True,
        cwd=tmp_path,
        timeout=90,
    )


def test_ingest_goes_on_to_its_end_where_nobody_reads_its_progress(
    tmp_path: Path, papers: Path, nobody_reads: int
) -> None:
    done = _run(tmp_path, "ingest", str(papers), stderr=nobody_reads)  # "rejected: …" is told on stderr
    assert done.returncode == 1
    assert "2 documents, 1 page: 1 ok" in done.stdout


@pytest.mark.parametrize("redirections", ["2>/dev/full", "2>&-", "<&- 2>&-"])
def test_ingest_goes_on_to_its_end_where_its_progress_cannot_be_written(
    tmp_path: Path, papers: Path, redirections: str
) -> None:
    done = _run(tmp_path, "ingest", str(papers), redirections=redirections)
    assert "2 documents, 1 page: 1 ok" in done.stdout


def test_a_command_with_all_three_streams_closed_does_its_work(tmp_path: Path, papers: Path) -> None:
    assert _run(tmp_path, "ingest", str(papers / "good.pdf"), redirections="<&- >&- 2>&-").returncode == 0
    assert "in the tables, ok" in _run(tmp_path, "status", "good.pdf").stdout


@pytest.mark.parametrize("json", [[], ["--json"]])
def test_a_result_that_cannot_be_written_is_an_error_in_one_sentence(tmp_path: Path, json: list[str]) -> None:
    done = _run(tmp_path, "doctor", *json, redirections=">/dev/full")
    assert done.returncode == 2
    assert done.stderr == "Error: the result cannot be written to stdout: No space left on device\n"


def test_a_reader_of_the_result_may_leave_early(tmp_path: Path) -> None:
    assert _run(tmp_path, "doctor", redirections="| true").stderr == ""


def test_a_full_disk_is_told_in_one_sentence(tmp_path: Path, papers: Path) -> None:
    """As where a disk is full: no file may grow beyond 64 kB, and Dagster's history is larger."""
    assert _run(tmp_path, "status", "a").returncode == 1  # makes the history
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 128; exec "$0" -m ocr_pipeline ingest "$1"', sys.executable, str(papers)],
        env={**os.environ, "OCR_DATA": str(tmp_path / "data"), "OCR_CPU_ENGINE": "text_layer"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=90,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Error: Dagster's history cannot be read or written" in done.stderr


STANDS = """
import signal, sys, time
from ocr_pipeline.commands import interrupts
interrupts.watch()
signal.signal(signal.SIGINT, lambda *_: print("noted", flush=True))  # as where something waits that no Ctrl-C reaches
print("ready", flush=True)
while True:
    time.sleep(60)
"""


def _full_pipe(stack: ExitStack) -> int:
    reading, writing = os.pipe()
    stack.callback(os.close, reading)
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, bytes(4096))
    except BlockingIOError:
        os.set_blocking(writing, True)
    return writing


def _broken_pipe(stack: ExitStack) -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize("stderr", [_full_pipe, _broken_pipe])
def test_a_second_ctrl_c_ends_a_command_that_cannot_say_so(stderr: Callable[[ExitStack], int]) -> None:
    with ExitStack() as stack:
        writing = stderr(stack)
        stack.callback(os.close, writing)
        process = stack.enter_context(
            subprocess.Popen([sys.executable, "-c", STANDS], stdout=subprocess.PIPE, stderr=writing)
        )
        stack.callback(process.kill)
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.readline()  # two signals at once are one
        process.send_signal(signal.SIGINT)
        assert _code(process) == 130


def _code(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        return None
