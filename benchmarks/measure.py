"""What a process and everything it started cost: CPU seconds, peak memory, wall time; and how results are shown.

CPU time is what the system says when the process is waited for (children that it waited for included), so it does not
depend on how often somebody looks. Memory is sampled. The load of the machine when the benchmark started (its own work
not yet in it) stands beside each result: wall times of a busy machine say little, CPU seconds grow by 10 to 50 %
(shared caches and hyperthreads). Above `QUIET` the result says so, on the screen and in the JSON.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SAMPLE_SECONDS = 0.05
QUIET = 1.5  # load average of the last minute
BUSY = "busy machine: figures are upper bounds"
_AT_START = os.getloadavg()[0]


@dataclass(frozen=True, slots=True)
class Spent:
    """One process, from start to end."""

    code: int
    wall: float  # seconds
    cpu: float  # seconds, the process and all children it waited for
    rss: int  # bytes, peak of the process itself
    children_rss: int  # bytes, peak of the sum of what it started; what processes share counts once (PSS)
    together: int  # bytes, peak of both at one moment, in the same way
    children: int  # most processes at once below it
    out: str
    err: str


class Sampler:
    """Peak memory of a process and of what it started, looked at every so many seconds."""

    def __init__(self, pid: int, seconds: float) -> None:
        self.own = self.below = self.together = self.count = 0
        self.curve: list[tuple[float, int]] = []  # seconds since the start, bytes of the process itself
        self._pid = pid
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        started = time.monotonic()
        try:
            process = psutil.Process(self._pid)
        except psutil.Error:
            return
        while not self._over.wait(self._seconds):
            try:
                own = process.memory_full_info()
                children = process.children(recursive=True)
            except psutil.Error:
                return
            sizes = []
            for child in children:
                try:
                    sizes.append(child.memory_full_info().pss)
                except psutil.Error:
                    continue
            self.curve.append((time.monotonic() - started, own.rss))
            self.own, self.below = max(self.own, own.rss), max(self.below, sum(sizes))
            self.together = max(self.together, own.pss + sum(sizes))
            self.count = max(self.count, len(sizes))


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    cwd: Path,
    timeout: float = 900,
    sample_seconds: float = SAMPLE_SECONDS,
) -> Spent:
    """Runs a process to its end; it is killed after `timeout` seconds. Memory is looked at each `sample_seconds`."""
    started = time.monotonic()
    with (cwd / "stdout").open("wb") as out, (cwd / "stderr").open("wb") as err:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=out, stderr=err, cwd=cwd)
        timer = threading.Timer(timeout, process.kill)
        timer.start()
        sampler = Sampler(process.pid, sample_seconds)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        timer.cancel()
    wall = time.monotonic() - started
    sampler.stop()
    return Spent(
        code=process.returncode,
        wall=wall,
        cpu=usage.ru_utime + usage.ru_stime,
        rss=usage.ru_maxrss * 1024,  # exact, where a look each few hundredths of a second can miss a peak
        children_rss=sampler.below,
        together=sampler.together,
        children=sampler.count,
        out=(cwd / "stdout").read_text("utf-8", "replace"),
        err=(cwd / "stderr").read_text("utf-8", "replace"),
    )


def machine() -> dict[str, Any]:
    one, five, fifteen = os.getloadavg()
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "load_at_start": round(_AT_START, 2),
        "busy": _AT_START > QUIET,
        "load": [round(one, 1), round(five, 1), round(fifteen, 1)],
        "python": platform.python_version(),
        "processor": _processor(),
    }


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal of the project, with the figure that this run gives for it."""

    what: str
    figure: float
    limit: float
    least: bool = False  # the figure must reach the limit, not stay under it
    note: str = ""  # what the figure was measured on

    @property
    def met(self) -> bool:
        return self.figure >= self.limit if self.least else self.figure <= self.limit

    @property
    def asked(self) -> str:
        return f"{'>=' if self.least else '<='} {self.limit:g}"

    @property
    def verdict(self) -> str:
        return "met" if self.met else "NOT MET"

    def row(self) -> tuple[object, ...]:
        """What, figure, goal, met or not: a row of a table of four columns."""
        return (self.what, self.figure, self.asked, self.verdict)


COLUMNS = ("what", "figure", "goal", "")


def report(
    name: str,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    goals: Sequence[Goal] = (),
    remarks: Sequence[str] = (),
    **figures: Any,
) -> None:
    """Prints the table and writes `benchmarks/results/<name>.json`, `goals` and `remarks` (sentences) among it."""
    table = Table(title=title)
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row))
    Console(width=160).print(table)
    for remark in remarks:
        print(remark)
    for goal in goals:
        print(f"goal: {goal.what}: {goal.figure:.3g}, asked {goal.asked}: {goal.verdict}")
    now = machine()
    print(f"machine: {now['cores']} cores, load at the start {now['load_at_start']}, now {now['load'][0]}")
    if now["busy"]:
        print(BUSY)
    RESULTS.mkdir(exist_ok=True)
    told = [{**asdict(goal), "asked": goal.asked, "met": goal.met} for goal in goals]
    data = {
        "benchmark": name,
        "machine": now,
        "title": title,
        "arguments": sys.argv[1:],
        "goals": told,
        "columns": list(columns),
    }
    data |= {"rows": [list(row) for row in rows], "remarks": list(remarks), **figures}
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(data, indent=1, default=_plain) + "\n")
    print(f"written: {path.relative_to(ROOT)}")


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _plain(value: object) -> object:
    if isinstance(value, Spent):
        return {name: item for name, item in asdict(value).items() if name not in ("out", "err")}
    return str(value)
