"""Which files of what people give are taken, under which keys, and that nothing is passed over without a word."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocr_pipeline.intake import inbox, sources
from ocr_pipeline.intake.sources import Found, Places, Source, SourceError
from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.lake.s3 import PART_BYTES
from ocr_pipeline.records import Reason, Upload
from ocr_pipeline_tests.storages import RunningStore

PDF = b"%PDF-1.7 a small one"


@pytest.fixture
def papers(tmp_path: Path) -> Path:
    folder = tmp_path / "papers"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.pdf").write_bytes(PDF)
    (folder / "sub" / "no-ending").write_bytes(PDF)
    return folder


@pytest.fixture
def anyone() -> Iterator[Path]:
    """A folder that others may enter; the test runs as somebody whom rights bind."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "papers").mkdir()
        yield folder / "papers"


def keys_of(found: Found) -> list[str]:
    return sorted(source.key for source in found.sources)


def find(*paths: Path, places: Places | None = None) -> Found:
    return sources.find(paths, places or Places("inbox/"))


def test_what_is_no_pdf_is_counted_by_its_kind(papers: Path) -> None:
    (papers / "notes.txt").write_text("words")
    (papers / ".hidden.pdf").write_bytes(PDF)
    (papers / ".git").mkdir()
    (papers / "old").symlink_to("nowhere")
    os.mkfifo(papers / "pipe.pdf")
    found = find(papers)
    assert keys_of(found) == ["inbox/papers/a.pdf", "inbox/papers/sub/no-ending"]
    assert found.left_alone == {
        "files that are not PDFs": 1,
        "hidden files and folders": 2,
        "links to nothing": 1,
        "pipes, sockets and devices": 1,
    }
    assert found.not_taken == []


def test_links_are_followed_to_each_folder_once(papers: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "b.pdf").write_bytes(PDF)
    (papers / "file.pdf").symlink_to(elsewhere / "b.pdf")
    (papers / "a-folder").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(papers)
    (papers / "again").symlink_to(papers / "sub")
    found = find(papers)
    assert keys_of(found) == [
        "inbox/papers/a-folder/b.pdf",
        "inbox/papers/a.pdf",
        "inbox/papers/file.pdf",
        "inbox/papers/sub/no-ending",
    ]
    assert found.left_alone == {"links to folders that are looked at anyway": 2}


def test_a_pdf_that_cannot_be_had_is_listed_and_the_others_are_taken(papers: Path) -> None:
    (papers / "gone.pdf").symlink_to("nowhere.pdf")
    (papers / "round").symlink_to("round")
    bad_name = os.fsencode(papers) + b"/caf\xe9.pdf"
    Path(os.fsdecode(bad_name)).write_bytes(PDF)
    found = find(papers)
    assert keys_of(found) == ["inbox/papers/a.pdf", "inbox/papers/sub/no-ending"]
    assert {(one.path.rsplit("/", 1)[-1], one.reason) for one in found.not_taken} == {
        ("gone.pdf", Reason.MISSING),
        ("round", Reason.UNREADABLE),
        ("caf\\xe9.pdf", Reason.BAD_NAME),
    }
    assert all(one.path.isascii() for one in found.not_taken)


def test_a_folder_or_file_without_the_right_to_read_it_is_listed(anyone: Path) -> None:
    (anyone / "open.pdf").write_bytes(PDF)
    (anyone / "closed").mkdir()
    (anyone / "closed" / "b.pdf").write_bytes(PDF)
    (anyone / "no-ending").write_bytes(PDF)
    (anyone / "closed").chmod(0)
    (anyone / "no-ending").chmod(0)
    as_root = os.geteuid() == 0
    if as_root:
        os.seteuid(65534)
    try:
        found = find(anyone)
    finally:
        if as_root:
            os.seteuid(0)
        (anyone / "closed").chmod(0o755)
    assert keys_of(found) == ["inbox/papers/open.pdf"]
    assert sorted((Path(one.path).name, one.reason) for one in found.not_taken) == [
        ("closed", Reason.UNREADABLE),
        ("no-ending", Reason.UNREADABLE),
    ]


