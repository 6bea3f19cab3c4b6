"""What `ingest` does before any run: files into the inbox, and all of them into batch lists, however many there are."""

from __future__ import annotations

import io
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from filelock import FileLock
from rich.console import Console

from ocr_pipeline.commands import display
from ocr_pipeline.commands.ingest import _put
from ocr_pipeline.intake import cutting, inbox
from ocr_pipeline.intake.options import IntakeOptions
from ocr_pipeline.intake.sources import Found, Source, SourceError
from ocr_pipeline.lake import batches, keys
from ocr_pipeline.lake.batch_index import BatchIndex, index_file
from ocr_pipeline.lake.local import LocalStorage
from ocr_pipeline.lake.planner import BatchLimits
from ocr_pipeline.lake.storage import ObjectInfo, Storage, StorageError, Tell
from ocr_pipeline.records import Reason, Upload
from ocr_pipeline_tests.intake.conftest import lists, taken


@pytest.fixture
def sources(tmp_path: Path) -> list[Source]:
    found = []
    for name in ("a", "b", "c", "d"):
        path = tmp_path / f"{name}.pdf"
        path.write_bytes(f"%PDF-1.7 {name}".encode())
        found.append(Source(path, f"inbox/{name}.pdf"))
    return found


def put(lake: Storage, sources: list[Source]) -> list[Upload]:
    return sorted(put for _, put in inbox.put_all(lake, sources) if isinstance(put, Upload))


