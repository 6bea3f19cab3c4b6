"""Events from a queue: pulled, held against the store, acknowledged only when the caller says so."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_pipeline import wiring
from ocr_pipeline.intake.tick import run_tick
from ocr_pipeline.lake import events
from ocr_pipeline.lake.local import LocalStorage
from ocr_pipeline.lake.queue import QueueError, QueueOptions, QueuePull
from ocr_pipeline.lake.storage import ObjectInfo, StorageError
from ocr_pipeline.settings import Settings
from ocr_pipeline_tests.queue_stand_in import StandIn, queue_stand_in


@pytest.fixture
def queue() -> Iterator[StandIn]:
    with queue_stand_in() as stand_in:
        yield stand_in


@pytest.fixture
def options(queue: StandIn) -> QueueOptions:
    return QueueOptions(queue.url, queue.account_id, queue.queue_id, queue.token, bucket="docs", lake_prefix="lake")


@pytest.fixture
def lake(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


def test_an_event_becomes_the_upload_as_it_stands_in_the_store(
    queue: StandIn, options: QueueOptions, lake: LocalStorage
) -> None:
    lake.write("inbox/a b.pdf", b"12345")
    queue.send_event("docs", "lake/inbox/a b.pdf")
    with QueuePull(options) as puller:
        pulled = puller.pull(lake, "inbox/")
        (upload,) = pulled.uploads
        info = lake.stat("inbox/a b.pdf")
        assert info is not None
        assert (upload.key, upload.etag, upload.size, upload.last_modified) == (
            info.key,
            info.etag,
            5,
            info.last_modified,
        )
        puller.acknowledge(pulled)
        assert queue.waiting == []


def test_the_same_event_five_times_is_one_upload(queue: StandIn, options: QueueOptions, lake: LocalStorage) -> None:
    lake.write("inbox/a.pdf", b"x")
    queue.send_event("docs", "lake/inbox/a.pdf", times=5)
    with QueuePull(options) as puller:
        pulled = puller.pull(lake, "inbox/")
        assert [upload.key for upload in pulled.uploads] == ["inbox/a.pdf"]
        puller.acknowledge(pulled)
    assert queue.waiting == []


def test_what_was_not_acknowledged_comes_again_when_its_lease_runs_out(
    queue: StandIn, options: QueueOptions, lake: LocalStorage
) -> None:
    lake.write("inbox/a.pdf", b"x")
    queue.send_event("docs", "lake/inbox/a.pdf")
    with QueuePull(options) as puller:
        first = puller.pull(lake, "inbox/")
        assert puller.pull(lake, "inbox/").uploads == []
        queue.now += options.visibility_seconds + 1
        again = puller.pull(lake, "inbox/")
        assert again.uploads == first.uploads
        puller.acknowledge(again)
    assert queue.waiting == []


def test_events_out_of_order_end_with_what_is_there_now(
    queue: StandIn, options: QueueOptions, lake: LocalStorage
) -> None:
    lake.write("inbox/back.pdf", b"x")
    for key in ("back", "gone"):
        for action in ("DeleteObject", "PutObject", "DeleteObject"):
            queue.send_event("docs", f"lake/inbox/{key}.pdf", action)
    with QueuePull(options) as puller:
        pulled = puller.pull(lake, "inbox/")
    assert [upload.key for upload in pulled.uploads] == ["inbox/back.pdf"]
    assert pulled.deleted == ["inbox/gone.pdf"]


def test_what_is_no_event_goes_to_the_dead_letters_and_blocks_nothing(
    queue: StandIn, options: QueueOptions, lake: LocalStorage
) -> None:
    lake.write("inbox/a.pdf", b"x")
    for body in ("not json", "", base64.b64encode(b"\xff\xfe").decode(), "[]", "{" * 100_000):
        queue.send(body, raw=True)
    for said in ([], 3, {"object": {"key": 5}}, {"bucket": "docs", "object": {"key": "lake/inbox/" + "x" * 2000}}):
        queue.send(said)
    undecodable = 9
    with QueuePull(options) as puller:
        for attempt in range(queue.max_retries + 2):
            queue.send_event("docs", "lake/inbox/a.pdf")
            pulled = puller.pull(lake, "inbox/")
            assert [upload.key for upload in pulled.uploads] == ["inbox/a.pdf"]
            assert pulled.undecodable == (undecodable if attempt <= queue.max_retries else 0)
            puller.acknowledge(pulled)
            queue.now += 61
    assert queue.waiting == []
    assert len(queue.dead) == undecodable


@pytest.mark.parametrize(
    ("bucket", "key"),
    [
        ("other", "lake/inbox/a.pdf"),
        ("docs", "inbox/a.pdf"),
        ("docs", "lake/batches/x.json"),
        ("docs", "lake/inbox/.hidden/a.pdf"),
        ("docs", "lake/inbox/../batches/x.json"),
    ],
)
def test_events_about_other_things_are_acknowledged_and_left_alone(
    queue: StandIn, options: QueueOptions, lake: LocalStorage, bucket: str, key: str
) -> None:
    queue.send_event(bucket, key)
    with QueuePull(options) as puller:
        pulled = puller.pull(lake, "inbox/")
        assert (pulled.uploads, pulled.deleted, pulled.foreign) == ([], [], 1)
        puller.acknowledge(pulled)
    assert queue.waiting == []


def test_a_store_that_cannot_be_asked_leaves_the_events_in_the_queue(
    queue: StandIn, options: QueueOptions, lake: LocalStorage
) -> None:
    class Down(LocalStorage):
        def stat(self, key: str) -> ObjectInfo | None:
            raise StorageError("down")

    queue.send_event("docs", "lake/inbox/a.pdf")
    with QueuePull(options) as puller, pytest.raises(StorageError):
        puller.pull(Down(Path(lake.root)), "inbox/")
    assert len(queue.waiting) == 1


def test_more_than_one_pull_is_taken_and_a_pull_stops_at_its_limits(
    queue: StandIn, options: QueueOptions, lake: LocalStorage
) -> None:
    for number in range(250):
        queue.send_event("docs", f"lake/inbox/{number}.pdf")
    with QueuePull(options) as puller:
        first = puller.pull(lake, "inbox/", most=100)
        assert (len(first.deleted), first.more) == (100, True)
        second = puller.pull(lake, "inbox/", out_of_time=lambda: True)
        assert (len(second.deleted), second.more) == (100, True)
        third = puller.pull(lake, "inbox/")
        assert (len(third.deleted), third.more) == (50, False)
        for pulled in (first, second, third):
            puller.acknowledge(pulled)
    assert queue.waiting == []


def test_a_fault_that_passes_is_tried_again(
    queue: StandIn, options: QueueOptions, lake: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("ocr_pipeline.lake.queue.time.sleep", waits.append)
    lake.write("inbox/a.pdf", b"x")
    queue.send_event("docs", "lake/inbox/a.pdf")
    queue.answers = [503, 429, 500]
    with QueuePull(options) as puller:
        assert len(puller.pull(lake, "inbox/").uploads) == 1
    assert len(waits) == 3
    assert waits == sorted(waits)


def test_errors_say_what_to_do_and_show_no_token(
    queue: StandIn, options: QueueOptions, lake: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocr_pipeline.lake.queue.time.sleep", lambda seconds: None)
    secret = "s3cr3t-t0ken"
    for wrong, mend in (
        (replace(options, token=secret), "OCR_QUEUE_TOKEN"),
        (replace(options, queue_id="none"), "OCR_QUEUE_ID"),
        (replace(options, api_url="http://127.0.0.1:1", token=secret), "OCR_QUEUE_API_URL"),
    ):
        with QueuePull(wrong) as puller, pytest.raises(QueueError, match=mend) as refused:
            puller.pull(lake, "inbox/")
        assert secret not in f"{refused.value}{wrong!r}"


@pytest.mark.timeout(60)
def test_an_answer_that_never_ends_is_given_up(
    queue: StandIn, options: QueueOptions, lake: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocr_pipeline.lake.queue.ANSWER_SECONDS", 0.5)
    monkeypatch.setattr("ocr_pipeline.lake.queue.time.sleep", lambda seconds: None)
    queue.drips = True
    with QueuePull(options) as puller, pytest.raises(QueueError, match="TimeoutError"):
        puller.pull(lake, "inbox/")


def raw(body: bytes, header: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), header, body)


@pytest.mark.parametrize(
    "answer",
    [
        raw(b'{"success":true,"result":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        raw(b"no gzip", b"Content-Encoding: gzip\r\n"),
        raw(b"\xff\xfe\xfd"),
    ],
    ids=["deep", "compressed", "not Unicode"],
)
def test_an_answer_that_is_none_of_the_queues_is_told_as_an_error(
    queue: StandIn, options: QueueOptions, lake: LocalStorage, answer: bytes
) -> None:
    queue.raw_answers = [answer]
    with QueuePull(options) as puller, pytest.raises(QueueError, match="answered"):
        puller.pull(lake, "inbox/")


def test_an_answer_of_any_size_is_not_taken_into_memory(
    queue: StandIn, options: QueueOptions, lake: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocr_pipeline.lake.queue.MOST_BYTES", 2000)
    queue.raw_answers = [raw(b'{"success":true,"result":{}}'.ljust(3000))]
    with QueuePull(options) as puller, pytest.raises(QueueError, match="more than 2000 bytes"):
        puller.pull(lake, "inbox/")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["bucket", "object", "key", "action"]), inner)
    ),
    max_leaves=8,
)


@given(json_values, st.booleans())
def test_no_message_body_breaks_the_decoder(value: object, plain: bool) -> None:
    body = json.dumps(value) if plain else base64.b64encode(json.dumps(value).encode()).decode()
    event = events.decode({"body": body})
    if event is not None:
        assert event.key.encode()
        events.upload_key(event, "docs", "lake/", "inbox/")


@given(st.text() | st.none() | st.integers())
def test_no_text_breaks_the_decoder(body: object) -> None:
    events.decode({"body": body})


@given(st.text(min_size=1, max_size=50).filter(lambda key: key.isprintable()), st.booleans())
def test_an_event_is_read_in_both_encodings(key: str, plain: bool) -> None:
    said = json.dumps({"bucket": "docs", "action": "PutObject", "object": {"key": key, "size": 1, "eTag": "x"}})
    body = said if plain else base64.b64encode(said.encode()).decode()
    assert events.decode({"body": body}) == events.Event("docs", key, 1)


def test_the_mark_of_a_folder_is_no_upload_and_a_file_whose_name_ends_with_a_slash_is_one() -> None:
    for size, expected in ((0, None), (None, None), (7, "inbox/report.pdf/")):
        event = events.Event("docs", "lake/inbox/report.pdf/", size)
        assert events.upload_key(event, "docs", "lake/", "inbox/") == expected


def test_a_deletion_is_written_down_only_for_a_key_that_a_batch_list_names(
    queue: StandIn, options: QueueOptions, lake: LocalStorage, settings: Settings
) -> None:
    lake.write("inbox/known.pdf", b"x")
    queue.send_event("docs", "lake/inbox/known.pdf")
    with QueuePull(options) as puller:
        run_tick(lake, wiring.intake(settings), None, queue=puller)
        lake.delete(["inbox/known.pdf"])
        for name in ("known", "purged"):  # a purge's own deletion comes back when no list names the key any more
            queue.send_event("docs", f"lake/inbox/{name}.pdf", "DeleteObject")
        (gone,) = run_tick(lake, wiring.intake(settings), None, queue=puller).batches
    assert gone.deleted == ("inbox/known.pdf",)
    assert queue.waiting == []
    assert not [info.key for info in lake.list("batches/") if b"purged" in lake.read(info.key)]
