"""The worker process: it may be killed at any time, and never outlives the one it works for."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from ocr_pipeline.pdf.isolation import IsolatedWorker
from ocr_pipeline.pdf.renderer import RenderedPage, Renderer, RendererClosed, RenderLimits
from ocr_pipeline.records import Geometry

from . import pdfs


def wait_until(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def workers(parent: int | None = None) -> set[int]:
    """Ids of the worker processes that this process, or another one, has started."""
    found = set()
    for child in psutil.Process(parent).children():
        with contextlib.suppress(psutil.Error):
            if "ocr_pipeline.pdf.worker" in child.cmdline():
                found.add(child.pid)
    return found


def drawing() -> int | None:
    """A worker with a pdftoppm below it."""
    for pid in workers():
        with contextlib.suppress(psutil.Error):
            if any(child.name() == "pdftoppm" for child in psutil.Process(pid).children()):
                return pid
    return None


def kill_when_poppler_draws(times: int) -> threading.Thread:
    """Kill so many workers, each while pdftoppm runs below it."""

    def killer() -> None:
        killed: set[int] = set()

        def killed_enough() -> bool:
            pid = drawing()
            if pid is not None and pid not in killed:
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
            return len(killed) == times

        wait_until(killed_enough)

    thread = threading.Thread(target=killer, daemon=True)
    thread.start()
    return thread


def test_a_worker_killed_between_calls_is_replaced(renderer: Renderer, pdf: Path, geometry: Geometry) -> None:
    pdfs.book(pdf, [["one"], ["two"]])
    before = renderer.render(pdf, 1, 2, geometry)
    for pid in workers():
        os.kill(pid, signal.SIGKILL)
    assert renderer.inspect(pdf).page_count == 2
    assert renderer.render(pdf, 1, 2, geometry) == before


DASHES = pdfs.stream(b"[0.01 0.01] 0 d 0.001 w\n" + b"0 0 m 595 842 l S\n" * 20, compress=True)
"""Takes poppler about a second: long enough to be killed in."""


def test_one_kill_while_a_page_is_drawn_costs_nothing(with_poppler: Renderer, pdf: Path, geometry: Geometry) -> None:
    pages = [pdfs.TEXT_PAGE, b"/MediaBox[0 0 595 842]", pdfs.TEXT_PAGE]
    pdf.write_bytes(pdfs.pages(pages, [pdfs.TEXT, DASHES, pdfs.TEXT]))
    undisturbed = with_poppler.render(pdf, 1, 3, geometry)
    assert all(isinstance(page, RenderedPage) for page in undisturbed)
    thread = kill_when_poppler_draws(1)
    assert with_poppler.render(pdf, 1, 3, geometry) == undisturbed
    thread.join(30)
    assert not thread.is_alive()


def test_a_page_whose_worker_is_killed_again_and_again_is_drawn_by_the_other_library(
    with_poppler: Renderer, pdf: Path, geometry: Geometry
) -> None:
    pages = [b"/MediaBox[0 0 595 842]", pdfs.TEXT_PAGE]
    pdf.write_bytes(pdfs.pages(pages, [DASHES, pdfs.TEXT]))
    thread = kill_when_poppler_draws(2)
    first, second = with_poppler.render(pdf, 1, 2, geometry)
    thread.join(30)
    assert not thread.is_alive()
    assert isinstance(first, RenderedPage)
    assert isinstance(second, RenderedPage)
    assert (first.renderer, second.renderer) == ("pdfium", "poppler")


WORKER_THAT_DIES_BEFORE_THE_END = """
import sys
from ocr_pipeline.pdf import frames
say = sys.stdout.buffer
say.write(frames.pack({"ready": True}))
say.flush()
asked = bytearray()
while (request := frames.take(asked)) is None:
    asked += sys.stdin.buffer.read1()
for page in request[0]["pages"]:
    say.write(frames.pack({"page": page}))
