"""The local copy of the batch lists: it follows them, and whatever happens to it, it is made anew."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ocr_pipeline.lake import batches, keys, planner
from ocr_pipeline.lake.batch_index import SCHEMA_VERSION, BatchIndex, index_file
from ocr_pipeline.lake.local import LocalStorage
from ocr_pipeline.lake.storage import ObjectInfo, StorageError, Tell
from ocr_pipeline.records import Batch, Upload

START = datetime(2026, 11, 22, 12, 0, 0, 123457, tzinfo=UTC)


def upload(name: str, minute: int = 0, etag: str = "e") -> Upload:
    return Upload(f"inbox/{name}", etag, 7, START + timedelta(minutes=minute))


def written(lake: LocalStorage, *uploads: Upload) -> Batch:
    batch = Batch(planner.name(uploads), uploads)
    batches.write(lake, batch)
    return batch


@pytest.fixture
def lake(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "lake")


def known(lake: LocalStorage, path: Path) -> list[str]:
    with BatchIndex(lake, path) as index:
        assert index.refresh()
        return [entry.key for entry in index.in_order("inbox/")]


def test_an_upload_comes_back_as_it_went_in_and_keys_in_the_order_of_stores(lake: LocalStorage, tmp_path: Path) -> None:
    names = ["\U0001f4c4.pdf", "\uff5e.pdf", "a/b.pdf", "a.pdf", "Ü \n'\".pdf", "nul\0.pdf"]
    uploads = [upload(name, number) for number, name in enumerate(names)]
    written(lake, *uploads)
    with BatchIndex(lake, tmp_path / "index") as index:
        index.refresh()
        assert [of.key for of in index.in_order("inbox/")] == sorted((u.key for u in uploads), key=str.encode)
        assert {u for of in index.known(u.key for u in uploads).values() for u in of.uploads} == set(uploads)
        assert list(index.in_order("inbox/", "inbox/\U0001f4c4.pdf")) == []


def test_pages_of_keys_follow_each_other_without_a_gap(
    lake: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocr_pipeline.lake.batch_index.KEYS_AT_ONCE", 3)
    for minute in range(3):  # three versions of each: a page must not part them
        written(lake, *(upload(f"{number}.pdf", minute, f"{minute}") for number in range(8)))
    with BatchIndex(lake, tmp_path / "index") as index:
        index.refresh()
        found = list(index.in_order("inbox/"))
    assert [of.key for of in found] == [f"inbox/{number}.pdf" for number in range(8)]
    assert {len(of.uploads) for of in found} == {3}


def test_a_list_that_a_purge_wrote_anew_or_took_away_is_forgotten(lake: LocalStorage, tmp_path: Path) -> None:
    path = tmp_path / "index"
    batch, other = written(lake, upload("a.pdf"), upload("secret-name.pdf")), written(lake, upload("b.pdf", 5))
    assert known(lake, path) == ["inbox/a.pdf", "inbox/b.pdf", "inbox/secret-name.pdf"]
    lake.write(keys.batch(batch.name), batches.dump(replace(batch, uploads=batch.uploads[:1])))
    lake.delete([keys.batch(other.name)])
    assert known(lake, path) == ["inbox/a.pdf"]
    assert b"secret-name" not in index_file(lake, path).read_bytes()


def test_a_refresh_that_has_no_time_reads_a_group_of_lists_all_the_same(
    lake: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listing and lists share one time: an inbox that takes all of it must not keep the lists unread for ever."""
    monkeypatch.setattr("ocr_pipeline.lake.batch_index.LISTS_AT_ONCE", 2)
    for number in range(5):
        written(lake, upload(f"{number}.pdf", number))
    with BatchIndex(lake, tmp_path / "index") as index:
        assert [index.refresh(out_of_time=lambda: True) for _ in range(4)] == [False, False, True, True]
        assert len(list(index.in_order("inbox/"))) == 5


