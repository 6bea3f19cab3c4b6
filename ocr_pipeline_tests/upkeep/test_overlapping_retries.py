"""Retries of one document that know nothing of each other, in any order and at once: no text that was paid for is
invisible, rows and markdown file agree, and nothing is asked twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise, permutations
from pathlib import Path

import pytest

from ocr_pipeline.flow.batch_run import StreamOptions
from ocr_pipeline.flow.service import OcrService
from ocr_pipeline.lake import batches, keys
from ocr_pipeline.lake.local import LocalStorage
from ocr_pipeline.lake.storage import StorageError
from ocr_pipeline.records import Batch, Reason
from ocr_pipeline.upkeep.rebuild import rebuild_warehouse
from ocr_pipeline.upkeep.retry import follow_ups
from ocr_pipeline_tests.flow.doubles import ScriptedTranscriber
from ocr_pipeline_tests.pdfs import numbered
from ocr_pipeline_tests.upkeep.pipeline import Pipeline
from ocr_pipeline_tests.upkeep.retrying import (
    KEY,
    REASONS,
    agree,
    asked_for,
    failing,
    held,
    hold,
    listed,
    process_what_is_left,
    statuses,
    three_pages_failed,
    under_a_newer_recipe,
    unpublished,
)


@pytest.mark.parametrize("order", [*permutations(range(2)), *permutations(range(3))], ids=str)
def test_retries_for_different_reasons_show_all_their_texts_in_whatever_order_they_run(
    pipeline: Pipeline, order: tuple[int, ...]
) -> None:
    failing(pipeline, len(order))
    retries = listed(pipeline, len(order))
    for place in order:
        pipeline.process(retries[place])
    process_what_is_left(pipeline)
    document_id = keys.document_id(KEY)
    assert dict(pipeline.transcriber.asked) == {(document_id, page): 1 for page in range(1, len(order) + 1)}
    assert statuses(pipeline) == ["ok"] * (len(order) + 1)
    assert agree(pipeline)
    hold(pipeline)


def test_retries_that_run_in_the_order_of_their_names_need_no_follow_up(pipeline: Pipeline) -> None:
    first = failing(pipeline, 2)
    retries = listed(pipeline, 2)
    for batch in retries:
        pipeline.process(batch)
    assert [*batches.names(pipeline.lake)] == [batch.name for batch in (first, *retries)]
    assert statuses(pipeline) == ["ok", "ok", "ok"]


def test_the_command_finds_the_follow_up_of_its_own_batches_and_no_other(pipeline: Pipeline) -> None:
    first = failing(pipeline, 2)
    before = datetime.now(UTC)
    lower, higher = listed(pipeline, 2)
    pipeline.process(higher)
    pipeline.process(lower)
    (found,) = follow_ups(pipeline.lake, [lower], before)
    assert [found] == unpublished(pipeline.lake)
    assert follow_ups(pipeline.lake, [lower, found], before) == []
    elsewhere = replace(first, uploads=tuple(replace(upload, key="inbox/b.pdf") for upload in first.uploads))
    assert follow_ups(pipeline.lake, [elsewhere], before) == []


def test_a_run_that_is_killed_before_it_lists_its_follow_up_lists_it_when_it_runs_again(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(pipeline, 2)
    lower, higher = listed(pipeline, 2)
    pipeline.process(higher)

    def die(*_: object) -> None:
        raise StorageError("the machine is gone")

    with monkeypatch.context() as killed:
        killed.setattr("ocr_pipeline.flow.repeating.follow_up", die)
        with pytest.raises(StorageError):
            pipeline.process(lower)
    assert unpublished(pipeline.lake) == [lower]
    process_what_is_left(pipeline)
    assert statuses(pipeline) == ["ok", "ok", "ok"]
    assert agree(pipeline)
    hold(pipeline)


@pytest.mark.parametrize("slow", [0, 1])
def test_of_two_retries_that_run_at_once_both_texts_are_shown(pipeline: Pipeline, slow: int) -> None:
    failing(pipeline, 2)
    retries = listed(pipeline, 2)
    with held(pipeline, retries[slow]) as finish:
        pipeline.process(retries[1 - slow])
        finish()
    process_what_is_left(pipeline)
    assert sum(pipeline.transcriber.asked.values()) == 2
    assert statuses(pipeline) == ["ok", "ok", "ok"]
    assert agree(pipeline)
    hold(pipeline)


@pytest.mark.parametrize("recipe_id", ["scripted", "newer"])
@pytest.mark.parametrize("slow", [0, 1])
def test_a_request_whose_answer_gives_way_to_that_of_another_retry_is_a_row(
    pipeline: Pipeline, slow: int, recipe_id: str
) -> None:
    retries = three_pages_failed(pipeline)
    with held(pipeline, retries[slow], recipe_id, unanswered=3) as finish:
        pipeline.process(retries[1 - slow])
        finish()
    process_what_is_left(pipeline)
    assert statuses(pipeline)[2] == "ok"
    document_id = keys.document_id(KEY)
    assert pipeline.transcriber.asked[document_id, 3] == 3
    rows = "SELECT page_number, count(*) FROM ocr.attempts GROUP BY ALL"
    assert {(document_id, page): count for page, count in pipeline.rows(rows)} == dict(pipeline.transcriber.asked)
    if recipe_id == ScriptedTranscriber.recipe_id:
        hold(pipeline)
    before = pipeline.everything()
    rebuild_warehouse(pipeline.lake, pipeline.warehouse)
    assert pipeline.everything() == before


def test_a_later_retry_that_ends_while_an_earlier_one_writes_the_markdown_file_has_the_last_word(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    failing(pipeline, 2)
    earlier, later = listed(pipeline, 2)
    meanwhile = [later]

    class Busy(LocalStorage):
        def write(self, key: str, data: bytes) -> None:
            if key.startswith(keys.MARKDOWN) and meanwhile:
                pipeline.process(meanwhile.pop())
            super().write(key, data)

    lake = Busy(Path(pipeline.lake.uri.removeprefix("file://")))
    service = OcrService(lake, ScriptedTranscriber, StreamOptions(render_workers=1, text_layer="never"))
    try:
        service.run(earlier)
    finally:
        service.close()
    pipeline.process(earlier)
    process_what_is_left(pipeline)
    assert statuses(pipeline) == ["ok", "ok", "ok"]
    assert agree(pipeline)


def as_an_older_release_left_it(pipeline: Pipeline, chain: list[Batch]) -> None:
    """Each batch of the chain repeats the one before it, and has left its name there."""
    document_id = keys.document_id(KEY)
    pipeline.lake.delete([info.key for info in pipeline.lake.list(keys.retries_done(chain[0].name, document_id))])
    for repeated, retry in pairwise(chain):
        pipeline.lake.write(keys.repeated_by(repeated.name, document_id), retry.name.encode())


@pytest.mark.parametrize("again", [0, 1])
def test_retries_that_an_older_release_made_keep_the_markdown_file(pipeline: Pipeline, again: int) -> None:
    chain = [failing(pipeline, 2)]
    for reason in REASONS[:2]:
        chain.append(asked_for(pipeline, reason))
        pipeline.process(chain[-1])
    as_an_older_release_left_it(pipeline, chain)
    under_a_newer_recipe(pipeline, lambda image: Reason.GARBAGE)
    pipeline.process(chain[again])
    process_what_is_left(pipeline)
    assert statuses(pipeline) == ["ok"] * 3
    assert agree(pipeline)


def test_a_retry_takes_its_texts_from_one_that_an_older_release_made(pipeline: Pipeline) -> None:
    first = failing(pipeline, 2)
    lower, higher = listed(pipeline, 2)
    pipeline.process(lower)
    as_an_older_release_left_it(pipeline, [first, lower])
    pipeline.process(higher)
    assert statuses(pipeline) == ["ok"] * 3
    assert agree(pipeline)
    hold(pipeline)


class Counting(LocalStorage):
    """A lake that knows what of it was read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[str] = []

    def read(self, key: str) -> bytes:
        self.reads.append(key)
        return super().read(key)


