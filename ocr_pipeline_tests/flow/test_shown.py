"""A document's markdown file and figures are those of its rows, whichever of its batches runs, and runs again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ocr_pipeline.flow.batch_run import StreamOptions
from ocr_pipeline.flow.service import OcrService
from ocr_pipeline.lake import batches, keys, planner
from ocr_pipeline.lake.local import LocalStorage
from ocr_pipeline.records import Batch, Reason
from ocr_pipeline_tests.flow.doubles import ScriptedTranscriber
from ocr_pipeline_tests.pdfs import numbered, pdf
from ocr_pipeline_tests.upkeep.pipeline import Pipeline
from ocr_pipeline_tests.upkeep.retrying import (
    KEY,
    agree,
    asked_for,
    failing,
    process_what_is_left,
    statuses,
    under_a_newer_recipe,
)

WIDE = "<|ref|>image<|/ref|><|det|>[[0, 0, 900, 300]]<|/det|>\n"
HIGH = "<|ref|>image<|/ref|><|det|>[[0, 0, 300, 900]]<|/det|>\n"


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    made = Pipeline(tmp_path)
    yield made
    made.service.close()


def answering(pipeline: Pipeline, figure: str) -> None:
    """From now on the engine sees this figure on each page, and nothing else."""
    pipeline.transcriber.format = "grounding"
    pipeline.transcriber.script = lambda image: figure


def figure(pipeline: Pipeline) -> bytes:
    return pipeline.lake.read(keys.figure(KEY, 1, 0))


def listed(pipeline: Pipeline, batch: Batch) -> Batch:
    batches.write(pipeline.lake, batch)
    return batch


def test_where_the_later_batchs_list_is_broken_its_files_stay_and_the_rest_of_the_older_batch_is_done(
    pipeline: Pipeline,
) -> None:
    old = pipeline.cut({"a.pdf": numbered(1, "old"), "b.pdf": numbered(1, "b")})
    pipeline.process(old)
    new = pipeline.cut({"a.pdf": numbered(1, "new")})
    pipeline.process(new)
    shown = pipeline.lake.read(keys.markdown(KEY))
    pipeline.lake.delete([KEY, keys.markdown("inbox/b.pdf")])
    pipeline.lake.write(keys.batch(new.name), b"")
    pipeline.service.run(old)
    assert pipeline.lake.read(keys.markdown(KEY)) == shown
    assert pipeline.lake.stat(keys.markdown("inbox/b.pdf")) is not None


def test_an_older_batch_run_again_leaves_the_figures_of_the_newer_upload(pipeline: Pipeline) -> None:
    answering(pipeline, HIGH)
    old = pipeline.cut({"a.pdf": numbered(1)})
    pipeline.process(old)
    answering(pipeline, WIDE)
    pipeline.process(pipeline.cut({"a.pdf": numbered(1, "edited")}))
    newer = figure(pipeline)
    pipeline.process(old)
    assert figure(pipeline) == newer


def test_a_retry_that_runs_after_the_document_was_uploaded_again_leaves_the_figures_of_that(pipeline: Pipeline) -> None:
    pipeline.transcriber.script = lambda image: Reason.REPETITION
    pipeline.process(pipeline.cut({"a.pdf": numbered(1)}))
    retry = asked_for(pipeline, Reason.REPETITION)
    answering(pipeline, WIDE)
    pipeline.process(pipeline.cut({"a.pdf": numbered(1, "edited")}))
    newer = figure(pipeline)
    answering(pipeline, HIGH)
    pipeline.process(retry)
    process_what_is_left(pipeline)
    assert figure(pipeline) == newer


def test_a_backfill_of_the_first_batch_alone_leaves_the_figures_that_the_retry_shows(pipeline: Pipeline) -> None:
    pipeline.transcriber.format = "grounding"
    pipeline.transcriber.script = lambda image: HIGH if image.page_number == 1 else Reason.REPETITION
    first = pipeline.cut({"a.pdf": numbered(2)})
    pipeline.process(first)
    answering(pipeline, "<|ref|>text<|/ref|><|det|>[[0, 0, 900, 300]]<|/det|>\nwords\n")
    pipeline.process(asked_for(pipeline, Reason.REPETITION))
    shown = figure(pipeline)
    under_a_newer_recipe(pipeline, lambda image: WIDE)
    pipeline.transcriber.format = "grounding"
    pipeline.process(first)
    process_what_is_left(pipeline)
    assert figure(pipeline) == shown


def test_a_retry_that_is_shown_cuts_out_the_figures_of_the_pages_that_it_keeps(pipeline: Pipeline) -> None:
    pipeline.transcriber.format = "grounding"
    pipeline.transcriber.script = lambda image: HIGH if image.page_number == 1 else Reason.REPETITION
    pipeline.process(pipeline.cut({"a.pdf": numbered(2)}))
    of_first = figure(pipeline)
    pipeline.lake.write(keys.figure(KEY, 1, 0), b"another version's")
    pipeline.process(asked_for(pipeline, Reason.REPETITION))
    assert figure(pipeline) == of_first


def test_a_retry_that_runs_after_the_document_has_come_back_leaves_its_markdown_file(pipeline: Pipeline) -> None:
    first = failing(pipeline, 2)
    retry = asked_for(pipeline, Reason.REPETITION)
    known = [first.name, retry.name]
    gone = listed(pipeline, planner.deletion([KEY], datetime.now(UTC), first.uploads, known))
    pipeline.process(gone)
    pipeline.transcriber.script = lambda image: Reason.REPETITION if image.page_number == 1 else None
    pipeline.process(listed(pipeline, planner.returned(first.uploads, datetime.now(UTC), [*known, gone.name])))
    pipeline.transcriber.script = lambda image: None
    pipeline.process(retry)
    process_what_is_left(pipeline)
    assert agree(pipeline)


def test_a_backfill_of_the_first_batch_alone_leaves_the_markdown_file_of_the_document_that_has_come_back(
    pipeline: Pipeline,
) -> None:
    first = failing(pipeline, 1)
    gone = listed(pipeline, planner.deletion([KEY], datetime.now(UTC), first.uploads, [first.name]))
    pipeline.process(gone)
    pipeline.process(listed(pipeline, planner.returned(first.uploads, datetime.now(UTC), [first.name, gone.name])))
    under_a_newer_recipe(pipeline, lambda image: "newer text")
    pipeline.process(first)
    process_what_is_left(pipeline)
    assert agree(pipeline)


def test_of_the_same_bytes_uploaded_twice_a_backfill_of_the_older_leaves_the_markdown_file(pipeline: Pipeline) -> None:
    pipeline.lake.write(KEY, numbered(2))
    info = pipeline.lake.stat(KEY)
    assert info is not None
    newer = info.as_upload()  # a bucket: one etag, two times
    older = replace(newer, last_modified=newer.last_modified - timedelta(days=1))
    cut = [planner.plan([upload], set(), planner.BatchLimits()).batches[0] for upload in (older, newer)]
    for batch in cut:
        pipeline.process(listed(pipeline, batch))
    under_a_newer_recipe(pipeline, lambda image: "newer text")
    pipeline.process(cut[0])
    assert agree(pipeline)


def test_an_older_batch_run_again_once_the_upload_is_deleted_leaves_the_markdown_file(pipeline: Pipeline) -> None:
    old = pipeline.cut({"a.pdf": pdf(["the old text"])})
    pipeline.process(old)
    pipeline.process(pipeline.cut({"a.pdf": pdf(["the new text"])}))
    pipeline.lake.delete([KEY])
    pipeline.process(old)
    assert b"the new text" in pipeline.lake.read(keys.markdown(KEY))
    assert agree(pipeline)


def test_a_newer_upload_that_is_read_while_an_older_batch_writes_the_markdown_file_has_the_last_word(
    pipeline: Pipeline,
) -> None:
    old = pipeline.cut({"a.pdf": pdf(["the old text"])})
    pipeline.process(old)
    uploads = [pdf(["the new text"])]

    class Busy(LocalStorage):
        def write(self, key: str, data: bytes) -> None:
            if key == keys.markdown(KEY) and uploads:
                pipeline.process(pipeline.cut({"a.pdf": uploads.pop()}))
            super().write(key, data)

    lake = Busy(Path(pipeline.lake.uri.removeprefix("file://")))
    service = OcrService(lake, ScriptedTranscriber, StreamOptions(render_workers=1, text_layer="never"))
    try:
        service.run(old)
    finally:
        service.close()
    assert b"the old text" in pipeline.lake.read(keys.markdown(KEY))
    process_what_is_left(pipeline)
    assert b"the new text" in pipeline.lake.read(keys.markdown(KEY))
    assert agree(pipeline)


def test_a_batch_whose_list_is_gone_keeps_no_other_from_the_markdown_file(pipeline: Pipeline) -> None:
    first = failing(pipeline, 1)
    retry = asked_for(pipeline, Reason.REPETITION)
    pipeline.process(retry)
    document_id = keys.document_id(KEY)
    pipeline.lake.delete([keys.batch(retry.name), keys.markdown(KEY)])
    pipeline.lake.delete([keys.rendered(retry.name, document_id), keys.reading(retry.name, document_id)])
    pipeline.service.run(first)
    assert pipeline.lake.stat(keys.markdown(KEY)) is not None


def test_one_mark_is_kept_of_a_document_however_often_it_is_uploaded(pipeline: Pipeline) -> None:
    for number in range(3):
        batch = pipeline.cut({"a.pdf": pdf([f"version {number}"])})
        pipeline.process(batch)
    assert [info.key for info in pipeline.lake.list(keys.SHOWN)] == [keys.shown(batch.uploads[0], batch.name)]
    assert statuses(pipeline) == ["ok"]
