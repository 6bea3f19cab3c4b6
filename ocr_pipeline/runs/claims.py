"""Claims: the batches that a command works on ahead of their runs, so that nobody takes them for forgotten ones."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from ocr_pipeline.runs.liveness import Life, life_of, stamp
from ocr_pipeline.runs.locks import held, lock_of


@contextmanager
def claim(folder: Path, names: Collection[str]) -> Iterator[None]:
    """Says for as long as this process lives and the block lasts that it works on the batches `names`.

    The command reads batches ahead of their runs; without the claim `reconcile` would take them for forgotten ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{os.getpid()}-{uuid.uuid4().hex[:8]}.json"
    with held(lock_of(folder, path.stem)):
        path.write_text(json.dumps({**stamp("claim"), "batches": sorted(names)}))
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def claimed(folder: Path) -> set[str]:
    """The batches that a living process has claimed; claims of dead ones are taken away."""
    found: set[str] = set()
    for path in folder.glob("*.json"):
        try:
            said = json.loads(path.read_text())
            names = said.pop("batches")
        except (OSError, ValueError, KeyError):
            continue  # being written, or gone already
        lock = lock_of(folder, path.stem)
        if life_of("claim", said, None, lock) is Life.DEAD:
            path.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
        else:
            found.update(names)
    return found
