"""Which runs are dead: the stamp a run carries, and the comparison of a stamp with this machine's processes.

A run's process may be killed, or the whole tree with the daemon in it; then the run stays STARTED for ever, since
Dagster's default launcher has no health check. A process id alone is not enough, ids are used again: the start time
tells them apart. Asking the code server instead is wrong: after a reload it denied a run that was alive.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

import psutil

from ocr_pipeline.runs.locks import is_free

HOST_TAG = "ocr_pipeline/host"
PID_TAG = "ocr_pipeline/pid"
STAMPED_TAG = "ocr_pipeline/stamped_run"  # a retry inherits its parent's tags: this one says whose stamp it is
STARTED_TAG = "ocr_pipeline/process_started"

UNSTAMPED_GRACE = 120.0
"""Seconds. A run that is STARTED and still has no stamp after this never got as far as its first step."""


class Life(Enum):
    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"  # on another host, or too young to tell


def stamp(run_id: str) -> dict[str, str]:
    """The tags that say which process works on the run `run_id`."""
    process = psutil.Process()
    return {
        STAMPED_TAG: run_id,
        HOST_TAG: socket.gethostname(),
        PID_TAG: str(process.pid),
        STARTED_TAG: f"{process.create_time():.2f}",
    }


def is_stamped(run_id: str, tags: Mapping[str, str]) -> bool:
    return tags.get(STAMPED_TAG) == run_id and PID_TAG in tags


def life_of(run_id: str, tags: Mapping[str, str], started_at: float | None, lock: Path | None = None) -> Life:
    """Whether the process of a run with these tags still lives: by its stamp if it is on this host, on another host by
    the run's lock file (`locks.py`) if that can be seen from here. `started_at`: when the run started, unix time."""
    if not is_stamped(run_id, tags):
        old = started_at is not None and time.time() - started_at > UNSTAMPED_GRACE
        return Life.DEAD if old else Life.UNKNOWN
    if tags.get(HOST_TAG) != socket.gethostname():
        return Life.DEAD if lock is not None and is_free(lock) else Life.UNKNOWN
    try:
        process = psutil.Process(int(tags[PID_TAG]))
        same = abs(process.create_time() - float(tags[STARTED_TAG])) < 1.0
        if not same or process.status() == psutil.STATUS_ZOMBIE:
            return Life.DEAD
    except (psutil.NoSuchProcess, ValueError, KeyError):
        return Life.DEAD
    except psutil.AccessDenied:
        return Life.UNKNOWN
    return Life.ALIVE