def test_a_pipe_that_is_named_itself_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pdf")
    with pytest.raises(SourceError, match="is a pipe"):
        find(tmp_path / "pipe.pdf")


def test_the_pipelines_own_folders_are_no_sources_of_a_folder_that_holds_them(papers: Path) -> None:
    data = papers / "data"
    (data / "lake" / "inbox" / "papers").mkdir(parents=True)
    (data / "lake" / "inbox" / "papers" / "a.pdf").write_bytes(PDF)
    (data / "other.pdf").write_bytes(PDF)
    (papers / "sub" / "link").symlink_to(data / "lake" / "inbox")
    places = Places("inbox/", data / "lake", data)
    found = find(papers, places=places)
    assert keys_of(found) == ["inbox/papers/a.pdf", "inbox/papers/sub/no-ending"]
    assert found.left_alone == {"folders of the pipeline itself": 2}


def test_what_lies_in_the_inbox_already_keeps_its_key_and_is_not_written_again(tmp_path: Path) -> None:
    lake = open_storage(str(tmp_path / "lake"))
    lake.write("inbox/mine/a.pdf", PDF)
    lake.write("inbox/b.pdf", PDF)
    places = Places("inbox/", tmp_path / "lake", tmp_path)
    folder = tmp_path / "lake" / "inbox"
    assert keys_of(find(folder, places=places)) == ["inbox/b.pdf", "inbox/mine/a.pdf"]
    assert keys_of(find(folder / "mine", places=places)) == ["inbox/mine/a.pdf"]
    found = find(folder / "b.pdf", places=places)
    assert keys_of(found) == ["inbox/b.pdf"]
    before = lake.stat("inbox/b.pdf")
    inbox.put(lake, found.sources[0])
    assert lake.stat("inbox/b.pdf") == before


def test_the_rest_of_the_lake_is_refused(tmp_path: Path) -> None:
    lake = open_storage(str(tmp_path / "lake"))
    lake.write("pages/b/d/0001.jpg", b"x")
    places = Places("inbox/", tmp_path / "lake", tmp_path)
    for path in (tmp_path / "lake", tmp_path / "lake" / "pages", tmp_path / "lake" / "pages/b/d/0001.jpg"):
        with pytest.raises(SourceError, match="lies in the lake"):
            find(path, places=places)


def test_unchanged_bytes_are_not_written_again(tmp_path: Path) -> None:
    lake = open_storage(str(tmp_path / "lake"))
    (tmp_path / "a.pdf").write_bytes(PDF)
    source = Source(tmp_path / "a.pdf", "inbox/a.pdf")
    first = inbox.put(lake, source)
    os.utime(tmp_path / "a.pdf")
    assert inbox.put(lake, source) == first
    (tmp_path / "a.pdf").write_bytes(PDF + b"!")
    assert inbox.put(lake, source) != first


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize("size", [0, 1000, PART_BYTES, PART_BYTES + 1])
def test_unchanged_bytes_are_not_sent_to_a_bucket_again_whether_they_were_sent_whole_or_in_parts(
    moto: RunningStore, tmp_path: Path, size: int, in_parts: bool
) -> None:
    """`put` itself sends a new file whole, and one that replaces another in parts."""
    lake = open_storage(moto.new_lake(), moto.options)
    path = tmp_path / "a.pdf"
    source = Source(path, "inbox/a.pdf")
    if in_parts:
        lake.write(source.key, b"older and of another length")
    path.write_bytes(os.urandom(size))
    first = inbox.put(lake, source)
    assert isinstance(first, Upload)
    assert ("-" in first.etag) is (in_parts and size >= PART_BYTES)
    sent: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lake, "upload", lambda key, path: sent.append(key))
        assert inbox.put(lake, source) == first
        assert sent == []
        path.write_bytes(os.urandom(size)[:-1] + b"!" if size else b"")
        inbox.put(lake, source)
    assert sent == ([source.key] if size else [])
