"""Retries of one upload as tests make them, and what must hold afterwards, whatever order they ran in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from ocr_pipeline.flow.batch_run import StreamOptions
from ocr_pipeline.flow.loading import load
from ocr_pipeline.flow.published import read_manifest
from ocr_pipeline.flow.publishing import publish
from ocr_pipeline.flow.service import OcrService
from ocr_pipeline.lake import batches, keys, planner
from ocr_pipeline.lake.storage import ObjectMissing, Storage
from ocr_pipeline.records import Batch, Geometry, PageImage, Reason
from ocr_pipeline.upkeep.rebuild import rebuild_warehouse
from ocr_pipeline.upkeep.retry import ask_again
from ocr_pipeline_tests.flow.doubles import Answer, ScriptedTranscriber
from ocr_pipeline_tests.pdfs import numbered
from ocr_pipeline_tests.upkeep.pipeline import Pipeline

REASONS = (Reason.REPETITION, Reason.TRUNCATED, Reason.GARBAGE)
KEY = "inbox/a.pdf"


def failing(pipeline: Pipeline, reasons: int) -> Batch:
    """A document whose first pages failed, each for another reason; one more page is well."""
    pipeline.transcriber.script = lambda image: dict(enumerate(REASONS[:reasons], 1)).get(image.page_number)
    first = pipeline.cut({"a.pdf": numbered(reasons + 1)})
    pipeline.process(first)
    pipeline.transcriber.script = lambda image: None
    pipeline.transcriber.asked.clear()
    return first


def listed(pipeline: Pipeline, reasons: int) -> list[Batch]:
    """A retry for each reason, asked for while none of them has run; by name."""
    return sorted((asked_for(pipeline, reason) for reason in REASONS[:reasons]), key=lambda batch: batch.name)


def asked_for(pipeline: Pipeline, reason: Reason) -> Batch:
    """A retry that has not run yet."""
    (batch,) = ask_again(pipeline.lake, pipeline.warehouse, [reason], limits=planner.BatchLimits()).batches
    return batch


def unpublished(lake: Storage) -> list[Batch]:
    """What the sensor would ask for: batch lists that no run has taken to the end."""
    found = []
    for batch in sorted(batches.load(lake), key=lambda batch: batch.name):
        try:
            read_manifest(lake, batch.name)
        except ObjectMissing:
            found.append(batch)
    return found


def process_what_is_left(pipeline: Pipeline) -> None:
    for _ in range(5):
        if not (left := unpublished(pipeline.lake)):
            return
        for batch in left:
            pipeline.process(batch)
    pytest.fail(f"each follow-up makes another one: {unpublished(pipeline.lake)}")


def agree(pipeline: Pipeline) -> bool:
    """Whether the markdown file says what the rows say."""
    parts = [
        f"<!-- page {number}{'' if status == 'ok' else f': {status}, {reason}'} -->\n\n{text}".rstrip()
        for number, status, reason, text in pipeline.rows(
            "SELECT page_number, status, reason, markdown FROM ocr.pages ORDER BY 1"
        )
    ]
    return pipeline.lake.read(keys.markdown(KEY)).decode() == "\n\n".join(parts) + "\n"


def statuses(pipeline: Pipeline) -> list[str]:
    return [str(status) for (status,) in pipeline.rows("SELECT status FROM ocr.pages ORDER BY page_number")]


def hold(pipeline: Pipeline) -> None:
    """Everything once more, and from the files alone: no request, the same rows, no batch that was not there."""
    rows, asked = pipeline.everything(), dict(pipeline.transcriber.asked)
    known = list(batches.names(pipeline.lake))
    for name in (*known, *reversed(known)):
        pipeline.process(batches.read(pipeline.lake, name))
    assert agree(pipeline)
    assert list(batches.names(pipeline.lake)) == known
    assert dict(pipeline.transcriber.asked) == asked
    assert pipeline.everything() == rows
    rebuild_warehouse(pipeline.lake, pipeline.warehouse)
    assert pipeline.everything() == rows


@contextmanager
def held(
    pipeline: Pipeline,
    batch: Batch,
    recipe_id: str = ScriptedTranscriber.recipe_id,
    unanswered: int | None = None,
) -> Iterator[Callable[[], None]]:
    """The batch in another process, so to speak: it has begun, and its pages are answered when the caller says so.
    `unanswered`: the page that is asked by then, and that no server will answer."""
    begun, answer = threading.Event(), threading.Event()

    def script(image: PageImage) -> Answer | None:
        if unanswered in (None, image.page_number):
            begun.set()
            answer.wait(60)
        return Reason.BACKEND_UNAVAILABLE if unanswered == image.page_number else None

    transcriber = ScriptedTranscriber(script)
    transcriber.recipe_id = recipe_id
    options = StreamOptions(render_workers=1, text_layer="never")
    service = OcrService(pipeline.lake, lambda: transcriber, options)
    service.begin(batch)
    assert begun.wait(60)

    def finish() -> None:
        answer.set()
        service.run(batch)
        publish(pipeline.lake, batch)
        load(pipeline.lake, pipeline.warehouse, batch)
        pipeline.transcriber.asked.update(transcriber.asked)

    try:
        yield finish
    finally:
        answer.set()
        service.close()


def three_pages_failed(pipeline: Pipeline) -> list[Batch]:
    """A document of four pages; the retries for the first two, which both ask for the third: no server answered it."""
    down = {**dict(enumerate(REASONS[:2], 1)), 3: Reason.BACKEND_UNAVAILABLE}
    pipeline.transcriber.script = lambda image: down.get(image.page_number)
    pipeline.process(pipeline.cut({"a.pdf": numbered(4)}))
    pipeline.transcriber.script = lambda image: None
    return listed(pipeline, 2)


def under_a_newer_recipe(pipeline: Pipeline, script: Callable[[PageImage], Answer | None]) -> None:
    pipeline.service.close()
    pipeline.transcriber = ScriptedTranscriber(script)
    pipeline.transcriber.recipe_id = "newer"
    pipeline.transcriber.geometry = Geometry(dpi=100, max_long_side=1200, max_short_side=900)
    pipeline.use(pipeline.transcriber)


def recipes(pipeline: Pipeline) -> list[object]:
    return [recipe for (recipe,) in pipeline.rows("SELECT recipe_id FROM ocr.pages ORDER BY page_number")]
