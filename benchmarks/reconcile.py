"""What the comparison of an inbox of a million keys with all its batch lists costs: memory, seconds, requests.

    python -m benchmarks.reconcile [KEYS]

The batch lists are files of a local lake; the inbox is listed out of the air, since a million files say nothing of the
comparison. First sweeps on a machine that has read no list yet, until one reaches the end; then one pass more, as each
later one. A bucket adds its answers: one request a thousand keys, and once, one a list.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ocr_pipeline.intake import sweeping
from ocr_pipeline.intake.options import IntakeOptions
from ocr_pipeline.lake import batches, planner
from ocr_pipeline.lake.batch_index import index_file
from ocr_pipeline.lake.local import LocalStorage
from ocr_pipeline.lake.storage import ObjectInfo
from ocr_pipeline.records import Batch, Upload

FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
A_LIST = 200


class Bucket(LocalStorage):
    """A local lake whose inbox holds so many uploads as the Worker names them."""

    def __init__(self, root: Path, keys: int) -> None:
        super().__init__(root)
        self.keys = keys

    def upload(self, number: int) -> Upload:  # type: ignore[override]
        time = FIRST_DAY + timedelta(seconds=number)
        return Upload(f"inbox/{time:%Y/%m/%d}/{number:026d}-document.pdf", f"{number:032x}", 2_000_000, time)

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ObjectInfo]:
        if prefix != "inbox/":
            yield from super().list(prefix, start_after)
            return
        first = 0 if start_after is None else int(start_after.rsplit("/", 1)[1][:26]) + 1
        for number in range(first, self.keys):
            upload = self.upload(number)
            yield ObjectInfo(upload.key, upload.etag, upload.size, upload.last_modified)


def measure(keys: int, folder: Path) -> Iterator[dict[str, object]]:
    bucket = Bucket(folder / "lake", keys)
    for first in range(0, keys, A_LIST):
        uploads = tuple(bucket.upload(number) for number in range(first, min(keys, first + A_LIST)))
        bucket.write(f"batches/{planner.name(uploads)}.json", batches.dump(Batch(planner.name(uploads), uploads)))
    options = IntakeOptions(folder / "data")
    for what in ("the first pass", "a later pass"):
        before, cpu, longest, sweeps, finished = _peak(), time.process_time(), 0.0, 0, False
        while not finished:
            start = time.monotonic()
            swept = sweeping.sweep_everything(bucket, options)
            assert swept.batches == ()
            finished, sweeps, longest = swept.finished, sweeps + 1, max(longest, time.monotonic() - start)
        yield {
            "pass": what,
            "keys": keys,
            "batch_lists": len(swept.lists),
            "sweeps": sweeps,
            "longest_sweep_seconds": round(longest, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
            "peak_mb": round(_peak()),
            "peak_mb_before": round(before),
            "index_mb": round(index_file(bucket, options.index).stat().st_size / 2**20),
        }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        for line in measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000, Path(made)):
            print(json.dumps(line), flush=True)
