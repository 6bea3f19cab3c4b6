"""Where the client's CPU time goes, part by part: `python -m benchmarks.parts [--pages-up-to 20]`.

The mix goes through the flow in this process, without Dagster, against simulated servers: draw and read, Parquet,
load. CPU time comes from the system, thread by thread in nanoseconds (`schedstat`) and process by process, so nothing
is slowed by being watched. What threads spent that ended between two looks is the process' own time less that of the
threads seen, and stands as a part of its own; Parquet and load are the whole process', DuckDB's threads among it.
About a minute. Linux only.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks import papers, pipeline
from benchmarks.measure import report
from ocr_pipeline import wiring
from ocr_pipeline.flow import loading, publishing
from ocr_pipeline.intake import inbox, sources
from ocr_pipeline.lake import planner
from ocr_pipeline.settings import Settings


class Clocks:
    """CPU seconds of this process' threads by name, and of its render workers; the last look at each counts."""

    def __init__(self) -> None:
        self._threads: dict[int, tuple[str, float]] = {}
        self._before = {thread: _seconds_of(thread) for thread in _threads()}
        self._workers: dict[int, tuple[float, float]] = {}
        self._over = threading.Event()
        self._started = time.process_time()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="clocks")
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            self._look()

    def _look(self) -> None:
        names = {thread.native_id: thread.name.rsplit("_", 1)[0] for thread in threading.enumerate()}
        for thread in _threads():
            known = self._threads.get(thread, ("not Python's", 0.0))[0]
            spent = _seconds_of(thread) - self._before.get(thread, 0.0)
            self._threads[thread] = (names.get(thread, known), spent)
        for child in psutil.Process().children():
            try:
                if any("ocr_pipeline.pdf.worker" in word for word in child.cmdline()):
                    times = child.cpu_times()
                    own, below = times.user + times.system, times.children_user + times.children_system
                    self._workers[child.pid] = (own, below)
            except psutil.Error:
                continue

    def stop(self) -> dict[str, float]:
        """Seconds by part, from the making of this object until now."""
        self._over.set()
        self._thread.join()
        self._look()
        whole = time.process_time() - self._started
        found: defaultdict[str, float] = defaultdict(float)
        for name, seconds in self._threads.values():
            found[f"thread: {name}"] += seconds
        found["threads that ended between two looks"] = max(0.0, whole - sum(found.values()))
        found.pop("thread: clocks", None)  # ours
        found["render worker (ink, text layer, pipes)"] = sum(own for own, _ in self._workers.values())
        found["poppler"] = sum(below for _, below in self._workers.values())
        return dict(found)


def _threads() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/task")]


def _seconds_of(thread: int) -> float:
    """On a core, to the nanosecond; the system's usual counters of a thread know only hundredths of a second."""
    try:
        return int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[0]) / 1e9
    except OSError:  # it has ended
        return 0.0


@contextmanager
def timed(into: dict[str, float], name: str) -> Iterator[None]:
    started = time.process_time()
    yield
    into[name] = time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages-up-to", type=int, default=20)
    parser.add_argument("--seconds-per-page", type=float, default=0.2)
    parser.add_argument(
        "--without-poppler", action="store_true", help="PDFium alone draws, as where poppler is missing"
    )
    parser.add_argument("--profile", action="store_true", help="cProfile of the event loop's thread, printed")
    arguments = parser.parse_args()
    if arguments.without_poppler:
        os.environ["PATH"] = str(Path(sys.executable).parent)
    documents = papers.mix([size for size in papers.SIZES if size <= arguments.pages_up_to])
    pages = sum(map(papers.page_count, documents))
    with pipeline.fleet(arguments.seconds_per_page) as servers, pipeline.scratch() as folder:
        (folder / "backends.toml").write_text(pipeline.backends_toml(servers))
        settings = Settings().model_copy(
            update={
                "data": folder,
                "lake": str(folder / "lake"),
                "warehouse": str(folder / "warehouse.duckdb"),
                "backends": folder / "backends.toml",
            }
        )
        found = measure(settings, documents, arguments.profile)
    total = sum(found.values())
    rows = [(name, seconds / pages * 1000, seconds / total) for name, seconds in found.items()]
    rows.sort(key=lambda row: -row[1])
    rows.append(("all", total / pages * 1000, 1.0))
    name, drawn_by = ("parts_without_poppler", "PDFium") if arguments.without_poppler else ("parts", "poppler")
    report(
        name,
        f"Where the time goes: {pages} pages, {drawn_by}, without Dagster",
        ("part", "CPU ms a page", "share"),
        rows,
        pages=pages,
    )


def measure(settings: Settings, documents: list[Path], profile: bool) -> dict[str, float]:
    lake = wiring.lake(settings)
    found = sources.find(documents, wiring.places(settings))
    uploads = [inbox.put(lake, source) for source in found.sources]
    batch = planner.plan(uploads, set(), planner.BatchLimits(10_000, 2**40, 1)).batches[0]
    service = wiring.ocr_service(settings)
    clocks = Clocks()
    if profile:
        _profile_the_loop(service, lambda: service.run(batch))
    else:
        service.run(batch)
    parts = clocks.stop()
    with timed(parts, "Parquet"):
        publishing.publish(lake, batch)
    with timed(parts, "load"):
        loading.load(lake, wiring.warehouse(settings), batch)
    service.close()
    return parts


def _profile_the_loop(service: object, work: object) -> None:
    import cProfile
    import pstats

    watch = cProfile.Profile(time.thread_time)
    loop = service._loop  # type: ignore[attr-defined]
    loop.call_soon_threadsafe(watch.enable)
    work()  # type: ignore[operator]
    done = threading.Event()
    loop.call_soon_threadsafe(lambda: (watch.disable(), done.set()))
    done.wait()
    pstats.Stats(watch).sort_stats("tottime").print_stats(35)


if __name__ == "__main__":
    main()
