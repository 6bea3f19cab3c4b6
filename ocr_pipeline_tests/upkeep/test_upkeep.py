"""What is done with results afterwards, on a real folder and a real DuckDB file."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ocr_pipeline.flow.batch_run import StreamOptions
from ocr_pipeline.flow.published import read_manifest
from ocr_pipeline.flow.publishing import publish
from ocr_pipeline.flow.service import OcrService
from ocr_pipeline.lake import batches, keys, planner
from ocr_pipeline.lake.local import LocalStorage
from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.lake.storage import ObjectInfo, StorageError
from ocr_pipeline.records import Batch, Geometry, PageImage, Reason
from ocr_pipeline.upkeep import retention
from ocr_pipeline.upkeep.compare import compare_recipes, recipes
from ocr_pipeline.upkeep.rebuild import rebuild_warehouse
from ocr_pipeline.upkeep.retry import ask_again
from ocr_pipeline.upkeep.traces import traces
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.parquet import from_bytes, to_bytes
from ocr_pipeline.warehouse.rebuild import RebuildRefused
from ocr_pipeline_tests.flow.doubles import Answer, ScriptedTranscriber
from ocr_pipeline_tests.pdfs import numbered, pdf
from ocr_pipeline_tests.upkeep.pipeline import Pipeline


def loops_on_page_2(image: PageImage) -> Answer | None:
    return Reason.REPETITION if image.page_number == 2 else None


def test_a_retry_by_reason_asks_for_the_failed_pages_of_just_those_documents(pipeline: Pipeline) -> None:
    pipeline.transcriber.script = loops_on_page_2
    pipeline.process(pipeline.cut({"bad.pdf": numbered(3), "good.pdf": numbered(1, "good")}))
    pipeline.transcriber.script = lambda image: None
    pipeline.transcriber.asked.clear()
    again = ask_again(pipeline.lake, pipeline.warehouse, [Reason.REPETITION], limits=planner.BatchLimits())
    assert (again.documents, again.pages, again.gone) == (1, 1, 0)
    (batch,) = again.batches
    assert [upload.key for upload in batch.uploads] == ["inbox/bad.pdf"]
    pipeline.process(batch)
    assert dict(pipeline.transcriber.asked) == {(keys.document_id("inbox/bad.pdf"), 2): 1}
    assert pipeline.rows("SELECT DISTINCT status FROM ocr.pages") == [("ok",)]
    assert pipeline.rows("SELECT count(*) FROM ocr.attempts WHERE page_number = 2") == [(2,)]
    nothing = ask_again(pipeline.lake, pipeline.warehouse, [Reason.REPETITION], limits=planner.BatchLimits())
    assert nothing.batches == ()


def test_a_retry_leaves_out_what_failed_long_ago_and_what_was_replaced_since(pipeline: Pipeline) -> None:
    pipeline.transcriber.script = loops_on_page_2
    pipeline.process(pipeline.cut({"a.pdf": numbered(2)}))
    later = datetime.now(UTC) + timedelta(hours=1)
    ask = {"limits": planner.BatchLimits(), "reasons": [Reason.REPETITION]}
    assert ask_again(pipeline.lake, pipeline.warehouse, since=later, **ask).batches == ()  # type: ignore[arg-type]
    pipeline.lake.write("inbox/a.pdf", numbered(4))
    again = ask_again(pipeline.lake, pipeline.warehouse, **ask)  # type: ignore[arg-type]
    assert (again.batches, again.gone) == ((), 1)


def test_a_page_that_failed_with_the_transcript_of_an_earlier_one_failed_when_it_came(pipeline: Pipeline) -> None:
    pipeline.transcriber.script = loops_on_page_2
    pipeline.process(pipeline.cut({"a.pdf": numbered(2)}))
    later = pipeline.cut({"b.pdf": numbered(2)})
    pipeline.process(later)  # the same images: nothing is asked
    again = ask_again(
        pipeline.lake,
        pipeline.warehouse,
        [Reason.REPETITION],
        since=later.uploads[0].last_modified,
        limits=planner.BatchLimits(),
    )
    assert [upload.key for batch in again.batches for upload in batch.uploads] == ["inbox/b.pdf"]


def newer_recipe(pipeline: Pipeline, script: Callable[[PageImage], Answer | None]) -> ScriptedTranscriber:
    """Another model and another resolution from here on."""
    pipeline.service.close()
    newer = ScriptedTranscriber(script)
    newer.recipe_id, newer.geometry = "newer", Geometry(dpi=100, max_long_side=1200, max_short_side=900)
    pipeline.use(newer)
    return newer


def retried(pipeline: Pipeline) -> Batch:
    (batch,) = ask_again(pipeline.lake, pipeline.warehouse, [Reason.REPETITION], limits=planner.BatchLimits()).batches
    return batch


def texts(pipeline: Pipeline) -> list[tuple[object, ...]]:
    return pipeline.rows("SELECT page_number, status, recipe_id, markdown FROM ocr.pages ORDER BY ALL")


def test_a_retry_after_a_change_of_recipe_asks_for_the_failed_pages_alone(pipeline: Pipeline) -> None:
    pipeline.transcriber.script = loops_on_page_2
    pipeline.process(pipeline.cut({"a.pdf": numbered(20)}))
    before = texts(pipeline)
    newer = newer_recipe(pipeline, lambda image: "mended")
    again = retried(pipeline)
    for _ in range(2):  # a second run of the retry asks nothing, and writes the same
        pipeline.process(again)
        assert dict(newer.asked) == {(keys.document_id("inbox/a.pdf"), 2): 1}
        assert texts(pipeline) == [(2, "ok", "newer", "mended") if row[0] == 2 else row for row in before]
    markdown = pipeline.lake.read(keys.markdown("inbox/a.pdf")).decode()
    assert "mended" in markdown
    assert "This is page 20" in markdown
    attempts = pipeline.rows("SELECT recipe_id, count(*) FROM ocr.attempts GROUP BY 1 ORDER BY 1")
    assert attempts == [("newer", 1), ("scripted", 20)]
    after = pipeline.everything()
    rebuild_warehouse(pipeline.lake, pipeline.warehouse)
    assert pipeline.everything() == after


@pytest.mark.parametrize("images_too", [False, True])
def test_a_retry_whose_upload_is_gone_loses_no_good_page(pipeline: Pipeline, images_too: bool) -> None:
    pipeline.transcriber.script = loops_on_page_2
    pipeline.process(pipeline.cut({"a.pdf": numbered(4)}))
    before = texts(pipeline)
    again = retried(pipeline)
    pipeline.lake.delete(["inbox/a.pdf"])
    if images_too:
        pipeline.lake.delete([info.key for info in pipeline.lake.list(keys.PAGES) if info.key.endswith(".jpg")])
    pipeline.transcriber.script = lambda image: "mended" if image.page_number == 2 else None
    pipeline.process(again)
    mended = (2, "failed", "scripted", "") if images_too else (2, "ok", "scripted", "mended")
    assert texts(pipeline) == [mended if row[0] == 2 else row for row in before]
    assert pipeline.rows("SELECT status, page_count, batch FROM ocr.documents") == [
        ("partial" if images_too else "ok", 4, again.name)
    ]


def test_a_retry_that_finds_its_upload_spoiled_loses_no_good_page(pipeline: Pipeline) -> None:
    pipeline.transcriber.script = loops_on_page_2
    pipeline.process(pipeline.cut({"a.pdf": numbered(4)}))
    pipeline.service.close()
    options = StreamOptions(render_workers=1, text_layer="never", max_pdf_bytes=10)  # the limit was lowered since
    pipeline.service = OcrService(pipeline.lake, lambda: ScriptedTranscriber(), options)
    pipeline.process(retried(pipeline))
    assert pipeline.rows("SELECT DISTINCT status FROM ocr.pages") == [("ok",)]


def test_a_backfill_of_a_batch_that_was_retried_leaves_the_markdown_file_to_the_retry(pipeline: Pipeline) -> None:
    pipeline.transcriber.script = loops_on_page_2
    first = pipeline.cut({"a.pdf": numbered(2)})
    pipeline.process(first)
    again = retried(pipeline)
    pipeline.transcriber.script = lambda image: None
    pipeline.process(again)
    markdown = pipeline.lake.read(keys.markdown("inbox/a.pdf"))
    newer_recipe(pipeline, lambda image: "quite another text")
    pipeline.process(first)
    assert pipeline.rows("SELECT DISTINCT batch, recipe_id FROM ocr.pages") == [(again.name, "scripted")]
    assert pipeline.lake.read(keys.markdown("inbox/a.pdf")) == markdown
    pipeline.process(again)  # the backfill's other half: the retry, too, reads every page anew
    assert pipeline.rows("SELECT DISTINCT markdown, recipe_id FROM ocr.pages") == [("quite another text", "newer")]
    assert b"quite another text" in pipeline.lake.read(keys.markdown("inbox/a.pdf"))


def test_an_object_that_the_lake_does_not_give_keeps_no_other_from_being_asked_again(pipeline: Pipeline) -> None:
    class Refusing(LocalStorage):
        def stat(self, key: str) -> ObjectInfo | None:
            if key == "inbox/secret.pdf":
                raise StorageError("no right")
            return super().stat(key)

    pipeline.transcriber.script = loops_on_page_2
    pipeline.process(pipeline.cut({"a.pdf": numbered(2), "secret.pdf": numbered(2, "s")}))
    lake = Refusing(Path(pipeline.lake.uri.removeprefix("file://")))
    again = ask_again(lake, pipeline.warehouse, [Reason.REPETITION], limits=planner.BatchLimits())
    assert (again.documents, again.gone) == (1, 1)


def test_a_rebuild_from_parquet_equals_what_was_there(pipeline: Pipeline) -> None:
    pipeline.process(pipeline.cut({"a.pdf": numbered(3), "b.pdf": numbered(2, "b"), "c.pdf": b"none"}))
    pipeline.process(pipeline.cut({"a.pdf": numbered(2, "newer")}))
    gone = planner.deletion(["inbox/b.pdf"], datetime.now(UTC) + timedelta(seconds=1))
    batches.write(pipeline.lake, gone)
    pipeline.process(gone)
    before = pipeline.everything()
    path = pipeline.warehouse.path
    assert path is not None
    path.unlink()
    counts = rebuild_warehouse(pipeline.lake, pipeline.warehouse)
    assert counts.documents == 3
    assert pipeline.everything() == before


def test_after_a_backfill_the_files_keep_the_attempts_of_earlier_recipes_so_that_a_rebuild_is_equal(
    pipeline: Pipeline,
) -> None:
    batch = pipeline.cut({"a.pdf": numbered(3), "b.pdf": numbered(1, "b")})
    pipeline.process(batch)
    pipeline.service.close()
    newer = ScriptedTranscriber(lambda image: "quite another" if image.page_number == 2 else None)
    newer.recipe_id = "newer"
    pipeline.use(newer)
    pipeline.process(batch)
    before = pipeline.everything()
    by_recipe = "SELECT recipe_id, count(*) FROM ocr.attempts GROUP BY ALL ORDER BY 1"
    assert pipeline.rows(by_recipe) == [("newer", 4), ("scripted", 4)]
    rebuild_warehouse(pipeline.lake, pipeline.warehouse)
    assert pipeline.everything() == before
    assert pipeline.purge("inbox/b.pdf").left == ()
    publish(pipeline.lake, batches.read(pipeline.lake, batch.name))  # what was forgotten does not come back as history
    rebuild_warehouse(pipeline.lake, pipeline.warehouse)
    assert pipeline.rows(by_recipe) == [("newer", 3), ("scripted", 3)]


def test_the_requests_of_a_run_that_died_before_it_published_are_rows_also_after_a_change_of_recipe(
    pipeline: Pipeline,
) -> None:
    batch = pipeline.cut({"a.pdf": numbered(3)})
    pipeline.service.run(batch)
    newer_recipe(pipeline, lambda image: None)
    pipeline.process(batch)
    by_recipe = "SELECT recipe_id, count(*) FROM ocr.attempts GROUP BY ALL ORDER BY 1"
    assert pipeline.rows(by_recipe) == [("newer", 3), ("scripted", 3)]
    assert {recipe for _, _, recipe, _ in texts(pipeline)} == {"newer"}
    before = pipeline.everything()
    pipeline.process(batch)
    assert pipeline.everything() == before


def test_a_rebuild_from_another_lake_is_refused_and_takes_nothing_away(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.process(pipeline.cut({"a.pdf": numbered(1)}))
    before = pipeline.everything()
    with pytest.raises(RebuildRefused, match="is OCR_LAKE the right lake"):
        rebuild_warehouse(open_storage(str(tmp_path / "another")), pipeline.warehouse)
    assert pipeline.everything() == before


def test_a_batch_that_is_published_again_during_a_rebuild_is_read_when_it_is_whole(pipeline: Pipeline) -> None:
    batch = pipeline.cut({"a.pdf": numbered(2)})
    pipeline.process(batch)
    before = pipeline.everything()
    tear(pipeline, batch)
    waited = []

    def meanwhile(seconds: float) -> None:
        waited.append(seconds)
        publish(pipeline.lake, batch)

    assert rebuild_warehouse(pipeline.lake, pipeline.warehouse, sleep=meanwhile).missing_batches == ()
    assert len(waited) == 1
    assert pipeline.everything() == before


@pytest.mark.parametrize("gone", [False, True])
def test_a_torn_batch_is_refused_with_its_mend_and_left_out_and_named_where_that_is_asked_for(
    pipeline: Pipeline, gone: bool
) -> None:
    torn = pipeline.cut({"a.pdf": numbered(2)})
    pipeline.process(torn)
    pipeline.process(pipeline.cut({"b.pdf": numbered(1, "b")}))
    before = pipeline.everything()
    key = tear(pipeline, torn)
    if gone:
        pipeline.lake.delete([key])
    with pytest.raises(RebuildRefused, match=f"batch {torn.name}: .*{key}.*materialise ocr_parquet .* or use --force"):
        rebuild_warehouse(pipeline.lake, pipeline.warehouse, sleep=lambda seconds: None)
    assert pipeline.everything() == before
    counts = rebuild_warehouse(pipeline.lake, pipeline.warehouse, force=True, sleep=lambda seconds: None)
    assert (counts.batches, counts.missing_batches) == (1, (torn.name,))
    assert pipeline.rows("SELECT parse_filename(source_uri) FROM ocr.documents") == [("b.pdf",)]
    publish(pipeline.lake, torn)  # as the message says
    assert rebuild_warehouse(pipeline.lake, pipeline.warehouse).missing_batches == ()
    assert pipeline.everything() == before


def test_an_unreadable_manifest_is_refused_by_its_key_and_left_out_where_that_is_asked_for(pipeline: Pipeline) -> None:
    broken = pipeline.cut({"a.pdf": numbered(2)})
    pipeline.process(broken)
    pipeline.process(pipeline.cut({"b.pdf": numbered(1, "b")}))
    before = pipeline.everything()
    key = keys.manifest(broken.name)
    pipeline.lake.write(key, b"{}")
    with pytest.raises(RebuildRefused, match=f"batch {broken.name}: {key} is not the JSON .*materialise ocr_parquet"):
        rebuild_warehouse(pipeline.lake, pipeline.warehouse, sleep=lambda seconds: None)
    assert pipeline.everything() == before
    counts = rebuild_warehouse(pipeline.lake, pipeline.warehouse, force=True, sleep=lambda seconds: None)
    assert counts.missing_batches == (broken.name,)
    publish(pipeline.lake, broken)  # as the message says
    assert rebuild_warehouse(pipeline.lake, pipeline.warehouse).missing_batches == ()
    assert pipeline.everything() == before


@pytest.mark.parametrize("kind", ["transcript", "rendered"])
def test_a_document_whose_own_record_or_transcript_cannot_be_read_is_not_purged_and_that_is_named(
    pipeline: Pipeline, kind: str
) -> None:
    batch = pipeline.cut({"a.pdf": numbered(2)})
    pipeline.process(batch)
    key = {
        "transcript": next(info.key for info in pipeline.lake.list(keys.TRANSCRIPTS)),
        "rendered": keys.rendered(batch.name, keys.document_id("inbox/a.pdf")),
    }[kind]
    pipeline.lake.write(key, b"torn")
    with pytest.raises((StorageError, WarehouseError), match=re.escape(key)) as caught:
        traces(pipeline.lake, pipeline.warehouse, "inbox/a.pdf")
    assert "torn" not in str(caught.value)


@pytest.mark.parametrize("kind", ["manifest", "parquet", "transcript", "list"])
def test_a_comparison_leaves_out_what_it_cannot_read_and_names_it(pipeline: Pipeline, kind: str) -> None:
    batch = pipeline.cut({"a.pdf": numbered(2)})
    pipeline.process(batch)
    key = {
        "manifest": keys.manifest(batch.name),
        "parquet": read_manifest(pipeline.lake, batch.name).tables["pages"].key,
        "transcript": next(iter(pipeline.lake.list(keys.TRANSCRIPTS))).key,
        "list": keys.batch(batch.name),
    }[kind]
    pipeline.lake.write(key, b"torn")
    found = compare_recipes(pipeline.lake, "scripted", "scripted")
    assert found.compared == (1 if kind == "transcript" else 2)
    (error,) = found.unread
    assert key in error


def tear(pipeline: Pipeline, batch: Batch) -> str:
    """What a run leaves that publishes the batch again and died after a file; returns the file's key."""
    key = read_manifest(pipeline.lake, batch.name).tables["pages"].key
    rows = from_bytes("pages", pipeline.lake.read(key))
    pipeline.lake.write(key, to_bytes("pages", rows.slice(1)))
    return key


