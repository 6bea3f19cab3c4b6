"""The real upload Worker in `wrangler dev`, with Cloudflare's R2 simulator behind it: what it takes, refuses, keeps."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.lake.queue import QueueOptions, QueuePull
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline_tests.access_stand_in import Team
from ocr_pipeline_tests.queue_stand_in import StandIn
from ocr_pipeline_tests.storages import UPLOAD_SECRET, RunningStore, require_wrangler, wrangler_store

pytestmark = pytest.mark.wrangler

AUTH = {"Authorization": f"Bearer {UPLOAD_SECRET}"}
BUFFERED = 16 * 2**20
KEY = re.compile(r"inbox/(urgent/)?\d{4}/\d{2}/\d{2}/[0-9A-HJKMNP-TV-Z]{26}-[\w.-]+\.pdf")


@dataclass
class Worker:
    http: httpx.Client
    storage: Storage

    def inbox(self) -> list[str]:
        return [info.key for info in self.storage.list("inbox/")]

    def bucket(self) -> list[str]:
        """Everything there is, the Worker's records too."""
        return [info.key for info in self.storage.list("") if info.key.startswith(("inbox/", "uploads-by-sha256/"))]

    def put(self, body: bytes, name: str = "a.pdf", **headers: str) -> httpx.Response:
        return self.http.put(f"/uploads/{quote(name, safe='')}", content=body, headers={**AUTH, **headers})


@pytest.fixture
def worker(wrangler: RunningStore) -> Iterator[Worker]:
    """The Worker, with an empty bucket."""
    assert wrangler.worker_url
    storage = open_storage("s3://docs", wrangler.options)
    storage.delete([info.key for prefix in ("inbox/", "uploads-by-sha256/") for info in storage.list(prefix)])
    with httpx.Client(base_url=wrangler.worker_url, timeout=60) as client:
        yield Worker(client, storage)


def pdf(size: int = 100) -> bytes:
    """Bytes that begin as a PDF and are like no other."""
    return b"%PDF-1.7\n" + os.urandom(size)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def raw_request(worker: Worker, head: str, body: bytes, *, then_cut: bool) -> bytes:
    """A request as bytes on a socket; cut in the middle, or held open for the answer."""
    address = urlsplit(str(worker.http.base_url))
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=30) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        if then_cut:
            return b""
        return connection.recv(65536)


# -------------------------------------------------------------------------------------------------------------- taken


def test_a_pdf_is_stored_under_a_key_that_sorts_by_time_and_the_answer_says_which(worker: Worker) -> None:
    body = pdf()
    answer = worker.put(body, "Annual report 2026.PDF")
    assert answer.status_code == 201
    said = answer.json()
    assert KEY.fullmatch(said["key"])
    assert said["key"].endswith("-Annual-report-2026.pdf")
    assert said["key"].startswith(f"inbox/{time.strftime('%Y/%m/%d', time.gmtime())}/")
    assert said == {"key": said["key"], "size": len(body), "sha256": sha256(body), "duplicate": False}
    assert worker.storage.read(said["key"]) == body
    assert worker.inbox() == [said["key"]]


def test_urgent_uploads_and_posts_are_taken(worker: Worker) -> None:
    answer = worker.http.post("/uploads", params={"name": "x.pdf", "urgent": "1"}, content=pdf(), headers=AUTH)
    assert answer.status_code == 201
    assert answer.json()["key"].startswith("inbox/urgent/")
    assert KEY.fullmatch(answer.json()["key"])


@pytest.mark.parametrize("extra", [1, 3 * 2**20 + 7])
def test_a_large_file_is_streamed_when_its_hash_is_said_first(worker: Worker, extra: int) -> None:
    body = pdf(BUFFERED + extra)
    answer = worker.put(body, **{"X-Content-SHA256": sha256(body).upper()})
    assert answer.status_code == 201, answer.text
    assert worker.storage.read(answer.json()["key"]) == body


