"""Where a document is, and how long it should still take."""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from ocr_pipeline.flow.document_stream import LONG_DOCUMENT
from ocr_pipeline.lake import batches, keys, planner
from ocr_pipeline.lake.local import LocalStorage
from ocr_pipeline.lake.storage import ObjectInfo, Tell
from ocr_pipeline.records import Attempt, Batch, PageAttempt, PageImage, Upload
from ocr_pipeline.upkeep.expected_time import pace, pages_until_read
from ocr_pipeline.upkeep.whereabouts import MOST, Stage, find
from ocr_pipeline.warehouse.load import load_batch
from ocr_pipeline_tests.flow.doubles import Answer
from ocr_pipeline_tests.pdfs import numbered
from ocr_pipeline_tests.upkeep.pipeline import Pipeline
from ocr_pipeline_tests.warehouse.sample_rows import result, to_tables


def test_a_document_is_found_at_every_stage_of_its_way(pipeline: Pipeline) -> None:
    def stages() -> list[Stage]:
        return [found.stage for found in find(pipeline.lake, pipeline.warehouse, "inbox/", "report").documents]

    assert stages() == []
    pipeline.lake.write("inbox/2026/Report.pdf", numbered(2))
    assert stages() == [Stage.INBOX]
    batch = pipeline.cut({"2026/Report.pdf": numbered(2)})
    assert stages() == [Stage.BATCH]
    pipeline.service.run(batch)
    assert stages() == [Stage.READ]
    pipeline.process(batch)
    (found,) = find(pipeline.lake, pipeline.warehouse, "inbox/", "report").documents
    assert (found.stage, found.pages_done, found.pages, found.batch) == (Stage.TABLES, 2, 2, batch.name)


def test_what_waits_in_the_inbox_is_found_beside_what_is_done(pipeline: Pipeline) -> None:
    def stages(text: str) -> dict[str, Stage]:
        return {found.key: found.stage for found in find(pipeline.lake, pipeline.warehouse, "inbox/", text).documents}

    pipeline.process(pipeline.cut({"plain.pdf": numbered(1)}))
    pipeline.lake.write("inbox/plain-2.pdf", numbered(1, "2"))
    assert stages("plain") == {"inbox/plain.pdf": Stage.TABLES, "inbox/plain-2.pdf": Stage.INBOX}
    pipeline.lake.write("inbox/plain.pdf", numbered(2, "again"))  # uploaded again, in no batch yet
    (found,) = find(pipeline.lake, pipeline.warehouse, "inbox/", "plain.pdf").documents
    assert (found.stage, found.batch) == (Stage.INBOX, None)
    assert found.row is not None
    assert found.row.page_count == 1
    assert stages("elsewhere") == {}


class InOneSecond(LocalStorage):
    """A lake whose objects all came in one second: a bucket dates them by whole ones."""

    def stat(self, key: str) -> ObjectInfo | None:
        info = super().stat(key)
        return info and replace(info, last_modified=datetime(2026, 11, 1, tzinfo=UTC))

    def list(self, prefix: str, start_after: str | None = None, tell: Tell | None = None) -> Iterator[ObjectInfo]:
        for info in super().list(prefix, start_after, tell):
            yield replace(info, last_modified=datetime(2026, 11, 1, tzinfo=UTC))


