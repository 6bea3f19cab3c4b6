"""What only a local folder can get wrong: links, special files, half-written files, names, kill -9."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_pipeline.lake.local import LocalStorage
from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.lake.storage import KeyRefused, ObjectMissing, ObjectUnreadable, StorageError


@pytest.fixture
def lake(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "lake")


def keys(lake: LocalStorage, prefix: str = "", after: str | None = None) -> list[str]:
    return [info.key for info in lake.list(prefix, after)]


def test_opening_a_lake_changes_nothing_on_disk(tmp_path: Path) -> None:
    lake = open_storage(str(tmp_path / "new"))
    assert list(lake.list("")) == []
    assert lake.stat("a") is None
    assert list(tmp_path.iterdir()) == []


def test_a_file_url_and_a_path_open_the_same_lake(tmp_path: Path) -> None:
    folder = tmp_path / "my lake"
    open_storage(str(folder)).write("a", b"x")
    assert open_storage(f"file://{str(folder).replace(' ', '%20')}").read("a") == b"x"
    assert open_storage(str(folder)).uri_of("a b") == str(folder / "a b")


def test_nothing_is_read_or_written_through_a_link_that_leaves_the_lake(lake: LocalStorage, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.pdf").write_bytes(b"secret")
    lake.write("inbox/own.pdf", b"x")
    inbox = Path(lake.root, "inbox")
    (inbox / "file.pdf").symlink_to(outside / "secret.pdf")
    (inbox / "folder").symlink_to(outside)
    for key in ("inbox/file.pdf", "inbox/folder/secret.pdf"):
        with pytest.raises(StorageError, match="leaves the lake"):
            lake.read(key)
    with pytest.raises(StorageError, match="leaves the lake"):
        lake.write("inbox/folder/new.pdf", b"x")
    with pytest.raises(StorageError, match="leaves the lake"):
        lake.delete(["inbox/folder/secret.pdf"])
    with pytest.raises(StorageError, match="leaves the lake"):
        list(lake.list("inbox/folder/"))
    assert keys(lake) == ["inbox/own.pdf"]
    assert os.listdir(outside) == ["secret.pdf"]


def test_a_link_within_the_lake_is_followed_for_files_and_not_for_folders(lake: LocalStorage) -> None:
    lake.write("inbox/a/one.pdf", b"1")
    inbox = Path(lake.root, "inbox")
    (inbox / "link.pdf").symlink_to("a/one.pdf")
    (inbox / "a" / "loop").symlink_to(inbox)
    (inbox / "dangling.pdf").symlink_to("nowhere")
    assert keys(lake) == ["inbox/a/one.pdf", "inbox/link.pdf"]
    assert lake.read("inbox/link.pdf") == b"1"


def test_writing_to_a_link_replaces_the_link_and_not_its_target(lake: LocalStorage, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"kept")
    lake.write("a/x", b"")
    Path(lake.root, "a", "link").symlink_to(target)
    assert lake.create("a/link", b"new") is False
    lake.write("a/link", b"new")
    assert target.read_bytes() == b"kept"
    assert lake.read("a/link") == b"new"


def test_a_fifo_in_the_inbox_does_not_hang_and_is_no_object(lake: LocalStorage) -> None:
    lake.write("inbox/a.pdf", b"x")
    os.mkfifo(Path(lake.root, "inbox", "fifo.pdf"))
    assert keys(lake) == ["inbox/a.pdf"]
    with pytest.raises(ObjectMissing):
        lake.read("inbox/fifo.pdf")


def test_a_name_too_long_for_the_disk_is_told_in_bytes(lake: LocalStorage) -> None:
    lake.write("a/" + "é" * 127, b"x")
    with pytest.raises(StorageError, match="256 bytes"):
        lake.write("a/" + "é" * 128, b"x")


@pytest.mark.parametrize("key", ["a//b", "/abs", "a/", ".hidden", "a/.tmp-1", "nul\0.pdf", "folder/" * 700 + "a.pdf"])
def test_a_key_that_no_file_can_have_is_refused(lake: LocalStorage, key: str) -> None:
    with pytest.raises(KeyRefused):
        lake.write(key, b"x")
    with pytest.raises(KeyRefused):
        lake.read(key)


def test_a_name_that_is_not_utf8_is_left_alone_and_told_once(
    lake: LocalStorage, caplog: pytest.LogCaptureFixture
) -> None:
    lake.write("inbox/a.pdf", b"x")
    Path(os.fsdecode(os.fsencode(lake.root) + b"/inbox/\xff.pdf")).write_bytes(b"x")
    assert keys(lake) == keys(lake) == ["inbox/a.pdf"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "not UTF-8" in caplog.text


def test_a_file_where_a_folder_is_needed_is_told_with_the_path(lake: LocalStorage) -> None:
    lake.write("a/b", b"x")
    for put in (lake.write, lake.create):
        with pytest.raises(StorageError, match="a folder is needed"):
            put("a/b/c", b"x")
        with pytest.raises(StorageError, match="there is a folder of this name"):
            put("a", b"x")
    with pytest.raises(ObjectMissing):
        lake.read("a/b/c")
    with pytest.raises(ObjectMissing):
        lake.read("a")


@pytest.mark.parametrize("rights", [0o000, 0o444, 0o111])
def test_a_folder_that_may_not_be_read_is_an_error_or_told_and_no_empty_folder(
    bound_by_rights: Path, rights: int
) -> None:
    lake = LocalStorage(bound_by_rights / "lake")
    lake.write_many((f"inbox/{name}.pdf", b"x") for name in ("a", "closed/b", "z"))
    for closed, left in (("inbox/closed", ["inbox/a.pdf", "inbox/z.pdf"]), ("inbox", None)):
        folder = Path(lake.uri_of(closed))
        folder.chmod(rights)
        told: list[str] = []
        with pytest.raises(ObjectUnreadable, match=f"{folder}/: Permission denied; give this user the right"):
            list(lake.list("inbox/"))
        if left is None:  # the whole inbox
            with pytest.raises(ObjectUnreadable):
                list(lake.list("inbox/", tell=told.append))
        else:
            assert [info.key for info in lake.list("inbox/", tell=told.append)] == left
            (error,) = told
            assert str(folder) in error
        folder.chmod(0o755)


def test_a_file_that_the_disk_stops_giving_half_way_is_unreadable(tmp_path: Path) -> None:
    class Torn(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 0:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(10) or b""

    class FailingDisk(LocalStorage):
        def _open(self, key: str) -> BinaryIO:
            return Torn(self.uri_of(key))  # type: ignore[return-value]

    LocalStorage(tmp_path).write("inbox/a.pdf", b"x" * 100)
    with pytest.raises(ObjectUnreadable, match=r"a.pdf: Input/output error; the disk fails there"):
        FailingDisk(tmp_path).download("inbox/a.pdf", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_file_that_the_disk_does_not_give_is_unreadable_and_named(tmp_path: Path) -> None:
    class FailingDisk(LocalStorage):
        def _open(self, key: str) -> BinaryIO:
            return open("/proc/self/mem", "rb")  # opens, and answers the first read with an I/O error

    lake = FailingDisk(tmp_path)
    with pytest.raises(ObjectUnreadable, match=r"batches/a.json: Input/output error; the disk fails there"):
        lake.read("batches/a.json")
    Path(tmp_path, "round").symlink_to("round")
    with pytest.raises(ObjectUnreadable, match=r"round: .*; it is a link in a circle"):
        LocalStorage(tmp_path).read("round")


def test_a_file_moved_in_with_an_old_date_has_arrived_now(lake: LocalStorage, tmp_path: Path) -> None:
    lake.write("inbox/x", b"")
    old = tmp_path / "old.pdf"
    old.write_bytes(b"x")
    os.utime(old, (1e9, 1e9))
    before = datetime.now(UTC) - timedelta(seconds=2)
    old.rename(Path(lake.root, "inbox", "old.pdf"))
    info = lake.stat("inbox/old.pdf")
    assert info is not None
    assert info.last_modified >= before


def test_a_file_that_grows_while_it_is_read_is_not_taken_for_a_version(
    lake: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.write("inbox/a.pdf", b"x" * 100)
    grown = 0

    def growing(fd: int) -> os.stat_result:
        nonlocal grown
        status = real(fd)
        grown += 1
        with open(lake.uri_of("inbox/a.pdf"), "ab") as file:
            file.write(b"y")
        return status

    real = os.fstat
    monkeypatch.setattr("ocr_pipeline.lake.local.os.fstat", growing)
    with pytest.raises(StorageError, match="changed while it was read"):
        lake.download("inbox/a.pdf", tmp_path / "copy")
    assert grown >= 6
    assert not (tmp_path / "copy").exists()


def test_deleting_the_last_file_of_a_folder_removes_the_folder_but_not_the_first_level(lake: LocalStorage) -> None:
    lake.write("pages/b/d/1", b"x")
    lake.write("pages/b/e/1", b"x")
    lake.delete(["pages/b/d/1"])
    assert os.listdir(Path(lake.root, "pages", "b")) == ["e"]
    lake.delete(["pages/b/e/1"])
    assert os.listdir(lake.root) == ["pages"]
    assert os.listdir(Path(lake.root, "pages")) == []


WRITER = """
import sys
from pathlib import Path
from typing import BinaryIO
from ocr_pipeline.lake.local import LocalStorage
lake = LocalStorage(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    lake.write("a/replaced", bytes([number % 251]) * 300_000)
    lake.create(f"a/created-{number}", bytes([number % 251]) * 300_000)
    print(number, flush=True)
"""


def test_kill_9_in_the_middle_of_writing_leaves_whole_objects_only(lake: LocalStorage) -> None:
    for round_ in range(5):
        with subprocess.Popen([sys.executable, "-c", WRITER, lake.root], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            # Another instant each time: after so many objects.
            for _ in range(3 + round_):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
    found = list(lake.list(""))
    assert len(found) > 2
    for info in found:
        data = lake.read(info.key)
        assert len(data) == 300_000
        assert len(set(data)) == 1


def test_what_a_killed_process_leaves_is_hidden_and_can_be_removed(lake: LocalStorage) -> None:
    lake.write("a/b/x", b"x")
    leftover = Path(lake.root, "a", "b", f".tmp-{'0123' * 8}")
    leftover.write_bytes(b"half")
    theirs = leftover.with_name(".tmp-scan.pdf")
    theirs.write_bytes(b"a file of people")
    assert keys(lake) == ["a/b/x"]
    assert lake.remove_leftovers("a/", before=datetime.now(UTC) - timedelta(days=1)) == 0
    assert lake.remove_leftovers("a/", before=datetime.now(UTC) + timedelta(days=1)) == 1
    assert not leftover.exists()
    assert theirs.exists()


parts = st.text(st.sampled_from("ab-.0é/"), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.sets(parts, max_size=12), parts, parts)
def test_a_folder_lists_as_a_bucket_would(
    tmp_path_factory: pytest.TempPathFactory, names: set[str], prefix: str, after: str
) -> None:
    lake = LocalStorage(tmp_path_factory.mktemp("lake"))
    written = []
    for name in sorted(names):
        try:
            lake.write(name, b"x")
        except StorageError:
            continue
        written.append(name)
    expected = sorted(
        (key for key in written if key.startswith(prefix) and key.encode() > after.encode()), key=str.encode
    )
    try:
        assert keys(lake, prefix, after) == expected
    except StorageError:
        assert expected == []
