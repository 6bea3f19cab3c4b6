"""What the batch lists say of the uploads of a time."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ocr_pipeline.lake import batches, keys, planner
from ocr_pipeline.lake.batch_index import BatchIndex
from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.lake.storage import ObjectUnreadable, Storage
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


def test_copies_of_a_list_and_strange_files_are_no_batches(tmp_path: Path) -> None:
    storage = lake(tmp_path, (upload("a", 1),))
    (name,) = batches.names(storage)
    retry = planner.retry({upload("a", 1): name}, [], NOW)
    gone = planner.deletion(["inbox/a.pdf"], NOW)
    back = planner.returned([upload("a", 1)], NOW, [gone.name])
    batches.write_many(storage, [retry, gone, back])
    strange = [f"{name} (1).json", f"{name}.json.bak", f"old/{name}.json", f"Copy of {name}.json", "notes.txt"]
    storage.write_many((f"batches/{other}", b"") for other in strange)
    assert list(batches.names(storage)) == sorted([name, retry.name, gone.name, back.name])
    assert {batch.name for batch in batches.load(storage)} == {name, retry.name, gone.name, back.name}
    assert sorted(batches.others(storage)) == sorted(f"batches/{other}" for other in strange)


def test_a_list_under_the_name_of_another_batch_is_not_taken_for_its_own(tmp_path: Path) -> None:
    storage = lake(tmp_path, (upload("a", 1),), (upload("b", 2),))
    b, a = batches.names(storage)
    storage.write(f"batches/{a}.json", storage.read(f"batches/{b}.json"))
    told: list[str] = []
    assert [batch.name for batch in batches.load(storage, tell=told.append)] == [b]
    assert told == [f"batches/{a}.json is the list of batch {b}, not its own: {batches.MEND}"]
    with pytest.raises(ObjectUnreadable):
        list(batches.load(storage))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("last_modified", "2026-11-26T12:00:00", "a time without a time zone"),
        ("last_modified", "0001-01-01T00:00:00+14:00", "before 1970"),
        ("size", 2**70, "an impossible size"),
        ("size", -1, "an impossible size"),
    ],
)
def test_a_list_that_was_restored_by_hand_and_cannot_be_right_is_told_with_its_key(
    tmp_path: Path, field: str, value: object, said: str
) -> None:
    storage = lake(tmp_path / "lake", (upload("a", 1),), (upload("b", 2),))
    b, a = batches.names(storage)
    content = json.loads(storage.read(keys.batch(a)))
    content["uploads"][0][field] = value
    storage.write(keys.batch(a), json.dumps(content).encode())
    with BatchIndex(storage, tmp_path / "index") as index:
        assert index.refresh()
        assert [known.lists for known in index.in_order("inbox/")] == [(b,)]
        assert said in index.unreadable[a]
        assert keys.batch(a) in index.unreadable[a]


def test_as_many_batches_as_are_enough_are_not_read(tmp_path: Path) -> None:
    storage = lake(tmp_path, *((upload(f"{n}", n / 10),) for n in range(5)))
    for info in list(storage.list("batches/")):
        storage.write(info.key, b"not read")
    assert batches.documents_since(storage, NOW - timedelta(days=1), enough=5) == 5