def test_of_two_versions_in_one_second_the_one_in_the_inbox_is_followed_whatever_its_batch_is_called(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    def look() -> tuple[Stage, str | None, int]:
        (found,) = find(pipeline.lake, pipeline.warehouse, "inbox/", "a.pdf").documents
        return found.stage, found.batch, found.pages_done

    def listed(upload: Upload) -> Batch:
        return Batch(planner.name([upload]), (upload,))

    def put(pages: int, word: str) -> Batch:
        pipeline.lake.write("inbox/a.pdf", numbered(pages, word))
        info = pipeline.lake.stat("inbox/a.pdf")
        assert info is not None
        return listed(info.as_upload())

    pipeline.service.close()
    pipeline.lake = InOneSecond(tmp_path / "in-one-second")
    pipeline.use(pipeline.transcriber)
    replaced = put(1, "replaced")
    newer = next(batch for number in count() if (batch := put(2, f"newer {number}")).name < replaced.name)
    for batch in (replaced, newer):
        batches.write(pipeline.lake, batch)
    pipeline.process(replaced)
    assert look() == (Stage.BATCH, newer.name, 0)
    pipeline.process(newer)
    assert look() == (Stage.TABLES, newer.name, 2)
    pipeline.lake.delete(["inbox/a.pdf"])
    assert look() == (Stage.TABLES, newer.name, 2)


def test_the_expected_time_knows_no_idle_nights(pipeline: Pipeline) -> None:
    def attempt(number: int, started_at: datetime, backend: str, seconds: float) -> PageAttempt:
        sent = Attempt(
            document_id=f"{number:024x}",
            page_number=1,
            attempt=1,
            backend=backend,
            model="m",
            choice="c",
            started_at=started_at,
            seconds=seconds,
            outcome="ok",
        )
        return PageAttempt("r", sent)

    assert pace(pipeline.warehouse).seconds_for(3) is None
    noon = datetime(2026, 11, 22, 12, tzinfo=UTC)
    sent = [attempt(n, noon + timedelta(days=n), "slow", 2.0) for n in range(2)]
    sent += [attempt(9 + n, noon + timedelta(days=1, seconds=n), "fast", 0.5) for n in range(2)]
    load_batch(pipeline.warehouse, "b", to_tables([replace(result("a", batch="b"), attempts=tuple(sent))]))
    speed = pace(pipeline.warehouse)
    assert speed.pages_per_second == pytest.approx(0.5 + 2.0)
    assert speed.pages_per_document == 2
    assert speed.seconds_for(10) == pytest.approx(10 / 2.5)


def found(pipeline: Pipeline, text: str) -> list[str]:
    return [one.key for one in find(pipeline.lake, pipeline.warehouse, "inbox/", text).documents]


def test_a_whole_name_comes_before_parts_of_longer_ones_and_what_is_left_out_is_counted(pipeline: Pipeline) -> None:
    pipeline.cut(dict.fromkeys(("a.pdf", "xa.pdf", "a.pdf.pdf"), b"%PDF-"))
    assert found(pipeline, "A.pdf") == ["inbox/a.pdf", "inbox/a.pdf.pdf", "inbox/xa.pdf"]
    assert found(pipeline, keys.document_id("inbox/xa.pdf")) == ["inbox/xa.pdf"]
    assert found(pipeline, pipeline.lake.uri_of("inbox/xa.pdf")) == ["inbox/xa.pdf"]
    pipeline.cut({f"many-{n}.pdf": b"%PDF-" for n in range(MOST + 11)})
    many = find(pipeline.lake, pipeline.warehouse, "inbox/", "many")
    assert (len(many.documents), many.more) == (MOST, 11)


def test_a_path_that_a_shell_has_completed_is_found_and_a_part_of_the_lakes_own_is_not(pipeline: Pipeline) -> None:
    pipeline.cut(dict.fromkeys(("papers/b.pdf", "papers/a.pdf.pdf", "papers/a.pdf"), b"%PDF-"))
    root = pipeline.lake.uri_of("").removesuffix("/")
    own = root.rsplit("/", 1)[1]
    a, longer, b = (f"inbox/papers/{name}" for name in ("a.pdf", "a.pdf.pdf", "b.pdf"))
    for lake in (own, f"/{own}", root):
        assert found(pipeline, f"{lake}/{b}") == [b]
        assert found(pipeline, f"{lake}/{a}") == [a, longer]
        assert found(pipeline, f"{lake}/inbox/papers/") == [a, longer, b]
        assert found(pipeline, f"{lake}/") == found(pipeline, lake) == []  # it is in every URI


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_name_is_found_however_its_accents_are_written(pipeline: Pipeline, form: str) -> None:
    name = unicodedata.normalize(form, "Müller.pdf")  # type: ignore[arg-type]
    pipeline.cut({name: numbered(1)})
    for asked in ("NFC", "NFD"):
        assert found(pipeline, unicodedata.normalize(asked, "müller")) == [f"inbox/{name}"]  # type: ignore[arg-type]


def test_the_length_of_a_long_document_is_known_while_it_is_drawn(pipeline: Pipeline) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def script(image: PageImage) -> Answer | None:
        begun.set()
        go_on.wait(60)
        return None

    pipeline.transcriber.script = script
    batch = pipeline.cut({"book.pdf": numbered(LONG_DOCUMENT)})
    pipeline.service.begin(batch)
    try:
        assert begun.wait(60)
        (book,) = find(pipeline.lake, pipeline.warehouse, "inbox/", "book").documents
    finally:
        go_on.set()
        pipeline.process(batch)
    assert (book.stage, book.pages) == (Stage.PAGES, LONG_DOCUMENT)


def listed(pipeline: Pipeline, name: str, documents: int, *, urgent: bool = False) -> Batch:
    now = datetime(2026, 11, 1, tzinfo=UTC)
    batch = Batch(name, tuple(Upload(f"inbox/{name}-{n}.pdf", "e", 1, now) for n in range(documents)), urgent=urgent)
    batches.write(pipeline.lake, batch)
    return batch


def test_records_of_one_document_that_cannot_be_read_keep_no_other_from_being_told(pipeline: Pipeline) -> None:
    batch = pipeline.cut({"a.pdf": numbered(1), "b.pdf": numbered(1, "b")})
    a, b = (keys.document_id(f"inbox/{name}.pdf") for name in "ab")
    pipeline.service.run(batch)
    pipeline.lake.write(keys.page_count(batch.name, a), b"")
    pipeline.lake.write(keys.rendered(batch.name, a), b"torn")
    found = find(pipeline.lake, pipeline.warehouse, "inbox/", ".pdf")
    assert [(one.stage, one.pages_done, one.pages) for one in found.documents] == [
        (Stage.PAGES, 1, None), (Stage.READ, 1, 1),
    ]  # fmt: skip
    (error,) = found.unreadable
    assert keys.rendered(batch.name, a) in error
    assert pages_until_read(pipeline.lake, [batch.name], [batch.name], 2.0) == {batch.name: 0.0}
    pipeline.lake.delete([keys.reading(batch.name, document) for document in (a, b)])
    assert pages_until_read(pipeline.lake, [batch.name], [batch.name], 2.0) == {batch.name: 2.0}


def test_the_expected_time_counts_the_pages_that_are_left_of_what_comes_before(pipeline: Pipeline) -> None:
    book = listed(pipeline, "20261101T000001Z-aaaaaaaaaaaa", 2)
    listed(pipeline, "20261101T000002Z-bbbbbbbbbbbb", 3)
    listed(pipeline, "20261101T000003Z-cccccccccccc", 1, urgent=True)
    waiting = [*batches.names(pipeline.lake)]

    def left(at_work: list[str]) -> list[float]:
        found = pages_until_read(pipeline.lake, waiting, at_work, 2.0)
        return [found[name] for name in waiting]

    assert left([]) == [2 + 4, 2 + 4 + 6, 2]  # the urgent one first
    assert left([book.name]) == [4, 4 + 2 + 6, 4 + 2]  # what has begun is not put off
    long, short = (keys.document_id(upload.key) for upload in book.uploads)
    pipeline.lake.write(keys.page_count(book.name, long), b"300")
    assert left([book.name])[0] == 302
    for page in range(1, 151):
        pipeline.lake.write(keys.page_image(book.name, long, page), b"")
    for page in range(1, 4):
        pipeline.lake.write(keys.page_image(book.name, short, page), b"")  # more than is usual
    assert left([book.name])[0] == 150
    pipeline.lake.write(keys.reading(book.name, long), b"")
    assert left([book.name]) == [0, 2 + 6, 2]
