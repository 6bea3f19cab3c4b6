"""Page images that are gone (OCR_KEEP_IMAGES_DAYS), of an upload that cannot be drawn again: no text goes with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ocr_pipeline.lake import keys
from ocr_pipeline.records import Batch, Reason
from ocr_pipeline_tests.pdfs import numbered
from ocr_pipeline_tests.upkeep.pipeline import Pipeline
from ocr_pipeline_tests.upkeep.retrying import KEY, recipes, statuses, under_a_newer_recipe


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    made = Pipeline(tmp_path)
    yield made
    made.service.close()


def read_and_forgotten(pipeline: Pipeline, reason: Reason = Reason.REPETITION) -> Batch:
    """Three pages, of which the second has failed; their images are gone."""
    pipeline.transcriber.script = lambda image: reason if image.page_number == 2 else None
    batch = pipeline.cut({"a.pdf": numbered(3)})
    pipeline.process(batch)
    pipeline.transcriber.asked.clear()
    pipeline.lake.delete([info.key for info in pipeline.lake.list(keys.PAGES) if info.key.endswith(".jpg")])
    return batch


@pytest.mark.parametrize("replaced", [False, True])
def test_the_second_run_of_a_batch_whose_upload_and_images_are_gone_gives_the_same_rows(
    pipeline: Pipeline, replaced: bool
) -> None:
    batch = read_and_forgotten(pipeline)
    rows, markdown = pipeline.everything(), pipeline.lake.read(keys.markdown(KEY))
    if replaced:
        pipeline.lake.write(KEY, numbered(1, "another"))
    else:
        pipeline.lake.delete([KEY])
    pipeline.process(batch)
    assert pipeline.everything() == rows
    assert pipeline.lake.read(keys.markdown(KEY)) == markdown
    assert not pipeline.transcriber.asked


def test_markdown_made_again_alone_once_the_images_are_gone_is_the_same(pipeline: Pipeline) -> None:
    batch = read_and_forgotten(pipeline)
    markdown = pipeline.lake.read(keys.markdown(KEY))
    counts = pipeline.service.run(batch, render=False)
    assert pipeline.lake.read(keys.markdown(KEY)) == markdown
    assert (counts.pages, dict(counts.by_status)) == (3, {"ok": 2, "failed": 1})


def test_the_text_of_an_earlier_recipe_stays_where_there_is_no_image_to_read_under_the_new_one(
    pipeline: Pipeline,
) -> None:
    batch = read_and_forgotten(pipeline)
    pipeline.lake.delete([KEY])
    under_a_newer_recipe(pipeline, lambda image: None)
    pipeline.process(batch)
    assert statuses(pipeline) == ["ok", "failed", "ok"]
    assert recipes(pipeline) == ["scripted"] * 3
