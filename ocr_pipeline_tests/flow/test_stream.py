"""One batch as a stream on a real folder and real PDFs: what is asked, what is kept, what each bad thing becomes."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ocr_pipeline import checks
from ocr_pipeline.flow import reading, rendered
from ocr_pipeline.flow.batch_run import StreamOptions
from ocr_pipeline.flow.published import read_manifest
from ocr_pipeline.flow.publishing import publish
from ocr_pipeline.flow.results import NotMade
from ocr_pipeline.flow.service import OcrService
from ocr_pipeline.lake import batches, deletions, keys, planner, transcripts
from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.lake.storage import ObjectForbidden, ObjectUnreadable, Storage, StorageError
from ocr_pipeline.records import Batch, Deletion, DocumentResult, PageImage, PageStatus, Reason, Transcript, Upload
from ocr_pipeline_tests.flow.doubles import Answer, ScriptedTranscriber
from ocr_pipeline_tests.flow.rows import attempts, rows
from ocr_pipeline_tests.pdfs import numbered, pdf

Run = Callable[..., list[DocumentResult]]


@pytest.fixture
def lake(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "lake"))


@pytest.fixture
def transcriber() -> ScriptedTranscriber:
    return ScriptedTranscriber()


@pytest.fixture
def service(lake: Storage, transcriber: ScriptedTranscriber) -> Iterator[OcrService]:
    with_service = OcrService(lake, lambda: transcriber, StreamOptions(render_workers=1))
    yield with_service
    with_service.close()


FIGURE = "<|ref|>image<|/ref|><|det|>[[100, 100, 500, 300]]<|/det|>\n"


@contextmanager
def grounded_service(lake: Storage, said: str) -> Iterator[OcrService]:
    """A service whose engine answers every page with `said`, in the grounding format."""
    transcriber = ScriptedTranscriber(lambda image: said, format="grounding")
    service = OcrService(lake, lambda: transcriber, StreamOptions(render_workers=1))
    try:
        yield service
    finally:
        service.close()


def put(lake: Storage, files: dict[str, bytes]) -> Batch:
    """Writes uploads and cuts them into one batch."""
    for name, data in files.items():
        lake.write(f"inbox/{name}", data)
    stats = [lake.stat(f"inbox/{name}") for name in files]
    plan = planner.plan([info.as_upload() for info in stats if info], set(), planner.BatchLimits())
    batches.write(lake, plan.batches[0])
    return plan.batches[0]


def statuses(result: DocumentResult) -> list[str]:
    return [page.status.value for page in result.pages]


def test_each_page_becomes_a_row_a_transcript_and_a_part_of_the_markdown_file(
    lake: Storage, service: OcrService
) -> None:
    batch = put(lake, {"a.pdf": numbered(12)})
    service.run(batch)
    (result,) = rows(lake, batch)
    assert statuses(result) == ["ok"] * 12
    assert checks.imbalances(batch, [result]) == []
    assert [page.page_number for page in result.pages] == list(range(1, 13))
    markdown = lake.read(keys.markdown("inbox/a.pdf")).decode()
    assert markdown.index("This is page 2 of") < markdown.index("This is page 11 of")
    assert len(list(lake.list(keys.TRANSCRIPTS))) == 12


def test_a_second_run_asks_nothing_and_gives_the_same_rows(
    lake: Storage, service: OcrService, transcriber: ScriptedTranscriber
) -> None:
    batch = put(lake, {"a.pdf": numbered(5), "b.pdf": b"no pdf", "c.pdf": pdf(["", "text"])})
    service.run(batch)
    first, asked = rows(lake, batch), transcriber.asked.total()
    service.run(batch)
    assert transcriber.asked.total() == asked == 6
    assert rows(lake, batch) == first


@pytest.mark.parametrize("kind", ["rendered", "transcript"])
def test_a_record_of_drawing_or_a_transcript_that_is_broken_is_made_anew_and_stops_no_batch(
    lake: Storage, service: OcrService, transcriber: ScriptedTranscriber, kind: str
) -> None:
    def texts() -> list[str]:
        return [page.markdown for result in rows(lake, batch) for page in result.pages]

    batch = put(lake, {"a.pdf": numbered(2), "b.pdf": numbered(1, "b")})
    service.run(batch)
    before, asked = texts(), transcriber.asked.total()
    key = keys.rendered(batch.name, keys.document_id("inbox/a.pdf"))
    if kind == "transcript":
        key = keys.transcript(transcriber.recipe_id, rendered.parse(key, lake.read(key)).pages[0].image_sha256 or "")
    lake.write(key, b"")
    service.run(batch)
    assert transcriber.asked.total() - asked == (1 if kind == "transcript" else 0)
    assert lake.read(key) != b""
    assert texts() == before


def test_a_record_or_transcript_that_this_user_may_not_read_is_not_taken_for_broken(bound_by_rights: Path) -> None:
    lake = open_storage(str(bound_by_rights / "lake"))
    for key, read in (
        (keys.reading("batch", "document"), lambda: reading.read_sound(lake, "batch", "document")),
        (keys.transcript("recipe", "image"), lambda: transcripts.read_sound(lake, "recipe", "image")),
    ):
        lake.write(key, b"torn")
        assert read() is None
        Path(lake.uri_of(key)).chmod(0)
        with pytest.raises(ObjectForbidden, match=f"{re.escape(key)}: Permission denied; give this user the right"):
            read()


def test_a_broken_record_of_drawing_ends_the_run_where_its_upload_is_gone_and_nothing_else_has_its_pages(
    lake: Storage, service: OcrService
) -> None:
    batch = put(lake, {"a.pdf": numbered(2)})
    service.run(batch)
    key = keys.rendered(batch.name, keys.document_id("inbox/a.pdf"))
    lake.write(key, b"")
    lake.delete(["inbox/a.pdf"])
    with pytest.raises(ObjectUnreadable, match=re.escape(key)):
        service.run(batch)
    assert lake.read(key) == b""


def test_a_record_of_reading_that_is_broken_is_made_anew_by_the_next_run(
    lake: Storage, service: OcrService, transcriber: ScriptedTranscriber
) -> None:
    batch = put(lake, {"a.pdf": numbered(2), "b.pdf": numbered(1, "b")})
    service.run(batch)
    key = keys.reading(batch.name, keys.document_id("inbox/a.pdf"))
    record, asked = lake.read(key), dict(transcriber.asked)
    lake.write(key, record[:100])
    service.run(batch)
    assert lake.read(key) == record
    assert dict(transcriber.asked) == asked


def test_an_edited_pdf_asks_only_for_its_changed_page(
    lake: Storage, service: OcrService, transcriber: ScriptedTranscriber
) -> None:
    texts = [f"Page {number} says this." for number in range(1, 7)]
    service.run(put(lake, {"a.pdf": pdf(texts)}))
    transcriber.asked.clear()
    texts[3] = "Page 4 says something else."
    batch = put(lake, {"a.pdf": pdf(texts)})
    service.run(batch)
    assert list(transcriber.asked) == [(keys.document_id("inbox/a.pdf"), 4)]
    (result,) = rows(lake, batch)
    assert "something else" in result.pages[3].markdown
    assert len(attempts(lake, batch)) == 6  # the five reused transcripts are still this document's own requests


def test_the_same_page_in_two_documents_is_asked_once_and_is_one_attempt(
    lake: Storage, service: OcrService, transcriber: ScriptedTranscriber
) -> None:
    batch = put(lake, {"a.pdf": pdf(["the same page"]), "b.pdf": pdf(["the same page"])})
    service.run(batch)
    found = rows(lake, batch)
    assert transcriber.asked.total() == 1
    assert [statuses(result) for result in found] == [["ok"], ["ok"]]
    assert len(attempts(lake, batch)) == 1


def test_a_blank_page_is_recognised_before_any_engine_sees_it(
    lake: Storage, service: OcrService, transcriber: ScriptedTranscriber
) -> None:
    batch = put(lake, {"a.pdf": pdf(["first", "", "third"])})
    service.run(batch)
    (result,) = rows(lake, batch)
    assert statuses(result) == ["ok", "blank", "ok"]
    assert transcriber.asked.total() == 2


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", Reason.EMPTY_FILE), (b"hello", Reason.NOT_A_PDF), (b"%PDF-1.7\n" + b"\0" * 5000, Reason.DAMAGED)],
)
def test_a_bad_upload_is_one_rejected_row_and_the_rest_goes_on(
    lake: Storage, service: OcrService, data: bytes, reason: Reason
) -> None:
    batch = put(lake, {"bad.pdf": data, "good.pdf": numbered(2)})
    service.run(batch)
    by_name = {r.document.source_uri.rsplit("/", 1)[-1]: r for r in rows(lake, batch)}
    assert (by_name["bad.pdf"].document.status, by_name["bad.pdf"].document.reason) == ("rejected", reason)
    assert statuses(by_name["good.pdf"]) == ["ok", "ok"]


def test_a_failed_page_falls_back_to_the_text_layer_and_says_why(
    lake: Storage, service: OcrService, transcriber: ScriptedTranscriber
) -> None:
    transcriber.script = lambda image: Reason.REPETITION if image.page_number == 2 else None
    batch = put(lake, {"a.pdf": numbered(3)})
    service.run(batch)
    (result,) = rows(lake, batch)
    assert statuses(result) == ["ok", "fallback", "ok"]
    assert result.pages[1].reason is Reason.REPETITION
    assert "This is page 2" in result.pages[1].markdown


def test_pages_that_no_backend_could_be_had_for_are_asked_again_and_others_are_not(
    lake: Storage, transcriber: ScriptedTranscriber
) -> None:
    def down(image: PageImage) -> Answer | None:
        return {1: Reason.BACKEND_UNAVAILABLE, 2: Reason.REFUSED}.get(image.page_number)

    transcriber.script = down
    service = OcrService(lake, lambda: transcriber, StreamOptions(render_workers=1, text_layer="never"))
    try:
        batch = put(lake, {"a.pdf": numbered(3)})
        service.run(batch)
        (result,) = rows(lake, batch)
        assert statuses(result) == ["failed", "failed", "ok"]
        transcriber.script = lambda image: None
        transcriber.asked.clear()
        service.run(batch)
        assert list(transcriber.asked.values()) == [1]
        (result,) = rows(lake, batch)
        assert statuses(result) == ["ok", "failed", "ok"]
        assert [attempt for page, attempt in attempts(lake, batch) if page == 1] == [1, 2]
    finally:
        service.close()


def test_a_retry_asks_for_the_pages_with_its_reason_once(lake: Storage, transcriber: ScriptedTranscriber) -> None:
    transcriber.script = lambda image: {1: Reason.REPETITION, 2: Reason.TRUNCATED}.get(image.page_number)
    service = OcrService(lake, lambda: transcriber, StreamOptions(render_workers=1, text_layer="never"))
    try:
        batch = put(lake, {"a.pdf": numbered(3)})
        service.run(batch)
        transcriber.asked.clear()
        again = planner.retry(dict.fromkeys(batch.uploads, batch.name), [Reason.REPETITION], datetime.now(UTC))
        for _ in range(2):
            service.run(again)
        assert dict(transcriber.asked) == {(keys.document_id("inbox/a.pdf"), 1): 1}
    finally:
        service.close()


def test_an_upload_that_was_replaced_or_deleted_since_its_batch_was_cut_says_so(
    lake: Storage, service: OcrService
) -> None:
    batch = put(lake, {"a.pdf": numbered(1), "b.pdf": numbered(1)})
    lake.write("inbox/a.pdf", numbered(2))
    lake.delete(["inbox/b.pdf"])
    service.run(batch)
    reasons = {r.document.source_uri[-5:]: r.document.reason for r in rows(lake, batch)}
    assert reasons == {"a.pdf": Reason.REPLACED, "b.pdf": Reason.MISSING}


def test_a_file_that_may_not_be_read_is_one_rejected_row_and_the_rest_of_its_batch_goes_on(
    lake: Storage, service: OcrService, tmp_path: Path
) -> None:
    batch = put(lake, {"a.pdf": numbered(2), "secret.pdf": numbered(1)})
    # the lake answers and does not give this one: a link that leaves it, since rights do not bind root
    path = tmp_path / "lake" / "inbox" / "secret.pdf"
    path.rename(tmp_path / "outside.pdf")
    path.symlink_to(tmp_path / "outside.pdf")
    service.run(batch)
    by_name = {r.document.source_uri.rsplit("/", 1)[-1]: r for r in rows(lake, batch)}
    rejected = by_name["secret.pdf"].document
    assert (rejected.status, rejected.reason) == ("rejected", Reason.UNREADABLE)
    assert "link that leaves the lake" in (rejected.detail or "")
    assert statuses(by_name["a.pdf"]) == ["ok", "ok"]
    assert checks.imbalances(batch, list(by_name.values())) == []


def test_a_file_that_may_no_longer_be_read_once_it_was_drawn_keeps_its_pages(
    lake: Storage, service: OcrService, tmp_path: Path
) -> None:
    batch = put(lake, {"a.pdf": numbered(2)})
    service.run(batch)
    path = tmp_path / "lake" / "inbox" / "a.pdf"
    path.rename(tmp_path / "outside.pdf")
    path.symlink_to(tmp_path / "outside.pdf")
    service.run(batch, render=False)
    (result,) = rows(lake, batch)
    assert statuses(result) == ["ok", "ok"]
    assert lake.stat(keys.markdown("inbox/a.pdf")) is not None


def test_a_lake_that_does_not_answer_fails_the_batch_and_rejects_nothing(
    lake: Storage, service: OcrService, tmp_path: Path
) -> None:
    batch = put(lake, {"a.pdf": numbered(2)})
    (tmp_path / "lake").rename(tmp_path / "unmounted")
    (tmp_path / "lake").symlink_to("lake")  # a link to itself: every call fails
    with pytest.raises(StorageError):
        service.run(batch)


class Hanging(ScriptedTranscriber):
    """Never answers."""

    async def transcribe(self, image: PageImage, previous: Transcript | None = None) -> Transcript:
        self.asked[image.document_id, image.page_number] += 1
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


@pytest.mark.timeout(60)
def test_closing_ends_the_batch_that_another_thread_waits_for(lake: Storage) -> None:
    engine = Hanging()
    service = OcrService(lake, lambda: engine, StreamOptions(render_workers=1))
    batch = put(lake, {"a.pdf": numbered(2)})
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(service.run, batch)
        while not engine.asked:
            time.sleep(0.02)
        service.close()
        with pytest.raises(CancelledError):
            running.result()


def test_an_engine_that_cannot_be_made_leaves_no_thread_behind(lake: Storage) -> None:
    def no_engine() -> ScriptedTranscriber:
        raise ValueError("no such engine")

    before = set(threading.enumerate())
    with pytest.raises(ValueError, match="no such engine"):
        OcrService(lake, no_engine, StreamOptions())
    assert set(threading.enumerate()) == before


def test_an_older_batch_run_again_leaves_the_newer_markdown_file_alone(lake: Storage, service: OcrService) -> None:
    old = put(lake, {"a.pdf": pdf(["the old text"])})
    service.run(old)
    new = put(lake, {"a.pdf": pdf(["the new text"])})
    service.run(new)
    service.run(old, render=False)
    assert "the new text" in lake.read(keys.markdown("inbox/a.pdf")).decode()


def test_either_asset_can_be_made_again_alone(
    lake: Storage, service: OcrService, transcriber: ScriptedTranscriber
) -> None:
    batch = put(lake, {"a.pdf": numbered(4)})
    service.run(batch, read=False)
    assert transcriber.asked.total() == 0
    with pytest.raises(NotMade, match="ocr_markdown"):
        rows(lake, batch)
    lake.delete([keys.page_image(batch.name, keys.document_id("inbox/a.pdf"), 3)])
    service.run(batch, render=False)
    (result,) = rows(lake, batch)
    assert statuses(result) == ["ok", "ok", "failed", "ok"]
    assert result.pages[2].reason is Reason.IMAGE_GONE


def test_an_image_that_is_not_the_one_of_the_record_is_never_read_for_it(
    lake: Storage, service: OcrService, transcriber: ScriptedTranscriber
) -> None:
    batch = put(lake, {"a.pdf": numbered(4)})
    service.run(batch, read=False)
    document = keys.document_id("inbox/a.pdf")
    # what a run leaves that was killed while it drew the document again: images of now under hashes of before
    lake.write(keys.page_image(batch.name, document, 1), lake.read(keys.page_image(batch.name, document, 2)))
    lake.write(keys.page_image(batch.name, document, 3), b"half an im")
    service.run(batch, render=False)
    (result,) = rows(lake, batch)
    assert [(page.status.value, page.reason) for page in result.pages] == [
        ("failed", Reason.IMAGE_GONE),
        ("ok", None),
        ("failed", Reason.IMAGE_GONE),
        ("ok", None),
    ]
    assert sorted(number for _, number in transcriber.asked) == [2, 4]
    service.run(batch)
    assert statuses(rows(lake, batch)[0]) == ["ok"] * 4


def test_a_page_image_that_cannot_be_decoded_fails_its_page_alone(lake: Storage) -> None:
    with grounded_service(lake, FIGURE) as service:
        batch = put(lake, {"a.pdf": numbered(2)})
        service.run(batch, read=False)
        drawn = rendered.read(lake, batch.name, keys.document_id("inbox/a.pdf"))
        assert drawn is not None
        no_image = b"\xff\xd8\xff and no image"
        broken = dataclasses.replace(drawn.pages[0], image_sha256=hashlib.sha256(no_image).hexdigest(), text_layer="")
        lake.write(broken.image_key or "", no_image)
        rendered.write(lake, batch.name, dataclasses.replace(drawn, pages=(broken, drawn.pages[1])))
        service.run(batch, render=False)
    (result,) = rows(lake, batch)
    assert [(page.status.value, page.reason) for page in result.pages] == [
        ("failed", Reason.RENDER_FAILED),
        ("ok", None),
    ]
    assert len(attempts(lake, batch)) == 2


def test_a_file_above_the_limit_is_rejected_before_it_is_fetched(lake: Storage) -> None:
    service = OcrService(lake, ScriptedTranscriber, StreamOptions(render_workers=1, max_pdf_bytes=1000))
    try:
        batch = put(lake, {"a.pdf": numbered(3)})
        service.run(batch)
        (result,) = rows(lake, batch)
        assert result.document.reason is Reason.TOO_LARGE
    finally:
        service.close()


def test_pages_are_read_while_others_are_still_drawn_and_no_more_at_once_than_the_engine_takes(
    lake: Storage, service: OcrService, transcriber: ScriptedTranscriber
) -> None:
    batch = put(lake, {"a.pdf": numbered(60)})
    counts = service.run(batch)
    assert counts.pages == counts.asked == 60
    assert transcriber.most_at_once <= transcriber.max_in_flight + 16


def test_the_ledger_says_when_a_page_has_no_row(lake: Storage, service: OcrService) -> None:
    batch = put(lake, {"a.pdf": numbered(3)})
    service.run(batch)
    (result,) = rows(lake, batch)
    lost = dataclasses.replace(result, pages=result.pages[:2])
    assert len(checks.imbalances(batch, [lost])) == 1
    assert len(checks.imbalances(batch, [])) == 1


def test_a_deletion_is_published_with_the_uploads_that_it_hides(lake: Storage) -> None:
    seen = datetime(2026, 1, 1, tzinfo=UTC)
    known = [Upload("inbox/a.pdf", etag, 1, seen - timedelta(hours=hours)) for etag, hours in (("1", 9), ("2", 1))]
    gone = planner.deletion(["inbox/a.pdf"], seen, known)
    publish(lake, gone)
    expected = Deletion(seen, seen - timedelta(hours=1), ("2",))
    assert read_manifest(lake, gone.name).deleted == {keys.document_id("inbox/a.pdf"): expected}
    back = planner.returned(known[1:], seen, [gone.name])
    assert deletions.marks(back) == {"inbox/a.pdf": Deletion(seen + timedelta(seconds=1), None)}


def test_a_deletion_of_an_older_version_hides_everything_up_to_its_time(lake: Storage) -> None:
    seen = datetime(2026, 1, 1, tzinfo=UTC)
    gone = planner.deletion(["inbox/a.pdf"], seen)
    assert deletions.marks(gone) == {"inbox/a.pdf": Deletion(seen, seen)}
    manifest = {"batch": "b", "schema_version": 1, "deleted": {"d": "2026-01-01T00:00:00Z"}}
    lake.write(keys.manifest("b"), json.dumps(manifest).encode())
    assert read_manifest(lake, "b").deleted == {"d": seen}


def test_a_figure_is_cut_out_and_linked_from_the_markdown_file(lake: Storage) -> None:
    with grounded_service(lake, FIGURE) as service:
        batch = put(lake, {"sub/a b.pdf": numbered(1)})
        service.run(batch)
    assert lake.read(keys.figure("inbox/sub/a b.pdf", 1, 0)).startswith(b"\xff\xd8")
    assert "(<a b.pdf.files/0001-0.jpg>)" in lake.read(keys.markdown("inbox/sub/a b.pdf")).decode()
    assert PageStatus.OK in {page.status for page in rows(lake, batch)[0].pages}


def test_only_figures_that_were_cut_out_are_linked(lake: Storage) -> None:
    boxes = ["[[10, 10, 15, 14]]", *(f"[[{n}, {n}, {n + 100}, {n + 100}]]" for n in range(70))]
    said = "\n".join(f"<|ref|>image<|/ref|><|det|>{box}<|/det|>" for box in boxes)
    with grounded_service(lake, said) as service:
        batch = put(lake, {"a.pdf": numbered(1)})
        service.run(batch)
    (page,) = rows(lake, batch)[0].pages
    links = [f"markdown/inbox/{name}" for name in re.findall(r"\(<(.+?)>\)", page.markdown)]
    cut = [info.key for info in lake.list("markdown/inbox/a.pdf.files/")]
    assert sorted(links) == cut
    assert len(cut) == 64
    assert "figure:" not in page.markdown


def test_a_page_with_specks_and_no_text_is_blank_and_one_with_ink_is_failed(
    lake: Storage, service: OcrService, transcriber: ScriptedTranscriber
) -> None:
    transcriber.script = lambda image: Reason.EMPTY_TEXT
    service_without_layer = OcrService(lake, lambda: transcriber, StreamOptions(render_workers=1, text_layer="never"))
    try:
        batch = put(lake, {"a.pdf": pdf([".", "words " * 12 + "\n" + "and more words " * 5])})
        service_without_layer.run(batch)
    finally:
        service_without_layer.close()
    assert statuses(rows(lake, batch)[0]) == ["blank", "failed"]
