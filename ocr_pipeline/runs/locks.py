"""One lock file per run: held as long as the process that works on it lives, and freed by the kernel when it dies.

The process stamp (`liveness.py`) says who works on a run, and can be checked on the same host only. A container that is
started again has another host name, and its data volume is the same: there the lock tells the dead from the living.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock


def lock_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.lock"


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Holds the lock for the length of the block. Where this process holds it already, or the file system has no locks
    or cannot be written, the block goes on without: then the stamp alone must do."""
    lock = FileLock(path, timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError:  # filelock's Timeout is one
        yield
        return
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def is_free(path: Path) -> bool:
    """Whether somebody held this lock and is gone; False where there is none, or it is held."""
    if not path.exists():
        return False
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except OSError:
        return False
    lock.release()
    return True
