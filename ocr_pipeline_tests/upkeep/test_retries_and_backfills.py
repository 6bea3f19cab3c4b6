"""Retries beside backfills by another recipe: which text a page shows, whichever of them ends last."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ocr_pipeline.lake import batches, keys, planner
from ocr_pipeline.records import Reason
from ocr_pipeline.upkeep.rebuild import rebuild_warehouse
from ocr_pipeline_tests.upkeep.pipeline import Pipeline
from ocr_pipeline_tests.upkeep.retrying import (
    REASONS,
    agree,
    asked_for,
    failing,
    held,
    hold,
    listed,
    process_what_is_left,
    recipes,
    statuses,
    under_a_newer_recipe,
    unpublished,
)


@pytest.mark.parametrize("backfill_first", [False, True])
def test_a_retry_beside_a_backfill_of_the_batch_that_it_repeats_leaves_no_page_without_the_text_it_has(
    pipeline: Pipeline, backfill_first: bool
) -> None:
    first = failing(pipeline, 2)
    (retry, _) = listed(pipeline, 2)
    batches_to_run = [first, retry] if backfill_first else [retry, first]
    pipeline.lake.delete([keys.batch(_.name)])  # one retry alone
    under_a_newer_recipe(pipeline, lambda image: None)
    for batch in batches_to_run:
        pipeline.process(batch)
    process_what_is_left(pipeline)
    assert statuses(pipeline) == ["ok", "ok", "ok"]
    assert recipes(pipeline)[:2] == ["newer", "newer"]
    assert agree(pipeline)
    rows = pipeline.everything()
    rebuild_warehouse(pipeline.lake, pipeline.warehouse)
    assert pipeline.everything() == rows


def test_a_backfill_of_retries_takes_no_text_of_the_recipe_before(pipeline: Pipeline) -> None:
    first = failing(pipeline, 2)
    retries = listed(pipeline, 2)
    for batch in reversed(retries):
        pipeline.process(batch)
    process_what_is_left(pipeline)
    assert statuses(pipeline) == ["ok", "ok", "ok"]
    under_a_newer_recipe(pipeline, lambda image: Reason.GARBAGE if image.page_number == 1 else None)
    everything = sorted(batches.load(pipeline.lake), key=lambda batch: batch.name)
    for batch in (*everything, *everything):
        pipeline.process(batch)
    assert everything[0] == first
    assert list(batches.names(pipeline.lake)) == [batch.name for batch in everything]
    assert statuses(pipeline) == ["failed", "ok", "ok"]
    assert recipes(pipeline) == ["newer"] * 3
    assert sum(pipeline.transcriber.asked.values()) == 3
    assert agree(pipeline)


@pytest.mark.parametrize("sensor_looks_between", [True, False])
@pytest.mark.parametrize("retry_first", [True, False])
def test_a_backfill_of_a_batch_and_its_retry_shows_the_new_recipe_alone(
    pipeline: Pipeline, retry_first: bool, sensor_looks_between: bool
) -> None:
    first = failing(pipeline, 2)
    retry = asked_for(pipeline, Reason.REPETITION)  # page 2 stays without its text
    pipeline.process(retry)
    under_a_newer_recipe(pipeline, lambda image: None)
    for batch in (retry, first) if retry_first else (first, retry):
        pipeline.process(batch)
        if sensor_looks_between:
            process_what_is_left(pipeline)
    process_what_is_left(pipeline)
    assert statuses(pipeline) == ["ok"] * 3
    assert recipes(pipeline) == ["newer"] * 3
    assert sum(pipeline.transcriber.asked.values()) == 3
    assert agree(pipeline)
    hold(pipeline)


@pytest.mark.parametrize("retry_first", [True, False])
def test_a_backfill_under_the_recipe_of_an_earlier_retry_shows_its_text_on_every_page(
    pipeline: Pipeline, retry_first: bool
) -> None:
    first = failing(pipeline, 2)
    under_a_newer_recipe(pipeline, lambda image: None)
    retry = asked_for(pipeline, Reason.REPETITION)
    pipeline.process(retry)
    assert recipes(pipeline) == ["newer", "scripted", "scripted"]
    for batch in (retry, first) if retry_first else (first, retry):
        pipeline.process(batch)
    process_what_is_left(pipeline)
    assert statuses(pipeline) == ["ok"] * 3
    assert recipes(pipeline) == ["newer"] * 3
    assert sum(pipeline.transcriber.asked.values()) == 3
    assert agree(pipeline)
    hold(pipeline)


def test_a_backfill_that_fails_on_a_page_leaves_the_text_that_a_retry_under_its_recipe_has_kept(
    pipeline: Pipeline,
) -> None:
    first = failing(pipeline, 2)
    under_a_newer_recipe(pipeline, lambda image: Reason.GARBAGE if image.page_number == 3 else None)
    retry = asked_for(pipeline, Reason.REPETITION)
    for batch in (retry, first, retry):
        pipeline.process(batch)
    process_what_is_left(pipeline)
    assert statuses(pipeline) == ["ok"] * 3
    assert recipes(pipeline) == ["newer", "newer", "scripted"]
    assert agree(pipeline)
    hold(pipeline)


def test_a_backfill_shows_its_text_where_a_follow_up_under_its_recipe_has_kept_the_old_one(pipeline: Pipeline) -> None:
    first = failing(pipeline, 2)
    retry = asked_for(pipeline, Reason.REPETITION)
    pipeline.process(retry)
    under_a_newer_recipe(pipeline, lambda image: None)
    follow_up = planner.retry({first.uploads[0]: retry.name}, (), datetime.now(UTC))
    batches.write(pipeline.lake, follow_up)
    pipeline.process(follow_up)
    assert recipes(pipeline) == ["scripted"] * 3
    for batch in (first, retry):
        pipeline.process(batch)
    process_what_is_left(pipeline)
    assert statuses(pipeline) == ["ok"] * 3
    assert recipes(pipeline) == ["newer"] * 3
    assert agree(pipeline)
    hold(pipeline)


def test_a_text_that_a_slower_retry_has_read_under_another_recipe_is_shown(pipeline: Pipeline) -> None:
    failing(pipeline, 2)
    lower, higher = listed(pipeline, 2)
    with held(pipeline, lower, "newer") as finish:
        pipeline.process(higher)
        finish()
    assert sorted(statuses(pipeline)) == ["failed", "ok", "ok"]
    process_what_is_left(pipeline)
    assert statuses(pipeline) == ["ok"] * 3
    assert sorted(map(str, recipes(pipeline))) == ["newer", "scripted", "scripted"]
    assert sum(pipeline.transcriber.asked.values()) == 2
    assert agree(pipeline)


@pytest.mark.parametrize("asks", [True, False], ids=["retry", "follow-up"])
def test_what_goes_on_from_a_backfill_takes_no_text_of_the_recipe_before(pipeline: Pipeline, asks: bool) -> None:
    first = failing(pipeline, 2)
    lower, higher = listed(pipeline, 2)
    pipeline.process(lower)
    pipeline.process(higher)
    assert statuses(pipeline) == ["ok"] * 3
    (reason,) = lower.retry_reasons
    of_lower = REASONS.index(reason)
    under_a_newer_recipe(pipeline, lambda image: reason if image.page_number == of_lower + 1 else None)
    pipeline.process(higher)
    assert statuses(pipeline)[of_lower] == "failed"
    texts = "SELECT page_number, status, recipe_id, markdown FROM ocr.pages ORDER BY 1"
    backfilled = pipeline.rows(texts)
    again = planner.retry({first.uploads[0]: higher.name}, (reason,) if asks else (), datetime.now(UTC))
    batches.write(pipeline.lake, again)
    for _ in range(2):
        pipeline.process(again)
        assert pipeline.rows("SELECT page_number, status, recipe_id, markdown FROM ocr.pages ORDER BY 1") == backfilled
        assert agree(pipeline)
    assert unpublished(pipeline.lake) == []


def test_a_text_under_the_recipe_of_a_backfill_is_shown_also_where_a_retry_under_a_third_one_goes_on_from_it(
    pipeline: Pipeline,
) -> None:
    first = failing(pipeline, 2)
    lower, higher = listed(pipeline, 2)
    pipeline.process(higher)
    (reason,) = lower.retry_reasons
    of_lower = REASONS.index(reason)
    under_a_newer_recipe(pipeline, lambda image: reason if image.page_number == of_lower + 1 else None)
    pipeline.process(higher)
    with held(pipeline, lower, "newer") as finish:
        pipeline.service.close()
        pipeline.transcriber.recipe_id = "third"
        pipeline.use(pipeline.transcriber)
        again = planner.retry({first.uploads[0]: higher.name}, (reason,), datetime.now(UTC))
        batches.write(pipeline.lake, again)
        pipeline.process(again)
        assert (statuses(pipeline)[of_lower], recipes(pipeline)[of_lower]) == ("failed", "third")
        finish()
    process_what_is_left(pipeline)
    assert statuses(pipeline) == ["ok"] * 3
    assert recipes(pipeline) == ["newer"] * 3
    assert agree(pipeline)
