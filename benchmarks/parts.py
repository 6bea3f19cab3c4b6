"""Where the client's CPU time goes, part by part: `python -m benchmarks.parts [--pages-up-to 20]`.

The mix goes through the flow in this process, without Dagster, against simulated servers: draw and read, Parquet,
load. CPU time comes from the system, thread by thread and process by process, so nothing is slowed by being watched.
"""

from __future__ import annotations

import argparse
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
from ocr_pipeline.flow import tables
from ocr_pipeline.intake import inbox
from ocr_pipeline.lake import planner
from ocr_pipeline.settings import Settings


class Clocks:
    """CPU seconds of this process' threads by name, and of its render workers; the last look at each counts."""

    def __init__(self) -> None:
        self._threads: dict[int, tuple[str, float]] = {}
        self._workers: dict[int, tuple[float, float]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="clocks")
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            self.look()

    def look(self) -> None:
        names = {thread.native_id: thread.name.rsplit("_", 1)[0] for thread in threading.enumerate()}
        me = psutil.Process()
        for thread in me.threads():
            known = self._threads.get(thread.id, ("another", 0.0))[0]
            self._threads[thread.id] = (names.get(thread.id, known), thread.user_time + thread.system_time)
        for child in me.children():
            try:
                if any("ocr_pipeline.pdf.worker" in word for word in child.cmdline()):
                    times = child.cpu_times()
                    own, below = times.user + times.system, times.children_user + times.children_system
                    self._workers[child.pid] = (own, below)
            except psutil.Error:
                continue

    def seconds(self) -> dict[str, float]:
        found: defaultdict[str, float] = defaultdict(float)
        for name, seconds in self._threads.values():
            found[f"thread: {name}"] += seconds
        found["render worker (ink, text layer, pipes)"] = sum(own for own, _ in self._workers.values())
        found["poppler"] = sum(below for _, below in self._workers.values())
        return dict(found)


@contextmanager
def timed(into: dict[str, float], name: str) -> Iterator[None]:
    started = time.thread_time()
    yield
    into[name] = time.thread_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages-up-to", type=int, default=20)
    parser.add_argument("--seconds-per-page", type=float, default=0.2)
    parser.add_argument("--profile", action="store_true", help="cProfile of the event loop's thread, printed")
    arguments = parser.parse_args()
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
    report("parts", f"{pages} pages, without Dagster", ("part", "CPU ms a page", "share"), rows, pages=pages)


def measure(settings: Settings, documents: list[Path], profile: bool) -> dict[str, float]:
    lake = wiring.lake(settings)
    found, _ = inbox.sources(documents, settings.inbox)
    uploads = [inbox.put(lake, source) for source in found]
    batch = planner.plan(uploads, set(), planner.Limits(10_000, 2**40, 1)).batches[0]
    service = wiring.ocr_service(settings)
    before = time.thread_time()
    clocks = Clocks()
    if profile:
        _profile_the_loop(service, lambda: service.run(batch))
    else:
        service.run(batch)
    clocks.look()
    parts = clocks.seconds()
    own = time.thread_time() - before
    parts["thread: MainThread"] = own
    parts.pop("thread: clocks", None)
    parts.pop("thread: another", None)
    with timed(parts, "Parquet"):
        tables.publish(lake, batch, tables.results(lake, batch))
    with timed(parts, "load"):
        tables.load(lake, wiring.warehouse(settings), batch)
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
