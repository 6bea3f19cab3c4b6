"""The S3 store's client settings, its answers to faults, and what an emulator cannot show."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ocr_pipeline.lake import s3
from ocr_pipeline.lake.check import check
from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.lake.s3 import S3Storage, endpoint
from ocr_pipeline.lake.storage import ObjectMissing, S3Options, StorageError
from ocr_pipeline_tests.s3_stand_in import Fault, S3StandIn, s3_stand_in
from ocr_pipeline_tests.storages import RunningStore, free_port

SECRET = "very-s3cret-value"


@pytest.fixture
def store() -> Iterator[S3StandIn]:
    with s3_stand_in() as stand_in:
        yield stand_in


@pytest.fixture
def lake(store: S3StandIn) -> S3Storage:
    return S3Storage("b", "lake", store.options)


# ----------------------------------------------------------------------------------------------------------- settings


def test_the_real_client_sends_no_checksum_trailer_and_signs_as_r2_wants() -> None:
    """botocore uses the trailer that R2 refuses over https only: no test server on loopback shows the fault."""
    storage = open_storage("s3://bucket/lake", S3Options("key", SECRET, account_id="abc123"))
    assert isinstance(storage, S3Storage)
    filesystem = storage.filesystem
    client = filesystem.s3
    assert client.meta.config.request_checksum_calculation == "when_required"
    assert client.meta.config.response_checksum_validation == "when_required"
    assert client.meta.config.signature_version == "s3v4"
    assert client.meta.config.s3["addressing_style"] == "path"
    assert client.meta.config.retries == {"total_max_attempts": 6, "mode": "standard"}
    assert client.meta.region_name == "auto"
    assert client.meta.endpoint_url == "https://abc123.r2.cloudflarestorage.com"
    assert filesystem.fixed_upload_size is True
    assert filesystem.dircache.use_listings_cache is False
    assert storage.filesystem is filesystem
    assert S3Storage("bucket", "lake", S3Options("key", SECRET, account_id="abc123")).filesystem is not filesystem


def test_writing_does_not_wait_for_100_continue(store: S3StandIn, lake: S3Storage) -> None:
    """botocore asks for it before each body: a round trip more, and a hang where the server never says it."""
    lake.write("a", b"x")
    assert "Expect" not in store.headers[0]


def test_nobodys_aws_settings_change_where_we_go(
    store: S3StandIn, lake: S3Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text("[default]\nendpoint_url = http://127.0.0.1:1\nregion = eu-west-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    lake.write("a", b"x")
    assert lake.filesystem.s3.meta.config.request_checksum_calculation == "when_required"
    assert "/auto/s3/aws4_request" in store.headers[0]["Authorization"]


def test_the_endpoint_is_the_accounts_the_jurisdictions_or_the_one_given() -> None:
    options = S3Options("key", SECRET, account_id="abc123")
    assert endpoint(options) == "https://abc123.r2.cloudflarestorage.com"
    assert endpoint(replace(options, jurisdiction="eu")) == "https://abc123.eu.r2.cloudflarestorage.com"
    assert endpoint(replace(options, endpoint_url="http://s3.example:9000/")) == "http://s3.example:9000"


@pytest.mark.parametrize(
    ("options", "mend"),
    [
        (S3Options(), "R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY"),
        (S3Options("key", ""), "R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY"),
        (S3Options("key", SECRET), "R2_ACCOUNT_ID"),
        (S3Options("key", SECRET, account_id="evil.example/#"), "R2_ACCOUNT_ID"),
        (S3Options("key", SECRET, account_id="abc", jurisdiction="eu.evil"), "R2_JURISDICTION"),
        (S3Options("key", SECRET, endpoint_url="s3.example"), "R2_ENDPOINT_URL"),
        (
            S3Options("key", SECRET, endpoint_url="https://abc.eu.r2.cloudflarestorage.com/docs"),
            r"ends in '/docs'.*leave it off \(https://abc.eu.r2.cloudflarestorage.com\)",
        ),
    ],
)
def test_settings_that_cannot_work_are_told_at_once(options: S3Options, mend: str) -> None:
    with pytest.raises(StorageError, match=mend) as refused:
        open_storage("s3://bucket/lake", options)
    assert SECRET not in f"{refused.value}{options!r}"


# ------------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("status", "code", "mend"),
    [
        (403, "InvalidAccessKeyId", "R2_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", "R2_SECRET_ACCESS_KEY"),
        (403, "AccessDenied", "Object Read & Write"),
        (401, "Unauthorized", "token"),
        (404, "NoSuchBucket", "OCR_LAKE.*R2_JURISDICTION"),
        (403, "RequestTimeTooSkewed", "clock of this machine"),
        (400, "AuthorizationHeaderMalformed", "R2_REGION"),
        (418, "Strange", "418 Strange: as told"),
    ],
)
def test_a_refusal_of_the_store_says_what_to_mend(
    store: S3StandIn, lake: S3Storage, status: int, code: str, mend: str
) -> None:
    for use in (lambda: lake.read("a"), lambda: lake.write("a", b""), lambda: list(lake.list(""))):
        store.faults = [Fault(status, code)] * 3
        with pytest.raises(StorageError, match=mend) as refused:
            use()
        assert not isinstance(refused.value, ObjectMissing)
        assert store.url in str(refused.value)
        assert len(store.faults) == 2, "a refusal is not tried again"


def test_a_refused_head_without_a_body_still_says_what_to_mend(store: S3StandIn, lake: S3Storage) -> None:
    store.faults = [Fault(403)] * 2
    with pytest.raises(StorageError, match="R2_ACCESS_KEY_ID"):
        lake.stat("a")


def test_a_store_that_is_not_there_is_told_with_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    monkeypatch.setattr(s3, "CLIENT_ATTEMPTS", 1)
    url = f"http://127.0.0.1:{free_port()}"
    lake = S3Storage("b", "", S3Options("key", SECRET, endpoint_url=url))
    with pytest.raises(StorageError, match=r"cannot reach the store http://127.*R2_ENDPOINT_URL") as refused:
        lake.read("a")
    assert SECRET not in str(refused.value)


@pytest.mark.wrangler
def test_cloudflares_simulator_refuses_a_wrong_secret_in_our_words(wrangler: RunningStore) -> None:
    wrong = replace(wrangler.options, secret_access_key=SECRET)
    with pytest.raises(StorageError, match="R2_SECRET_ACCESS_KEY") as refused:
        open_storage("s3://docs/x", wrong).write("a", b"x")
    assert SECRET not in str(refused.value)
    with pytest.raises(StorageError, match="OCR_LAKE"):
        open_storage("s3://nobucket/x", wrangler.options).write("a", b"x")


def test_a_bucket_that_is_not_there_is_told_and_is_no_missing_object(moto: RunningStore) -> None:
    lake = open_storage("s3://nobucket/x", moto.options)
    for use in (lambda: lake.read("a"), lambda: lake.write("a", b""), lambda: list(lake.list(""))):
        with pytest.raises(StorageError, match="there is no such bucket") as refused:
            use()
        assert not isinstance(refused.value, ObjectMissing)


@pytest.mark.parametrize(
    "fault", [Fault(503, "ServiceUnavailable"), Fault(500), Fault(429, "TooManyRequests"), Fault(409)]
)
def test_a_fault_that_passes_is_tried_again(store: S3StandIn, lake: S3Storage, fault: Fault) -> None:
    store.faults = [fault]
    lake.write("a", b"x")
    store.faults = [fault]
    assert lake.read("a") == b"x"
    assert len(store.requests) == 4


def test_a_body_that_breaks_off_is_fetched_again(store: S3StandIn, lake: S3Storage, tmp_path: Path) -> None:
    store.objects["lake/a"] = os.urandom(3 << 20)
    store.faults = [Fault(200, cut_after=2 << 20)]
    assert lake.read("a") == store.objects["lake/a"]
    store.faults = [Fault(200, cut_after=2 << 20)]
    assert lake.download("a", tmp_path / "a").size == 3 << 20
    assert (tmp_path / "a").read_bytes() == store.objects["lake/a"]


def test_a_body_that_always_breaks_off_leaves_no_file(
    store: S3StandIn, lake: S3Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 2)
    store.objects["lake/a"] = b"x" * 1000
    store.faults = [Fault(200, cut_after=10)] * 2
    with pytest.raises(StorageError, match="cannot reach the store"):
        lake.download("a", tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_disk_that_is_full_is_not_the_stores_fault(store: S3StandIn, lake: S3Storage, tmp_path: Path) -> None:
    store.objects["lake/a"] = b"x" * 100_000
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    with pytest.raises(StorageError, match="No space left on device"):
        lake.download("a", full)


def test_a_disk_that_is_slow_holds_up_no_other_request(store: S3StandIn, lake: S3Storage, tmp_path: Path) -> None:
    store.objects |= {"lake/large": os.urandom(1 << 20), "lake/small": b"x"}
    full = tmp_path / "a pipe takes 64 KiB until it is read"
    os.mkfifo(full)
    with ThreadPoolExecutor(2) as pool, open(os.open(full, os.O_RDONLY | os.O_NONBLOCK), "rb") as drain:
        downloaded = pool.submit(lake.download, "large", full)
        while not select.select([drain], [], [], 0.1)[0]:
            assert not downloaded.done()
        try:
            assert pool.submit(lake.read, "small").result(timeout=20) == b"x"
        finally:
            os.set_blocking(drain.fileno(), True)
            assert drain.read(1 << 20) == store.objects["lake/large"]
        assert downloaded.result().size == 1 << 20


def test_an_upload_that_fails_leaves_no_parts_behind(
    moto: RunningStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = open_storage(moto.new_lake(), moto.options)
    assert isinstance(lake, S3Storage)
    source = tmp_path / "source"
    source.write_bytes(b"x" * (s3.PART_BYTES * 2))
    real = lake._call
    ended: list[object] = []

    async def failing(method: str, **arguments: object) -> object:
        if method == "upload_part" and arguments["PartNumber"] == 2:
            raise OSError("broken")
        if method == "abort_multipart_upload":
            ended.append("abort")
        answer = await real(method, **arguments)
        ended.append(arguments.get("PartNumber"))
        return answer

    monkeypatch.setattr(lake, "_call", failing)
    with pytest.raises(StorageError):
        lake.upload("a", source)
    assert ended[-3:] == [1, "abort", None], "a part that arrives after the abort would stay"
    assert lake.stat("a") is None
    left = lake.filesystem.call_s3("list_multipart_uploads", Bucket=lake.bucket)
    assert [upload for upload in left.get("Uploads", []) if upload["Key"].startswith(lake.prefix)] == []


# ------------------------------------------------------------------------------------------------------- on the wire


def test_a_key_with_line_breaks_goes_over_the_wire_and_comes_back_unchanged(store: S3StandIn, lake: S3Storage) -> None:
    key = "inbox/line\nbreak\r\n and\ttab.pdf"
    lake.write(key, b"x")
    assert store.objects == {f"lake/{key}": b"x"}
    assert [info.key for info in lake.list("inbox/")] == [key]
    assert lake.read(key) == b"x"


def test_a_listing_asks_from_its_start_and_page_by_page(store: S3StandIn, lake: S3Storage) -> None:
    for number in range(2500):
        store.objects[f"lake/inbox/{number:05d}"] = b""
    found = lake.list("inbox/", start_after="inbox/00099")
    assert next(found).key == "inbox/00100"
    assert len(store.requests) == 1, "a page is asked for when it is needed"
    assert len(list(found)) == 2399
    assert len(store.requests) == 3
    assert "start-after=lake%2Finbox%2F00099" in store.requests[0][1]


def test_the_marks_that_consoles_leave_for_folders_are_no_uploads(store: S3StandIn, lake: S3Storage) -> None:
    store.objects = {"lake/inbox/": b"", "lake/inbox/new folder/": b"", "lake/inbox/a.pdf": b"x"}
    assert [info.key for info in lake.list("inbox/")] == ["inbox/a.pdf"]


def test_a_file_whose_name_ends_with_a_slash_is_an_upload(store: S3StandIn, lake: S3Storage) -> None:
    store.objects = {"lake/inbox/report.pdf/": b"%PDF-"}
    assert [info.key for info in lake.list("inbox/")] == ["inbox/report.pdf/"]


def test_a_key_that_climbs_or_is_hidden_is_left_alone_and_told_once(
    store: S3StandIn, lake: S3Storage, caplog: pytest.LogCaptureFixture
) -> None:
    store.objects = {
        "lake/inbox/../batches/x.json": b"x",
        "lake/inbox/.Q3 report.pdf": b"x",
        "lake/inbox/a.pdf": b"x",
    }
    for _ in range(2):
        assert [info.key for info in lake.list("inbox/")] == ["inbox/a.pdf"]
    assert caplog.text.count("left alone") == 2
    assert "'inbox/.Q3 report.pdf'" in caplog.text


# -------------------------------------------------------------------------------------------------- stores of no use


@contextmanager
def answering(answer: bytes | None) -> Iterator[tuple[str, list[bytes]]]:
    """A server that takes connections and says the same bytes to each, or nothing for ever; what it was asked."""
    asked: list[bytes] = []
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                asked.append(connection.recv(4096))
                if answer is None:
                    held.append(connection)
                else:
                    connection.sendall(answer)
                    connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}", asked
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in held:
                connection.close()


async def at_once(*_: object) -> None:
    """For asyncio.sleep: back-off that takes no time."""


def test_a_store_that_never_answers_is_asked_by_one_layer_of_retries_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(None) as (address, asked):
        monkeypatch.setattr(s3, "READ_SECONDS", 0.2)
        lake = S3Storage("b", "lake", S3Options("key", SECRET, endpoint_url=f"http://{address}"))
        monkeypatch.setattr("aiobotocore.endpoint.asyncio.sleep", at_once)
        with pytest.raises(StorageError, match="does not answer in time"):
            lake.read("a")
        assert len(asked) == 6


def test_an_account_that_r2_does_not_know_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    alert = bytes([0x15, 3, 3, 0, 2, 2, 40])  # what R2 says to the name of an account that is not there
    monkeypatch.setattr("aiobotocore.endpoint.asyncio.sleep", at_once)
    with answering(alert) as (address, _):
        lake = S3Storage("b", "lake", S3Options("key", SECRET, endpoint_url=f"https://{address}"))
        with pytest.raises(StorageError, match="account that it does not know: check R2_ACCOUNT_ID"):
            lake.read("a")


def test_a_lake_is_checked_by_writing_reading_listing_and_deleting(moto: RunningStore) -> None:
    sound = open_storage(moto.new_lake(), moto.options)
    check(sound, "inbox/")
    assert list(sound.list("")) == []
    with_bucket = replace(moto.options, endpoint_url=f"{moto.options.endpoint_url}/lake")
    with pytest.raises(StorageError):
        check(open_storage("s3://lake/x", with_bucket), "inbox/")
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nETag: x\r\nConnection: close\r\n\r\n<html>"
    with answering(page) as (address, _), pytest.raises(StorageError):
        check(S3Storage("b", "", S3Options("key", SECRET, endpoint_url=f"http://{address}")), "inbox/")


def test_many_threads_share_one_store(moto: RunningStore) -> None:
    lake = open_storage(moto.new_lake(), moto.options)

    def work(number: int) -> bytes:
        lake.write(f"{number}", b"%d" % number)
        return lake.read(f"{number}")

    with ThreadPoolExecutor(40) as pool:
        assert list(pool.map(work, range(80))) == [b"%d" % number for number in range(80)]


FORKING = """
import os, sys
from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.lake.storage import S3Options
lake = open_storage("s3://b/lake", S3Options("key", "secret", endpoint_url=sys.argv[1]))
lake.write("parent", b"1")
child = os.fork()
if child == 0:
    lake.write("child", lake.read("parent") + b"2")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert lake.read("child") == b"12"
"""


def test_a_forked_child_may_go_on_with_the_store(store: S3StandIn) -> None:
    done = subprocess.run([sys.executable, "-c", FORKING, store.url], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