def test_an_old_batch_made_again_after_its_upload_is_gone_keeps_its_text(pipeline: Pipeline) -> None:
    batch = pipeline.cut({"a.pdf": numbered(2)})
    pipeline.process(batch)
    before = pipeline.everything()
    pipeline.lake.delete(["inbox/a.pdf"])
    pipeline.process(batch)
    assert pipeline.everything() == before
    assert pipeline.lake.stat(keys.markdown("inbox/a.pdf")) is not None


def test_a_new_recipe_writes_new_text_keeps_the_old_and_both_can_be_compared(pipeline: Pipeline) -> None:
    batch = pipeline.cut({"a.pdf": numbered(3)})
    pipeline.process(batch)
    pipeline.service.close()
    newer = ScriptedTranscriber(lambda image: "quite another text" if image.page_number == 2 else None)
    newer.recipe_id = "newer"
    pipeline.use(newer)
    pipeline.process(batch)
    assert pipeline.rows("SELECT DISTINCT recipe_id FROM ocr.pages") == [("newer",)]
    assert "quite another text" in pipeline.lake.read(keys.markdown("inbox/a.pdf")).decode()
    assert recipes(pipeline.lake) == {"newer": 3, "scripted": 3}
    found = compare_recipes(pipeline.lake, "scripted", "newer")
    assert (found.compared, found.same) == (3, 2)
    assert [(page.key, page.page_number) for page in found.changed] == [("inbox/a.pdf", 2)]