def test_a_lake_that_was_restored_is_read_again_and_the_index_is_gone_through_once(
    lake: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All lists have new times then; a pass for each of them would take longer than any tick has."""
    names = [written(lake, upload(f"{number}.pdf", number)).name for number in range(20)]
    assert len(known(lake, tmp_path / "index")) == 20
    for name in names:
        os.utime(lake.uri_of(keys.batch(name)), ns=(0, 0))
    statements: list[str] = []
    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr("ocr_pipeline.lake.batch_index.sqlite3.connect", traced)
    assert len(known(lake, tmp_path / "index")) == 20
    assert len([statement for statement in statements if statement.startswith("DELETE FROM uploads")]) == 1


def test_a_copy_of_a_list_under_another_name_says_nothing(lake: LocalStorage, tmp_path: Path) -> None:
    """As a file manager or a backup makes it. What it says the list itself says, or nobody any more."""
    path = tmp_path / "index"
    batch = written(lake, upload("a.pdf"))
    lake.write(keys.batch(f"{batch.name} (1)"), batches.dump(batch))
    with BatchIndex(lake, path) as index:
        assert index.refresh()
        assert index.known(["inbox/a.pdf"])["inbox/a.pdf"].lists == (batch.name,)
        before = index_file(lake, path).read_bytes()
        assert index.refresh()
        assert index_file(lake, path).read_bytes() == before
    lake.delete([keys.batch(batch.name)])
    assert known(lake, path) == []


@pytest.mark.parametrize("torn", [b"not a database at all" * 1000, b""])
def test_a_file_that_is_torn_is_made_anew(lake: LocalStorage, tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "index"
    written(lake, upload("a.pdf"))
    path.mkdir()
    index_file(lake, path).write_bytes(torn)
    assert known(lake, path) == ["inbox/a.pdf"]


def test_each_lake_has_a_copy_of_its_own(lake: LocalStorage, tmp_path: Path) -> None:
    path = tmp_path / "index"
    written(lake, upload("a.pdf"))
    other = LocalStorage(tmp_path / "other lake")
    with BatchIndex(lake, path) as index:
        index.refresh()
        assert known(other, path) == []
        assert [entry.key for entry in index.in_order("inbox/")] == ["inbox/a.pdf"]


def test_of_two_processes_that_meet_at_the_copy_of_another_release_one_makes_it_anew(
    lake: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index"
    written(lake, upload("a.pdf"))
    assert known(lake, path) == ["inbox/a.pdf"]
    first = sqlite3.connect(index_file(lake, path), isolation_level=None)
    first.execute("PRAGMA user_version = 99")
    first.execute("BEGIN IMMEDIATE")
    first.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")  # all that `first` has read of the lists is there
    connect, arrived = sqlite3.connect, threading.Event()

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(
            lambda statement: arrived.set() if statement.startswith(("BEGIN", "DROP")) else None
        )
        return connection

    def second() -> list[str]:
        with BatchIndex(lake, path) as index:
            return [entry.key for entry in index.in_order("inbox/")]

    monkeypatch.setattr("ocr_pipeline.lake.batch_index.sqlite3.connect", traced)
    with closing(first), ThreadPoolExecutor(1) as pool:
        found = pool.submit(second)
        assert arrived.wait(20)
        first.execute("COMMIT")
        assert found.result() == ["inbox/a.pdf"]


def test_a_list_that_another_process_wrote_and_read_during_our_listing_stays_known(
    lake: LocalStorage, tmp_path: Path
) -> None:
    path = tmp_path / "index"

    def another_process() -> None:
        written(lake, upload("theirs.pdf"))
        known(lake, path)

    with BatchIndex(ListedMeanwhile(tmp_path / "lake", another_process), path) as index:
        assert index.refresh()
        assert list(index.known(["inbox/theirs.pdf"])) == ["inbox/theirs.pdf"]


class ListedMeanwhile(LocalStorage):
    """Something happens between the end of a listing in the store and its arrival."""

    def __init__(self, root: Path, meanwhile: Callable[[], None]) -> None:
        super().__init__(root)
        self._meanwhile = meanwhile

    def list(self, prefix: str, start_after: str | None = None, tell: Tell | None = None) -> Iterator[ObjectInfo]:
        found = [*super().list(prefix, start_after, tell)]
        self._meanwhile()
        yield from found


def test_a_copy_that_cannot_be_kept_says_what_to_do(lake: LocalStorage, tmp_path: Path) -> None:
    index_file(lake, tmp_path / "index").mkdir(parents=True)
    with pytest.raises(StorageError, match="a copy of the batch lists"):
        BatchIndex(lake, tmp_path / "index")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="a copy of the batch lists"):
        BatchIndex(lake, tmp_path / "file" / "index")
