"""A worker that is closed by another thread while somebody waits for it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ocr_pipeline.pdf.process import WorkerLost, WorkerProcess


@pytest.mark.timeout(60)
def test_who_waits_for_a_worker_learns_that_it_was_closed_even_where_its_end_was_not_seen(tmp_path: Path) -> None:
    worker = WorkerProcess(1 << 30)
    # what a busy machine does: the pipe is closed, and so out of the selector, before the waiting thread runs again
    worker._selector.unregister(worker._answers)
    threading.Timer(0.2, worker.close).start()
    with pytest.raises(WorkerLost):
        list(worker.ask({"op": "none, so that nothing but the end is answered", "path": str(tmp_path)}, 600))