def test_magic_bytes_may_stand_anywhere_in_the_first_kilobyte(worker: Worker) -> None:
    assert worker.put(b"\n" * 1019 + b"%PDF-" + os.urandom(10)).status_code == 201
    assert worker.put(b"\n" * 1020 + b"%PDF-" + os.urandom(10)).status_code == 415


# ------------------------------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer"},
        {"Authorization": UPLOAD_SECRET},
        {"Authorization": f"Basic {UPLOAD_SECRET}"},
        {"Authorization": f"Bearer {UPLOAD_SECRET}x"},
        {"Authorization": f"Bearer {UPLOAD_SECRET[:-1]}"},
        {"Cf-Access-Jwt-Assertion": "not.a.token"},
    ],
)
def test_without_the_secret_nothing_is_taken(worker: Worker, headers: dict[str, str]) -> None:
    for answer in (
        worker.http.put("/uploads/a.pdf", content=pdf(), headers=headers),
        worker.http.post("/uploads/presign", json={"name": "a", "size": 1, "sha256": "0" * 64}, headers=headers),
    ):
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert UPLOAD_SECRET not in answer.text
    assert worker.inbox() == []
    assert list(worker.storage.list("uploads-by-sha256/")) == []


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"", {}, 400, "empty"),
        (b"PK\x03\x04 a zip", {}, 415, "not_a_pdf"),
        (b"<html>%PDF", {}, 415, "not_a_pdf"),
        (b"x" * 2000 + b"%PDF-", {}, 415, "not_a_pdf"),
        (b"%PDF-1.7", {"X-Content-SHA256": "0" * 64}, 422, "sha256_mismatch"),
        (b"%PDF-1.7", {"X-Content-SHA256": "nonsense"}, 400, "bad_sha256"),
        (b"%PDF-" + b"x" * BUFFERED, {}, 428, "sha256_required"),
        (b"%PDF-" + b"x" * BUFFERED, {"X-Content-SHA256": "0" * 64}, 422, "sha256_mismatch"),
        (b"NOPE-" + b"x" * BUFFERED, {"X-Content-SHA256": "0" * 64}, 415, "not_a_pdf"),
        (b"%PDF-" + b"x" * (33 * 2**20), {"X-Content-SHA256": "0" * 64}, 413, "too_large"),
    ],
    ids=lambda value: value[:9].decode(errors="replace") if isinstance(value, bytes) else str(value)[:20],
)
def test_what_is_no_sound_pdf_is_refused_and_nothing_is_kept(
    worker: Worker, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    answer = worker.put(body, **headers)
    assert (answer.status_code, answer.json()["error"]) == (status, code)
    assert answer.json()["message"]
    assert worker.bucket() == []


def test_a_body_without_a_length_is_refused(worker: Worker) -> None:
    answer = worker.http.put("/uploads/a.pdf", content=iter([pdf()]), headers=AUTH)
    assert (answer.status_code, answer.json()["error"]) == (411, "length_required")
    assert worker.inbox() == []


@pytest.mark.parametrize("size", [1000, BUFFERED + 1000])
def test_a_cut_connection_keeps_nothing_and_the_same_file_can_be_sent_again(worker: Worker, size: int) -> None:
    body = pdf(size)
    head = (
        f"PUT /uploads/cut.pdf HTTP/1.1\nHost: loopback\nAuthorization: Bearer {UPLOAD_SECRET}\n"
        f"X-Content-SHA256: {sha256(body)}\nContent-Length: {len(body)}"
    )
    raw_request(worker, head, body[: len(body) // 2], then_cut=True)
    deadline = time.monotonic() + 20
    while worker.bucket() and time.monotonic() < deadline:  # the Worker tidies up when it has seen the cut
        assert worker.http.get("/health").json() == {"ok": True}
    assert worker.bucket() == []
    answer = worker.put(body, **{"X-Content-SHA256": sha256(body)})
    assert answer.status_code == 201, answer.text
    assert worker.inbox() == [answer.json()["key"]]
    assert worker.storage.read(answer.json()["key"]) == body


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("PUT", "/inbox/a.pdf", 404),
        ("PUT", "/uploads/..%2f..%2f%ff.pdf", 400),
        ("PUT", "/uploads/", 400),
        ("PUT", "/uploads/..", 404),
        ("PUT", "/uploads/../../etc/passwd", 404),
        ("POST", "/uploads", 400),
        ("DELETE", "/uploads/a.pdf", 405),
        ("GET", "/uploads/a.pdf", 405),
    ],
)
def test_other_requests_get_the_right_status(worker: Worker, method: str, path: str, status: int) -> None:
    # Not through httpx, which would tidy the path.
    address = urlsplit(str(worker.http.base_url))
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    connection.request(method, path, body=pdf() if method in ("PUT", "POST") else None, headers=AUTH)
    answer = connection.getresponse()
    assert answer.status == status
    assert json.loads(answer.read())["message"]
    connection.close()
    assert worker.inbox() == []


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("../../etc/passwd", "-passwd.pdf"),
        ("..\\..\\boot.ini", "-boot.ini.pdf"),
        ("..", "-document.pdf"),
        (".hidden.pdf", "-hidden.pdf"),
        ("a\r\nSet-Cookie: x.pdf", "-a-Set-Cookie-x.pdf"),
        ("nul\0byte.pdf", "-nul-byte.pdf"),
        ("<script>alert(1)</script>.pdf", "-script.pdf"),
        ("'; DROP TABLE pages; --.pdf", "-DROP-TABLE-pages.pdf"),
        ("Ünïcödé 文書 📄.pdf", "-Ünïcödé-文書.pdf"),
        ("e\u0301.pdf", "-é.pdf"),
        ("\u202efdp.exe", "-fdp.exe.pdf"),
        ("x" * 2000 + ".pdf", "-" + "x" * 120 + ".pdf"),
        ("文" * 300, "-" + "文" * 40 + ".pdf"),
        ("?&#%25.pdf", "-25.pdf"),
        ("-rf.pdf", "-rf.pdf"),
        ("x" * 479 + "\U0001f4c4.pdf", "-" + "x" * 120 + ".pdf"),
    ],
    ids=range(16),
)
def test_hostile_file_names_become_harmless_keys(worker: Worker, name: str, ending: str) -> None:
    answer = worker.http.post("/uploads", params={"name": name}, content=pdf(), headers=AUTH)
    assert answer.status_code == 201, answer.text
    (key,) = worker.inbox()
    assert key == answer.json()["key"]
    assert KEY.fullmatch(key)
    assert key[key.rindex("/") + 1 + 26 :] == ending


