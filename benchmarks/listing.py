"""What a look at an inbox of a million keys costs: memory, list requests, seconds; `sweep` against `ordered`.

    python -m benchmarks.listing [KEYS]

The keys are served by a small S3 server of ours in a process of its own (`ocr_pipeline_tests/s3_stand_in.py`); this
process only looks. First a look that knows the bucket, then 100 new keys, then the look that must find them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

from ocr_pipeline.lake.listing import Cursor, InboxScan, ordered, sweep
from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.lake.storage import S3Options, Storage

OVERLAP = timedelta(hours=1)
NEW = 100


@dataclass(frozen=True)
class Figures:
    """Of one strategy. Memory is the peak of the whole process so far, interpreter and s3fs included."""

    strategy: str
    keys: int
    found: int
    new: int
    requests: int
    seconds: float
    cpu_seconds: float
    peak_mb: float


def measure(keys: int) -> list[Figures]:
    """Serve `keys` keys and look at them with both strategies."""
    command = [sys.executable, "-m", "ocr_pipeline_tests.s3_stand_in", str(keys)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin
        assert server.stdout
        try:
            url = server.stdout.readline().strip()
            storage = open_storage("s3://bucket", S3Options("key", "secret", endpoint_url=url))
            # As if a first look had been taken when the old keys were all there: 300 days from the first.
            from ocr_pipeline_tests.s3_stand_in import FIRST_DAY

            known = Cursor(since=FIRST_DAY + timedelta(days=300))
            server.stdin.write("add\n")
            server.stdin.flush()
            server.stdout.readline()
            figures = []
            for name in ("ordered", "sweep"):
                look = _look(name, storage, known)
                start, cpu = time.monotonic(), time.process_time()
                uploads = [upload.key for upload in look]
                seconds, cpu = time.monotonic() - start, time.process_time() - cpu
                server.stdin.write("count\n")
                server.stdin.flush()
                requests = int(server.stdout.readline())
                new = len([key for key in uploads if _is_new(key, keys)])
                figures.append(Figures(name, keys, len(uploads), new, requests, seconds, cpu, peak_mb()))
            return figures
        finally:
            server.kill()


def peak_mb() -> float:
    """The largest memory of this process so far. Not `getrusage`'s: that counts what its parent held at the fork."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _look(name: str, storage: Storage, known: Cursor) -> InboxScan:
    if name == "sweep":
        return sweep(storage, "inbox/", {"inbox/": known}, overlap=OVERLAP)
    return ordered(storage, "inbox/", {"inbox/": known, "inbox/urgent/": known}, look_back=OVERLAP)


def _is_new(key: str, keys: int) -> bool:
    number = key.rpartition("/")[2][10:26]
    return int(number) >= keys


if __name__ == "__main__":
    for line in measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000):
        print(json.dumps(asdict(line)))