def test_a_run_reads_no_more_of_a_document_when_it_has_many_retries(pipeline: Pipeline) -> None:
    first = failing(pipeline, 1)
    pipeline.transcriber.script = lambda image: Reason.REPETITION if image.page_number == 1 else None
    lake = Counting(Path(pipeline.lake.uri.removeprefix("file://")))
    service = OcrService(lake, lambda: pipeline.transcriber, StreamOptions(render_workers=1, text_layer="never"))
    read = []
    for _ in range(4):
        pipeline.process(asked_for(pipeline, Reason.REPETITION))
        lake.reads.clear()
        service.run(first)
        read.append(len(lake.reads))
    service.close()
    assert read == [read[0]] * 4


def test_a_follow_up_asks_for_nothing_and_again_for_what_no_server_answered(pipeline: Pipeline) -> None:
    down = {1: Reason.REPETITION, 2: Reason.TRUNCATED, 3: Reason.BACKEND_UNAVAILABLE}
    pipeline.transcriber.script = lambda image: down.get(image.page_number)
    pipeline.process(pipeline.cut({"a.pdf": numbered(4)}))
    pipeline.transcriber.script = lambda image: down[3] if image.page_number == 3 else None
    lower, higher = listed(pipeline, 2)
    pipeline.process(higher)
    pipeline.process(lower)
    (follow_up,) = unpublished(pipeline.lake)
    pipeline.transcriber.asked.clear()
    pipeline.process(follow_up)
    assert not pipeline.transcriber.asked
    assert statuses(pipeline) == ["ok", "ok", "failed", "ok"]
    assert agree(pipeline)
    pipeline.transcriber.script = lambda image: None
    pipeline.process(follow_up)
    assert dict(pipeline.transcriber.asked) == {(keys.document_id(KEY), 3): 1}
    assert statuses(pipeline) == ["ok"] * 4
    assert agree(pipeline)
    hold(pipeline)