# --------------------------------------------------------------------------------------------------------- duplicates


def test_the_same_content_again_is_answered_with_the_first_key(worker: Worker) -> None:
    body = pdf()
    first = worker.put(body, "first.pdf")
    second = worker.put(body, "second.pdf")
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json() == {**first.json(), "duplicate": True}
    assert worker.inbox() == [first.json()["key"]]


@pytest.mark.parametrize("size", [1000, BUFFERED + 1000])
def test_the_same_content_at_once_is_stored_once(worker: Worker, size: int) -> None:
    body = pdf(size)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: worker.put(body, f"{n}.pdf", **{"X-Content-SHA256": sha256(body)}), range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
    (key,) = worker.inbox()
    assert {answer.json()["key"] for answer in answers} == {key}
    assert worker.storage.read(key) == body


def test_a_large_file_again_is_read_to_its_end_and_answered_with_the_first_key(worker: Worker) -> None:
    body = pdf(BUFFERED + 2**20)
    first = worker.put(body, "first.pdf", **{"X-Content-SHA256": sha256(body)})
    for _ in range(3):
        again = worker.put(body, "again.pdf", **{"X-Content-SHA256": sha256(body)})
        assert (again.status_code, again.json()) == (200, {**first.json(), "duplicate": True})
    assert worker.inbox() == [first.json()["key"]]


