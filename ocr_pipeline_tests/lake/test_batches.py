"""What the batch lists say of the uploads of a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from ocr_pipeline.lake import batches, planner
from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Batch, Upload

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


def upload(name: str, hours_ago: float) -> Upload:
    return Upload(f"inbox/{name}.pdf", "e", 1, NOW - timedelta(hours=hours_ago))


def lake(tmp_path: Path, *lists: tuple[Upload, ...]) -> Storage:
    storage = open_storage(str(tmp_path))
    for uploads in lists:
        batches.write(storage, Batch(planner.name(uploads), uploads))
    return storage


def test_documents_of_the_last_day_are_counted_over_all_batches_each_key_once(tmp_path: Path) -> None:
    storage = lake(
        tmp_path,
        (upload("old", 25), upload("a", 23)),
        (upload("a", 2), upload("b", 2)),
        (upload("older", 60),),
    )
    assert batches.documents_since(storage, NOW - timedelta(days=1), enough=100) == 2


def test_as_many_batches_as_are_enough_are_not_read(tmp_path: Path) -> None:
    storage = lake(tmp_path, *((upload(f"{n}", n / 10),) for n in range(5)))
    for info in list(storage.list("batches/")):
        storage.write(info.key, b"not read")
    assert batches.documents_since(storage, NOW - timedelta(days=1), enough=5) == 5