def test_a_page_that_used_the_transcript_of_another_is_compared_too(pipeline: Pipeline) -> None:
    same = pdf(["this page is in both"])
    both = [pipeline.cut({"a.pdf": same}), pipeline.cut({"b.pdf": same})]
    for batch in both:
        pipeline.process(batch)
    newer_recipe(pipeline, lambda image: "another text")
    for batch in both:
        pipeline.process(batch)
    found = compare_recipes(pipeline.lake, "scripted", "newer")
    assert (found.compared, found.same, found.only_a, found.only_b) == (2, 0, 0, 0)


def test_retention_takes_old_images_and_transcripts_of_recipes_no_longer_used(pipeline: Pipeline) -> None:
    pipeline.process(pipeline.cut({"a.pdf": numbered(2)}))
    now, day = datetime.now(UTC), timedelta(days=1)
    assert retention.forget_images(pipeline.lake, day, now) == 0
    assert retention.forget_images(pipeline.lake, day, now + 2 * day) == 2
    in_use = retention.recipes_in_use(pipeline.lake)
    assert in_use == {"scripted"}
    assert retention.forget_recipes(pipeline.lake, day, now + 2 * day, in_use) == 0
    assert retention.forget_recipes(pipeline.lake, day, now + 2 * day, {"another"}) == 2
    assert len(list(pipeline.lake.list(keys.TABLES))) == 5  # four tables and the manifest stay


