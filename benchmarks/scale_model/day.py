"""A day as a discrete-event simulation: uploads arrive, the sensor cuts batches, the queue launches runs, cores draw,
GPUs read, the warehouse loads; how long each PDF takes to its rows. Pure: the same seed gives the same day.

Events are the sensor's ticks, the queue's ticks and the ends of runs. Cores and GPUs are servers that take the runs in
the order of their launch, since older batches go first in the pipeline too; so a page is not an event, and ten million
PDFs take seconds.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.scale_model.constants import Constants

DAY = 86_400.0
MORNING, EVENING = 8 * 3600.0, 17 * 3600.0


@dataclass(frozen=True, slots=True)
class Setup:
    """What the day meets. The defaults are the pipeline as it is installed: one machine of two cores, the two GPUs."""

    pairs: int = 1  # of the two GPU machines
    cores: int = 2
    places: int = 2  # runs at once: max_concurrent_runs
    loaded: bool = False  # runs in processes that stay (the command, Celery workers)
    cores_a_run: int = 4  # a run is one process on one machine, with so many render workers
    one_writer: bool = True  # a DuckDB file, which one load at a time locks; MotherDuck takes several


@dataclass(slots=True)
class Outcome:
    """What came of it. `waits`: seconds from upload to rows, with the number of PDFs that waited so long."""

    waits: list[tuple[float, int]] = field(default_factory=list)
    batches: int = 0
    unfinished: int = 0  # PDFs without rows when the simulation ended
    ended: float = 0.0  # s, when the last run ended
    gpu_seconds: float = 0.0  # of one pair
    cpu_seconds: float = 0.0
    locked_seconds: float = 0.0

    def percentile(self, share: float) -> float:
        """Seconds within which this share of all PDFs has its rows; infinite where they have not."""
        left = share * (self.unfinished + sum(count for _, count in self.waits))
        for wait, count in sorted(self.waits):
            left -= count
            if left <= 0:
                return wait
        return float("inf")


Arrivals = Sequence[tuple[float, int]]  # seconds since midnight, PDFs at that time; in order


def of_a_day(pdfs: int, constants: Constants, seed: int = 1) -> Arrivals:
    """A day's uploads: two thirds of them in working hours, each part evenly but by chance. Many at once are one entry
    a second, so that ten million are 86,400 entries."""
    dice = random.Random(seed)
    by_day = round(pdfs * constants.by_day)
    night = DAY - (EVENING - MORNING)
    if pdfs <= 200_000:
        times = [dice.uniform(MORNING, EVENING) for _ in range(by_day)]
        times += [(EVENING + dice.uniform(0, night)) % DAY for _ in range(pdfs - by_day)]
        return [(time, 1) for time in sorted(times)]
    found = []
    carried = 0.0
    for second in range(int(DAY)):
        working = MORNING <= second < EVENING
        carried += by_day / (EVENING - MORNING) if working else (pdfs - by_day) / night
        found.append((float(second), int(carried)))
        carried -= int(carried)
    return [(time, count) for time, count in found if count]


def simulate(
    arrivals: Arrivals, constants: Constants, setup: Setup, *, pages_a_pdf: float | None = None, until: float = 2 * DAY
) -> Outcome:
    """The pipeline over these arrivals, until all have rows or `until` seconds have passed."""
    return _Day(constants, setup, constants.pages_a_pdf if pages_a_pdf is None else pages_a_pdf).run(arrivals, until)


class _Day:
    def __init__(self, constants: Constants, setup: Setup, pages_a_pdf: float) -> None:
        self.c, self.setup, self.pages_a_pdf = constants, setup, pages_a_pdf
        self.outcome = Outcome()
        self._new: deque[tuple[float, int]] = deque()  # uploads in no batch yet
        self._queued: deque[list[tuple[float, int]]] = deque()  # batches without a run that was launched
        self._running = 0
        self._cores_free = self._gpus_free = self._lock_free = 0.0
        self._events: list[tuple[float, int, str]] = []
        self._order = itertools.count()
        self._ends: dict[int, list[tuple[float, int]]] = {}

    def run(self, arrivals: Arrivals, until: float) -> Outcome:
        coming = deque(arrivals)
        start = coming[0][0] if coming else 0.0
        self._at(start + self.c.sensor_seconds / 2, "sensor")
        self._at(start + self.c.queue_seconds / 3, "queue")
        while self._events:
            now, order, what = heapq.heappop(self._events)
            if now > until:
                break
            if what == "end":
                self._end(now, self._ends.pop(order))
            elif what == "sensor":
                while coming and coming[0][0] <= now - self.c.settle_seconds:
                    self._new.append(coming.popleft())
                self._cut()
                if coming or self._new:
                    self._at(now + self.c.sensor_seconds, "sensor")
            else:
                while self._queued and self._running < self.setup.places:
                    self._launch(now, self._queued.popleft())
                if coming or self._new or self._queued:
                    self._at(now + self.c.queue_seconds, "queue")
        left: Iterable[tuple[float, int]] = itertools.chain(coming, self._new, *self._queued, *self._ends.values())
        self.outcome.unfinished = sum(count for _, count in left)
        return self.outcome

    def _at(self, time: float, what: str) -> int:
        order = next(self._order)
        heapq.heappush(self._events, (time, order, what))
        return order

    def _cut(self) -> None:
        """Batches of what is there; one that is not full waits while runs are queued (`hold_partial`)."""
        ready = sum(count for _, count in self._new)
        busy = bool(self._queued)
        for _ in range(self.c.batches_a_tick):
            if not ready or (busy and ready < self.c.documents_a_batch):
                return
            batch: list[tuple[float, int]] = []
            room = min(ready, self.c.documents_a_batch)
            ready -= room
            while room:
                time, count = self._new.popleft()
                taken = min(room, count)
                batch.append((time, taken))
                if taken < count:
                    self._new.appendleft((time, count - taken))
                room -= taken
            self._queued.append(batch)
            self.outcome.batches += 1

    def _launch(self, now: float, batch: list[tuple[float, int]]) -> None:
        c, setup, out = self.c, self.setup, self.outcome
        pages = self.pages_a_pdf * sum(count for _, count in batch)
        fixed = c.batch_cpu_loaded if setup.loaded else c.batch_cpu_own_process
        cpu, ocr = fixed + pages * c.client_cpu_a_page, pages / c.pages_a_second
        start = now + (0.0 if setup.loaded else c.launch_to_start)
        self._cores_free = max(self._cores_free, now) + cpu / setup.cores
        self._gpus_free = max(self._gpus_free, start) + ocr / setup.pairs
        alone = start + c.start_to_end + pages * c.client_cpu_a_page / min(setup.cores, setup.cores_a_run)
        read = max(alone, self._cores_free, self._gpus_free + c.page_seconds)
        loading = c.load_seconds_a_batch + pages * c.load_seconds_a_page
        end = (max(read, self._lock_free) if setup.one_writer else read) + loading
        self._lock_free = end
        out.cpu_seconds += cpu
        out.gpu_seconds += ocr
        out.locked_seconds += loading
        self._running += 1
        self._ends[self._at(end, "end")] = batch

    def _end(self, now: float, batch: list[tuple[float, int]]) -> None:
        self._running -= 1
        self.outcome.waits += [(now - time, count) for time, count in batch]
        self.outcome.ended = now