class InPairs(LocalStorage):
    """Answers no question before a second one is asked."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.pair = threading.Barrier(2, timeout=20)

    def stat(self, key: str) -> ObjectInfo | None:
        self.pair.wait()
        return super().stat(key)


def test_files_are_put_into_the_inbox_in_parallel(tmp_path: Path, sources: list[Source]) -> None:
    uploads = put(InPairs(tmp_path / "lake"), sources)
    assert [upload.key for upload in uploads] == [source.key for source in sources]


def test_a_file_that_is_long_on_its_way_is_copied_where_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    copied_by = dict[int, threading.Thread]()

    class Watching(LocalStorage):
        def create(self, key: str, data: bytes) -> bool:
            copied_by[len(data)] = threading.current_thread()
            return super().create(key, data)

    sizes = (1, 2**20 + 1, 8 * 2**20 + 1)
    for size in sizes:
        with (tmp_path / f"{size}.pdf").open("wb") as file:
            file.truncate(size)
    put(Watching(tmp_path / "lake"), [Source(tmp_path / f"{size}.pdf", f"inbox/{size}.pdf") for size in sizes])
    assert [copied_by[size] is threading.main_thread() for size in sizes] == [False, False, True]


def test_files_of_every_size_arrive_and_one_that_is_gone_fails_alone(
    lake: Storage, sources: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "IN_PARALLEL", ((20, 4), (40, 2)))
    for source, size in zip(sources, (10, 30, 50, 0), strict=True):
        source.path.write_bytes(b"x" * size)
    gone = Source(tmp_path / "gone.pdf", "inbox/gone.pdf")
    outcomes = dict(inbox.put_all(lake, [gone, *sources]))
    assert isinstance(outcomes.pop(gone), FileNotFoundError)
    assert {source.key: put.size for source, put in outcomes.items() if isinstance(put, Upload)} == {
        "inbox/a.pdf": 10, "inbox/b.pdf": 30, "inbox/c.pdf": 50, "inbox/d.pdf": 0,
    }  # fmt: skip


def test_a_file_that_breaks_off_or_has_a_name_for_no_lake_fails_alone(lake: Storage, sources: list[Source]) -> None:
    lake.write("inbox/broken.pdf", b"an older one")
    # it opens, has no bytes by its size, and answers the first read with an I/O error
    broken = Source(Path("/proc/self/mem"), "inbox/broken.pdf")
    long = Source(sources[0].path, f"inbox/{'long' * 300}.pdf")
    log = Console(file=io.StringIO())
    uploads, not_taken = _put(lake, Found([broken, long, *sources]), log)
    assert sorted(upload.key for upload in uploads) == [source.key for source in sources]
    assert {(one.path, one.reason) for one in not_taken} == {
        ("/proc/self/mem", Reason.UNREADABLE), (str(long.path), Reason.BAD_NAME),
    }  # fmt: skip


def test_a_file_whose_place_in_a_local_inbox_something_else_holds_fails_alone(
    tmp_path: Path, sources: list[Source]
) -> None:
    lake = LocalStorage(tmp_path / "lake")
    lake.write("inbox/folder.pdf/page.pdf", b"of a folder that was ingested once")
    lake.write("inbox/file", b"")
    (tmp_path / "elsewhere.pdf").write_bytes(b"")
    Path(lake.uri_of("inbox/link.pdf")).symlink_to(tmp_path / "elsewhere.pdf")
    Path(lake.uri_of("inbox/links")).symlink_to(tmp_path)
    large = tmp_path / "large.pdf"
    with large.open("wb") as file:
        file.truncate(inbox.CREATED_WHOLE + 1)
    blocked = [
        Source(path, f"inbox/{name}")
        for name in ("folder.pdf", "file/a.pdf", "file/deep/a.pdf", "link.pdf", "links/a.pdf")
        for path in (sources[0].path, large)
    ]
    log = Console(file=io.StringIO(), width=1000)
    uploads, not_taken = _put(lake, Found([*blocked, *sources]), log)
    assert sorted(upload.key for upload in uploads) == [source.key for source in sources]
    assert [one.reason for one in not_taken] == [Reason.NAME_TAKEN] * len(blocked)
    said = log.file.getvalue()  # type: ignore[attr-defined]
    for name in ("folder.pdf", "file/a.pdf", "file/deep/a.pdf", "link.pdf", "links"):
        assert f"not taken: {lake.uri_of('inbox/' + name)}" in said
    assert "there is a folder of this name: rename one of them" in said


def test_an_upload_of_the_same_name_that_the_lake_does_not_give_keeps_no_other_file_from_being_taken(
    tmp_path: Path, sources: list[Source]
) -> None:
    lake = LocalStorage(tmp_path / "lake")
    round_link = Path(lake.uri_of(sources[1].key))  # gives an error to everybody, as a file without rights to most
    round_link.parent.mkdir(parents=True)
    round_link.symlink_to(round_link.name)
    uploads, not_taken = _put(lake, Found(sources), Console(file=io.StringIO()))
    assert sorted(upload.key for upload in uploads) == [source.key for source in sources if source != sources[1]]
    assert [one.reason for one in not_taken] == [Reason.UNREADABLE]


def test_a_lake_whose_folder_cannot_be_made_is_no_fault_of_a_file(tmp_path: Path, sources: list[Source]) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="a folder is needed"):
        put(LocalStorage(tmp_path / "file" / "lake"), sources)


def test_the_store_is_asked_for_no_file_while_the_intake_of_the_machine_is_locked(
    tmp_path: Path, options: IntakeOptions, sources: list[Source]
) -> None:
    one_at_a_time = threading.Lock()

    class Watching(LocalStorage):
        def stat(self, key: str) -> ObjectInfo | None:
            with one_at_a_time, FileLock(options.data / "intake.lock", timeout=0):
                return super().stat(key)

    options.data.mkdir()
    lake = Watching(tmp_path / "lake")
    cutting.cut_all(lake, put(lake, sources), options)
    assert taken(lake) == [source.key for source in sources]


def test_every_file_is_cut_whatever_the_cap_on_batches_and_each_is_held_by_its_last_batch(
    lake: Storage, options: IntakeOptions, sources: list[Source], tmp_path: Path
) -> None:
    few = IntakeOptions(options.data, limits=BatchLimits(documents=1, batches=2))
    announced: list[str] = []
    held = cutting.cut_all(lake, put(lake, sources), few, announced.extend)
    assert sorted(announced) == sorted(batch.name for batch in held.values()) == [b.name for b in lists(lake)]
    assert sorted(upload.key for upload in held) == [source.key for source in sources]
    again = cutting.cut_all(lake, put(lake, sources), IntakeOptions(tmp_path / "another machine"))
    assert again == held
    assert len(lists(lake)) == 4
    assert cutting.cut_all(lake, [], few) == {}


def test_a_file_that_another_ingest_has_replaced_and_cut_meanwhile_is_not_cut_as_it_was(
    lake: Storage, options: IntakeOptions, sources: list[Source]
) -> None:
    mine = put(lake, sources)
    sources[0].path.write_bytes(b"%PDF-1.7 edited")
    (theirs,) = put(lake, sources[:1])
    cutting.cut_all(lake, [theirs], options)
    held = cutting.cut_all(lake, mine, options)
    assert sorted(held) == sorted([theirs, *mine[1:]])
    assert taken(lake) == [source.key for source in sources]
    # and one that was replaced, cut and taken away
    sources[0].path.write_bytes(b"%PDF-1.7 edited once more")
    cutting.cut_all(lake, put(lake, sources[:1]), options)
    lake.delete([sources[0].key])
    with pytest.raises(SourceError, match="taken out of the inbox"):
        cutting.cut_all(lake, mine[:1], options)


def test_an_upload_is_held_also_when_another_release_makes_the_copy_of_the_batch_lists_anew(
    tmp_path: Path, options: IntakeOptions, sources: list[Source]
) -> None:
    class Flipping(LocalStorage):
        def list(self, prefix: str, start_after: str | None = None, tell: Tell | None = None) -> Iterator[ObjectInfo]:
            yield from super().list(prefix, start_after, tell)
            with closing(sqlite3.connect(index_file(self, options.index))) as other_release:
                other_release.execute("PRAGMA user_version = 99")
            with BatchIndex(self, options.index):
                pass

    lake = LocalStorage(tmp_path / "lake")
    uploads = put(lake, sources)
    held = cutting.cut_all(lake, uploads, options)
    assert cutting.cut_all(Flipping(tmp_path / "lake"), uploads, options) == held
    assert sorted(held) == uploads
    assert len(lists(lake)) == 1


@pytest.mark.parametrize("etag", ["another", "the same"])
def test_an_upload_whose_batch_list_cannot_be_read_any_more_is_cut_anew(
    tmp_path: Path, sources: list[Source], options: IntakeOptions, etag: str
) -> None:
    lake = LocalStorage(tmp_path / "lake")
    first = cutting.cut_all(lake, put(lake, sources[:2]), options)
    (batch,) = set(first.values())
    path = Path(lake.uri_of(keys.batch(batch.name)))
    before = path.stat()
    path.write_bytes(b"\0" * before.st_size)
    if etag == "the same":  # a disk that loses bytes changes no time
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    told: list[str] = []
    uploads = put(lake, sources[1:])
    held = cutting.cut_all(lake, uploads, options, tell=told.append)
    assert held.keys() == set(uploads)
    assert all(batches.read(lake, new.name) == new != batch for new in held.values())
    (error,) = told
    assert keys.batch(batch.name) in error


def test_a_batch_list_that_is_taken_away_at_once_is_an_error_and_no_empty_success(
    tmp_path: Path, options: IntakeOptions, sources: list[Source]
) -> None:
    class Losing(LocalStorage):
        def create(self, key: str, data: bytes) -> bool:
            return key.startswith(keys.BATCHES) or super().create(key, data)

    lake = Losing(tmp_path / "lake")
    with pytest.raises(StorageError, match="in no batch list"):
        cutting.cut_all(lake, put(lake, sources), options)


def test_off_a_terminal_a_line_now_and_then_says_how_many_files_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "EVERY_SECONDS", -1.0)
    log = io.StringIO()
    with display.Counter(Console(file=log), "copying into the inbox", 2, "files") as counter:
        counter.advance()
    assert log.getvalue() == "copying into the inbox: 1 of 2 files so far\n"