"""


def test_a_worker_that_dies_right_after_its_last_page_has_read_all_of_them(
    pdf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pdf.write_bytes(b"%PDF-")
    code, program = tmp_path / "worker.py", tmp_path / "python"
    code.write_text(WORKER_THAT_DIES_BEFORE_THE_END)
    program.write_text(f"#!/bin/sh\nexec {sys.executable} {code}\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    worker = IsolatedWorker(1 << 30)
    try:
        answers = worker.ask_pages("layers", worker.document(pdf), [1, 2], 30)
    finally:
        worker.close()
    assert answers == {1: ({"page": 1}, b""), 2: ({"page": 2}, b"")}


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which workers make theirs."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_closing_leaves_no_process_and_no_file(pdf: Path, geometry: Geometry, scratch: Path) -> None:
    pdfs.book(pdf, [["one"]])
    others = workers()
    renderer = Renderer(RenderLimits())
    renderer.render(pdf, 1, 1, geometry)
    assert len(workers() - others) == len(list(scratch.iterdir())) == 1
    renderer.close()
    assert workers() <= others
    assert list(scratch.iterdir()) == []


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("with_poppler")
def test_closing_ends_the_call_under_way_and_no_other_worker_is_started(
    pdf: Path, geometry: Geometry, scratch: Path
) -> None:
    pdf.write_bytes(pdfs.pages([b"/MediaBox[0 0 595 842]"] * 50, [DASHES] * 50))
    others = workers()
    renderer = Renderer(RenderLimits())
    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(renderer.render, pdf, 1, 50, geometry)
        wait_until(lambda: drawing() is not None)
        renderer.close()
        assert workers() <= others
        assert list(scratch.iterdir()) == []
        with pytest.raises(RendererClosed):
            call.result()
        assert workers() <= others
    with pytest.raises(RendererClosed):
        renderer.inspect(pdf)
    assert workers() <= others


def test_a_worker_that_cannot_be_started_leaves_no_file(
    pdf: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pdfs.book(pdf, [["one"]])
    monkeypatch.setattr("sys.executable", str(scratch / "no python"))
    with Renderer(RenderLimits()) as renderer, pytest.raises(FileNotFoundError):
        renderer.inspect(pdf)
    assert list(scratch.iterdir()) == []


PARENT = """
import sys
from pathlib import Path
from ocr_pipeline.pdf.renderer import RenderLimits, Renderer
from ocr_pipeline.records import Geometry
renderer = Renderer(RenderLimits(seconds=300))
renderer.inspect(Path(sys.argv[1]))
print("ready", flush=True)
renderer.render(Path(sys.argv[1]), 1, 1, Geometry(150, 1920, 1280))
"""


@pytest.mark.parametrize("poppler", [True, False])
def test_a_killed_parent_leaves_no_worker_no_poppler_and_no_file(
    with_poppler: Renderer, pdf: Path, scratch: Path, poppler: bool
) -> None:
    entry, content = pdfs.slow_page(5)
    pdf.write_bytes(pdfs.pages([entry], [content], [pdfs.SLOW_PATTERN]))
    environment = {**os.environ, "TMPDIR": str(scratch)}
    if not poppler:
        environment["PATH"] = str(scratch)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(pdf)], stdout=subprocess.PIPE, env=environment, text=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    (pid,) = workers(parent.pid)
    worker = psutil.Process(pid)
    if poppler:
        wait_until(lambda: any(child.name() == "pdftoppm" for child in worker.children()))
    else:
        start = sum(worker.cpu_times()[:2])
        wait_until(lambda: sum(worker.cpu_times()[:2]) > start + 0.2)
    family = [worker, *worker.children()]
    parent.kill()
    parent.wait()
    wait_until(lambda: all(gone(process.pid) for process in family), seconds=10)
    wait_until(lambda: not list(scratch.iterdir()))


def test_a_worker_is_given_no_secret(pdf: Path, geometry: Geometry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTHERDUCK_TOKEN", "hush")
    pdfs.book(pdf, [["one"]])
    others = workers()
    with Renderer(RenderLimits()) as renderer:
        renderer.inspect(pdf)
        (pid,) = workers() - others
        assert "MOTHERDUCK_TOKEN" not in psutil.Process(pid).environ()


def test_a_memory_limit_in_which_no_worker_can_start_is_no_pdf_s_fault(pdf: Path) -> None:
    pdfs.book(pdf, [["one"]])
    with (
        Renderer(RenderLimits(memory_bytes=1 << 20)) as renderer,
        pytest.raises(RuntimeError, match="OCR_RENDER_MEMORY"),
    ):
        renderer.inspect(pdf)


def test_a_long_file_is_read_range_by_range(renderer: Renderer, pdf: Path) -> None:
    """120 pages, past the point where PDFium's document is opened anew."""
    pdfs.book(pdf, [[f"page {number}"] for number in range(1, 121)])
    small = Geometry(dpi=40, max_long_side=1920, max_short_side=1280)
    texts = []
    for first in range(1, 121, 16):
        pages = renderer.render(pdf, first, min(120, first + 15), small)
        texts += [page.text_layer.strip() for page in pages if isinstance(page, RenderedPage)]
    assert texts == [f"page {number}" for number in range(1, 121)]


@pytest.mark.slow
def test_the_worker_s_memory_does_not_grow_with_the_file(
    pdf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dense pages, of each of which PDFium would keep 90 kB for as long as the document is open."""
    line = "Some words that fill a line of the page, as a book does it. " * 2
    pdfs.book(pdf, [[f"{number} {row} {line}" for row in range(48)] for number in range(1, 301)])
    memory = []
    others = workers()
    monkeypatch.setenv("PATH", str(tmp_path))  # without poppler
    with Renderer(RenderLimits()) as renderer:
        for first in range(1, 301, 100):
            pages = renderer.render(pdf, first, first + 99, Geometry(150, 1920, 1280))
            assert all(isinstance(page, RenderedPage) for page in pages)
            (pid,) = workers() - others
            memory.append(psutil.Process(pid).memory_info().rss)
    assert memory[-1] < memory[0] + (12 << 20)