def test_an_object_that_cannot_be_deleted_keeps_no_other(bound_by_rights: Path) -> None:
    lake = LocalStorage(bound_by_rights / "lake")
    lake.write_many((f"pages/batch/{document}/0001.jpg", b"x") for document in "abc")
    kept = Path(lake.uri_of("pages/batch/a"))
    (kept / f".tmp-{'0' * 32}").write_bytes(b"")
    Path(lake.uri_of(f"pages/batch/c/.tmp-{'0' * 32}")).write_bytes(b"")
    kept.chmod(0o555)
    later = datetime.now(UTC) + timedelta(days=1)
    assert lake.remove_leftovers("", later) == 1
    with pytest.raises(StorageError, match=f"1 of 3 objects could not be deleted, first: {kept}/0001.jpg: Permission"):
        retention.forget_images(lake, timedelta(0), later)
    assert [info.key for info in lake.list("pages/")] == ["pages/batch/a/0001.jpg"]
    kept.chmod(0o755)
    assert retention.forget_images(lake, timedelta(0), later) == 1


def test_no_transcript_goes_on_the_word_of_an_empty_warehouse_or_an_empty_list(pipeline: Pipeline) -> None:
    pipeline.process(pipeline.cut({"a.pdf": numbered(2)}))
    read_only = pipeline.cut({"b.pdf": numbered(1, "b")})
    pipeline.service.close()
    newer = ScriptedTranscriber()
    newer.recipe_id = "newer"
    pipeline.use(newer)
    pipeline.service.run(read_only)  # read, and not published yet
    assert pipeline.warehouse.path is not None
    pipeline.warehouse.path.unlink()
    assert retention.recipes_in_use(pipeline.lake) == {"scripted", "newer"}
    assert retention.forget_recipes(pipeline.lake, timedelta(0), datetime.now(UTC) + timedelta(days=9), set()) == 0
    assert len(list(pipeline.lake.list(keys.TRANSCRIPTS))) == 3


def test_requests_for_an_edited_page_are_rows_beside_those_of_the_page_before(pipeline: Pipeline) -> None:
    first = pipeline.cut({"a.pdf": numbered(3)})
    pipeline.process(first)
    edited = pipeline.cut({"a.pdf": numbered(3, "edited")})
    pipeline.process(edited)
    asked = "SELECT page_number, attempt FROM ocr.attempts ORDER BY ALL"
    assert pipeline.rows(asked) == [(page, attempt) for page in (1, 2, 3) for attempt in (1, 2)]
    after = pipeline.everything()
    for batch in (first, edited, first):  # the older one finds its upload replaced, and keeps what it had read
        pipeline.process(batch)
    assert pipeline.everything() == after
    pipeline.process(pipeline.cut({"a.pdf": numbered(3, "edited")}))  # the same bytes uploaded once more: nothing asked
    assert len(pipeline.rows(asked)) == 6
    after = pipeline.everything()
    rebuild_warehouse(pipeline.lake, pipeline.warehouse)
    assert pipeline.everything() == after