def test_other_bytes_under_the_hash_of_a_large_file_are_refused(worker: Worker) -> None:
    """Else the client would hold its own file for stored."""
    body, other = pdf(BUFFERED + 1000), pdf(BUFFERED + 1000)
    first = worker.put(body, **{"X-Content-SHA256": sha256(body)})
    answer = worker.put(other, **{"X-Content-SHA256": sha256(body)})
    assert (answer.status_code, answer.json()["error"]) == (422, "sha256_mismatch")
    assert worker.inbox() == [first.json()["key"]]
    assert worker.put(body, **{"X-Content-SHA256": sha256(body)}).status_code == 200


def test_content_whose_object_was_deleted_is_taken_again(worker: Worker) -> None:
    body = pdf()
    first = worker.put(body).json()["key"]
    worker.storage.delete([first])
    assert worker.put(body).status_code == 201
    assert len(worker.inbox()) == 1


def test_a_stale_record_without_its_object_gives_way_to_a_key_of_today(worker: Worker) -> None:
    body = pdf()
    old = "inbox/2020/01/01/01DXF6DT000000000000000000-old.pdf"
    record = f"uploads-by-sha256/{sha256(body)}"
    worker.storage.write(record, json.dumps({"key": old, "at": (time.time() - 3600) * 1000}).encode())
    answer = worker.put(body)
    assert answer.status_code == 201
    assert worker.inbox() == [answer.json()["key"]] != [old]
    assert json.loads(worker.storage.read(record))["key"] == answer.json()["key"]


# ---------------------------------------------------------------------------------------------------- direct uploads


def presign(worker: Worker, body: bytes, **other: object) -> httpx.Response:
    wanted = {"name": "large.pdf", "size": len(body), "sha256": sha256(body), **other}
    return worker.http.post("/uploads/presign", json=wanted, headers=AUTH)


def test_a_presigned_address_takes_exactly_this_file_once(worker: Worker) -> None:
    body = pdf(1000)
    said = presign(worker, body).json()
    assert KEY.fullmatch(said["key"])
    longer = httpx.put(
        said["url"], content=body + b"x", headers={**said["headers"], "content-length": str(len(body) + 1)}
    )
    assert longer.status_code == 403
    without = {name: value for name, value in said["headers"].items() if name != "if-none-match"}
    assert httpx.put(said["url"], content=body, headers=without).status_code == 403
    assert worker.inbox() == []
    assert httpx.put(said["url"], content=body, headers=said["headers"]).status_code == 200
    assert worker.storage.read(said["key"]) == body
    assert httpx.put(said["url"], content=body, headers=said["headers"]).status_code == 412
    again = presign(worker, body).json()
    assert (again["key"], again["duplicate"]) == (said["key"], True)
    assert worker.put(body).json()["key"] == said["key"]


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ({"sha256": "x"}, 400),
        ({"size": "5"}, 400),
        ({"size": 0}, 400),
        ({"size": -1}, 400),
        ({"size": 2**40}, 413),
        ({"name": ""}, 400),
        ({"name": None}, 400),
    ],
)
def test_a_presign_request_is_checked(worker: Worker, wanted: dict[str, object], status: int) -> None:
    assert presign(worker, b"%PDF-", **wanted).status_code == status
    assert list(worker.storage.list("uploads-by-sha256/")) == []


def test_a_name_of_any_length_is_cut_before_it_is_looked_at(worker: Worker) -> None:
    said = presign(worker, pdf(), name="-" * 200_000 + "x" + "-" * 200_000).json()
    assert KEY.fullmatch(said["key"])


def test_a_presign_request_that_is_no_json_is_refused(worker: Worker) -> None:
    for body in (b"", b"{", b"[]", b"null", b'"x"'):
        answer = worker.http.post("/uploads/presign", content=body, headers=AUTH)
        assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")


# ------------------------------------------------------------------------------------------------- Cloudflare Access


def test_people_whom_access_let_in_may_upload(worker: Worker, access_team: Team) -> None:
    answer = worker.http.put(
        "/uploads/a.pdf",
        content=pdf(),
        headers={"Cf-Access-Jwt-Assertion": access_team.token(aud="upload-application")},
    )
    assert answer.status_code == 201
    answer = worker.http.put("/uploads/a.pdf", content=pdf(), headers={"Cf-Access-Jwt-Assertion": access_team.token()})
    assert answer.status_code == 201


