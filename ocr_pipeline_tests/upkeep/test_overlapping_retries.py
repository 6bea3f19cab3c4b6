"""Retries of one document that know nothing of each other, in any order and at once: no text that was paid for is
invisible, rows and markdown file agree, and nothing is asked twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise, permutations
from pathlib import Path

import pytest

from ocr_pipeline.flow.loading import load
from ocr_pipeline.flow.published import publish, read_manifest
from ocr_pipeline.flow.service import OcrService
from ocr_pipeline.flow.stream import StreamOptions
from ocr_pipeline.lake import batches, keys, planner
from ocr_pipeline.lake.local import LocalStorage
from ocr_pipeline.lake.storage import ObjectMissing, Storage, StorageError
from ocr_pipeline.records import Batch, Geometry, PageImage, Reason
from ocr_pipeline.upkeep.rebuild import rebuild_warehouse
from ocr_pipeline.upkeep.retry import ask_again, follow_ups
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


def three_pages_failed(pipeline: Pipeline) -> list[Batch]:
    """A document of four pages; the retries for the first two, which both ask for the third: no server answered it."""
    down = {**dict(enumerate(REASONS[:2], 1)), 3: Reason.BACKEND_UNAVAILABLE}
    pipeline.transcriber.script = lambda image: down.get(image.page_number)
    pipeline.process(pipeline.cut({"a.pdf": numbered(4)}))
    pipeline.transcriber.script = lambda image: None
    return listed(pipeline, 2)


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


def under_a_newer_recipe(pipeline: Pipeline, script: Callable[[PageImage], Answer | None]) -> None:
    pipeline.service.close()
    pipeline.transcriber = ScriptedTranscriber(script)
    pipeline.transcriber.recipe_id = "newer"
    pipeline.transcriber.geometry = Geometry(dpi=100, max_long_side=1200, max_short_side=900)
    pipeline.use(pipeline.transcriber)


def recipes(pipeline: Pipeline) -> list[object]:
    return [recipe for (recipe,) in pipeline.rows("SELECT recipe_id FROM ocr.pages ORDER BY page_number")]


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
