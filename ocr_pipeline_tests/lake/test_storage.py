"""What every store promises, held against a local folder, moto's S3 server and Cloudflare's R2 simulator."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ocr_pipeline.lake.opening import is_local, open_storage
from ocr_pipeline.lake.storage import KeyRefused, ObjectMissing, ObjectTooLarge, S3Options, Storage, StorageError

HOSTILE_KEYS = [
    "inbox/plain.pdf",
    "inbox/with space and  two.pdf",
    "inbox/line\nbreak\rand\ttab.pdf",
    "inbox/'single' \"double\" `back`.pdf",
    "inbox/<b>&amp;%41%2F+.pdf",
    "inbox/?versionId=1#fragment;x=[0-9]*.pdf",
    "inbox/Ünïcödé 文書 📄 e\u0301.pdf",
    "inbox/back\\slash.pdf",
    "inbox/~home/$HOME.pdf",
    "inbox/-rf.pdf",
    "inbox/" + "long" * 60 + ".pdf",
]


def keys(storage: Storage, prefix: str = "", start_after: str | None = None) -> list[str]:
    return [info.key for info in storage.list(prefix, start_after)]


def test_what_is_written_is_read_and_the_newest_write_wins(storage: Storage) -> None:
    storage.write("a/b.bin", b"first")
    storage.write("a/b.bin", b"\x00second\xff")
    assert storage.read("a/b.bin") == b"\x00second\xff"
    storage.write("a/empty", b"")
    assert storage.read("a/empty") == b""


def test_a_missing_object_is_said_to_be_missing(storage: Storage, tmp_path: Path) -> None:
    target = tmp_path / "target"
    with pytest.raises(ObjectMissing):
        storage.read("no/such")
    with pytest.raises(ObjectMissing):
        storage.download("no/such", target)
    assert not target.exists()
    assert storage.stat("no/such") is None
    assert list(storage.list("no/")) == []
    storage.delete(["no/such"])


@pytest.mark.parametrize("key", HOSTILE_KEYS)
def test_names_arrive_unchanged(storage: Storage, key: str, tmp_path: Path) -> None:
    if "\n" in key and not storage.is_local:
        pytest.skip("the routes of moto and of the simulator match no line break; see test_s3.py")
    storage.write(key, b"%PDF-")
    assert keys(storage, "inbox/") == [key]
    assert storage.uri_of(key).endswith("/" + key)
    assert storage.read(key) == b"%PDF-"
    info = storage.stat(key)
    assert info is not None
    assert info.key == key
    assert storage.download(key, tmp_path / "copy") == info
    assert not storage.create(key, b"other")
    storage.delete([key])
    assert keys(storage, "inbox/") == []


@pytest.mark.parametrize("key", ["inbox/../../etc/passwd", "..", "inbox/..", "../lake2/x", "./x", "", "a/\ud800.pdf"])
def test_a_key_that_climbs_or_is_no_text_is_refused(storage: Storage, key: str, tmp_path: Path) -> None:
    for use in (
        lambda: storage.read(key),
        lambda: storage.write(key, b"x"),
        lambda: storage.create(key, b"x"),
        lambda: storage.stat(key),
        lambda: storage.delete([key]),
        lambda: storage.download(key, tmp_path / "target"),
    ):
        with pytest.raises(KeyRefused):
            use()


def test_create_is_for_the_first_only_and_a_lost_race_is_an_answer(storage: Storage) -> None:
    start = threading.Barrier(8)

    def race(number: int) -> bool:
        start.wait()
        return storage.create("batches/one.json", b"%d" % number)

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(race, range(8)))
    assert won.count(True) == 1
    assert storage.read("batches/one.json") == b"%d" % won.index(True)
    assert storage.create("batches/one.json", b"late") is False
    assert keys(storage) == ["batches/one.json"]


def test_listing_is_sorted_by_bytes_over_folders_and_starts_after_any_key(storage: Storage) -> None:
    names = ["a.pdf", "a/b.pdf", "a/b/c.pdf", "a-b/x", "a0", "a/z", "B", "é", "文", "📄", "zz/1"]
    all_keys = [f"in/{name}" for name in names]
    storage.write_many((key, b"x") for key in [*all_keys, "inn/other", "on"])
    expected = sorted(all_keys, key=str.encode)
    assert keys(storage, "in/") == expected
    assert keys(storage, "in/a") == [key for key in expected if key.startswith("in/a")]
    assert keys(storage, "in") == [*expected, "inn/other"]
    for start in [*expected, "in/a/", "in/a/b/", "in/a/b0", "in/a/a", "in", "in/zzz", "a", "z"]:
        after = [key for key in expected if key.encode() > start.encode()]
        assert keys(storage, "in/", start) == after, start


def test_hidden_files_and_folders_are_not_listed(storage: Storage, tmp_path: Path) -> None:
    storage.write("in/seen.pdf", b"x")
    for key in ("in/.hidden.pdf", "in/.git/x.pdf", ".config/in.pdf"):
        if storage.is_local:
            path = Path(storage.uri_of(key))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        else:
            storage.write(key, b"x")
    assert keys(storage) == ["in/seen.pdf"]
    assert keys(storage, "in/.git/") == []


def test_an_object_says_its_size_its_time_and_another_etag_when_its_bytes_change(storage: Storage) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    storage.write("in/a.pdf", b"12345")
    first = storage.stat("in/a.pdf")
    assert first is not None
    assert first.size == 5
    assert before <= first.last_modified <= datetime.now(UTC) + timedelta(seconds=2)
    assert first.last_modified.utcoffset() == timedelta(0)
    assert [first.etag] == [info.etag for info in storage.list("in/")]
    storage.write("in/a.pdf", b"54321")
    second = storage.stat("in/a.pdf")
    assert second is not None
    assert second.etag != first.etag


def test_download_refuses_what_is_too_large_and_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    storage.write("in/a.pdf", b"x" * 1000)
    target = tmp_path / "target"
    with pytest.raises(ObjectTooLarge, match="1000 bytes"):
        storage.download("in/a.pdf", target, max_bytes=999)
    assert not target.exists()
    assert storage.download("in/a.pdf", target, max_bytes=1000).size == 1000
    assert target.read_bytes() == b"x" * 1000


def test_a_large_file_goes_up_and_comes_down_whole(storage: Storage, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    # Not a multiple of the part size; R2 refuses parts of unequal size, and its simulator too.
    source.write_bytes(os.urandom(1 << 20) * 37 + b"end")
    storage.upload("in/large.pdf", source)
    info = storage.download("in/large.pdf", target)
    assert info.size == source.stat().st_size
    assert target.read_bytes() == source.read_bytes()
    assert keys(storage) == ["in/large.pdf"]


@pytest.mark.parametrize("size", [0, 1, 16 * 2**20])
def test_upload_takes_any_size(storage: Storage, tmp_path: Path, size: int) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * size)
    storage.upload("in/a.pdf", source)
    assert storage.read("in/a.pdf") == b"x" * size


def test_a_file_that_cannot_be_read_is_its_own_fault_and_not_the_stores(storage: Storage, tmp_path: Path) -> None:
    """The first of them opens and answers its first read with an I/O error, as on a stick that was pulled out."""
    storage.write("in/a.pdf", b"older")
    for source, fault in ((Path("/proc/self/mem"), errno.EIO), (tmp_path / "gone", errno.ENOENT)):
        with pytest.raises(OSError, match=os.strerror(fault)):
            storage.upload("in/a.pdf", source)
    assert storage.read("in/a.pdf") == b"older"
    assert keys(storage) == ["in/a.pdf"]


def test_many_are_read_and_written_side_by_side_in_order_with_gaps_told(storage: Storage) -> None:
    items = [(f"many/{number:03d}", b"%d" % number) for number in range(50)]
    storage.write_many(items)
    asked = [key for key, _ in items]
    asked.insert(7, "many/none")
    answered = list(storage.read_many(iter(asked)))
    assert [key for key, _ in answered] == asked
    assert dict(answered) == {**dict(items), "many/none": None}
    storage.delete(asked)
    assert keys(storage) == []


def test_an_error_in_a_bulk_call_is_raised(storage: Storage) -> None:
    with pytest.raises(StorageError):
        storage.write_many([("ok", b"x"), ("../not ok", b"x")])
    with pytest.raises(StorageError):
        list(storage.read_many(["ok", "../not ok"]))


def test_listing_more_than_a_page_of_a_bucket_is_complete(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocr_pipeline.lake.s3.PAGE_KEYS", 10)
    names = [f"p/{number:02d}" for number in range(33)]
    storage.write_many((name, b"") for name in names)
    assert keys(storage, "p/") == names
    assert keys(storage, "p/", "p/05") == names[6:]


def test_only_folders_and_s3_are_opened() -> None:
    with pytest.raises(StorageError, match="give a local folder or s3://bucket/prefix"):
        open_storage("gs://bucket/x")
    with pytest.raises(StorageError, match="R2_ACCESS_KEY_ID"):
        open_storage("s3://bucket/x")
    with pytest.raises(StorageError, match="names no bucket"):
        open_storage("s3://")


@pytest.mark.parametrize(
    ("url", "local"), [("data/lake", True), ("file:///data/a%20lake", True), ("s3://bucket/prefix", False)]
)
def test_a_url_says_whether_its_store_is_a_folder_of_this_machine(url: str, local: bool) -> None:
    opened = open_storage(url, S3Options("key", "secret", endpoint_url="http://127.0.0.1:1"))
    assert (is_local(url), opened.is_local) == (local, local)