def test_a_forged_stale_or_foreign_access_token_opens_nothing(worker: Worker, access_team: Team) -> None:
    good = access_team.token()
    head, claims, signature = good.split(".")
    now = int(time.time())
    forged = [
        access_team.token(key=rsa.generate_private_key(65537, 2048)),
        access_team.token(head={"alg": "none"}),
        access_team.token(head={"alg": "HS256"}),
        access_team.token(head={"kid": "other"}),
        access_team.token(exp=now - 3600),
        access_team.token(exp=None),
        access_team.token(nbf=now + 3600),
        access_team.token(aud=["other"]),
        access_team.token(iss="https://other.example"),
        f"{head}.{claims}.",
        f"{head}.{claims}",
        f"{head}.{claims}.{signature}.more",
        f"{head}.{claims[:-4]}AAAA.{signature}",
        "a.b.c",
        "",
    ]
    for token in forged:
        answer = worker.http.put("/uploads/a.pdf", content=pdf(), headers={"Cf-Access-Jwt-Assertion": token})
        assert answer.status_code == 401, token
    assert worker.inbox() == []


# -------------------------------------------------------------------------------------------------------------- events


def test_an_upload_through_the_worker_comes_out_of_the_queue_as_an_upload(
    worker: Worker, events_queue: StandIn
) -> None:
    events_queue.waiting.clear()
    body = pdf()
    key = worker.put(body).json()["key"]
    worker.put(body)
    deadline = time.monotonic() + 20
    while not events_queue.waiting and time.monotonic() < deadline:
        worker.http.get("/health")  # the event goes out after the answer
    options = QueueOptions(events_queue.url, events_queue.account_id, events_queue.queue_id, events_queue.token, "docs")
    with QueuePull(options) as puller:
        pulled = puller.pull(worker.storage, "inbox/")
        assert [(upload.key, upload.size) for upload in pulled.uploads] == [(key, len(body))]
        info = worker.storage.stat(key)
        assert info is not None
        assert pulled.uploads[0].etag == info.etag
        puller.acknowledge(pulled)
    assert events_queue.waiting == []


# ----------------------------------------------------------------------------------------------- R2 fails, other places


@pytest.fixture(scope="module")
def other_wrangler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStore]:
    """The Worker on an R2 that fails on order, with a lake and an inbox at other places."""
    require_wrangler()
    places = {"LAKE_PREFIX": "the/lake", "INBOX": "incoming"}
    faulty = Path(__file__).with_name("faulty_r2.js")
    with wrangler_store(tmp_path_factory.mktemp("faulty"), places, faulty) as store:
        yield store


@pytest.mark.parametrize("size", [1000, BUFFERED + 2**20])
@pytest.mark.parametrize("fail", ["get", "put", "put in the middle"])
def test_an_upload_that_r2_fails_is_answered_and_nothing_is_kept(
    other_wrangler: RunningStore, size: int, fail: str
) -> None:
    assert other_wrangler.worker_url
    storage = open_storage("s3://docs", other_wrangler.options)
    body = pdf(size)
    headers = {**AUTH, "X-Content-SHA256": sha256(body), "X-Fail": fail.split()[0]}
    if "middle" in fail:
        headers["X-Fail-After"] = str(5 * 2**20)
    with httpx.Client(base_url=other_wrangler.worker_url, timeout=60) as client:
        answer = client.put("/uploads/a.pdf", content=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (503, "store_unavailable")
        assert list(storage.list("the/")) == []
        answer = client.put("/uploads/a.pdf", content=body, headers={**AUTH, "X-Content-SHA256": sha256(body)})
    assert answer.status_code == 201
    assert answer.json()["key"].startswith("the/lake/incoming/20")
    assert storage.read(answer.json()["key"]) == body
    storage.delete([info.key for info in storage.list("the/")])
