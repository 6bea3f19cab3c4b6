""" "Ask again": only when allowed, only from our own pages, and exactly the pages that were shown."""

from __future__ import annotations

import re

import httpx
import pytest

from ocr_pipeline.records import PageStatus, Reason
from ocr_pipeline.review.asking_again import Asked, RetryRequest
from ocr_pipeline.warehouse.failed import failed_by_document
from ocr_pipeline_tests.review.conftest import asking
from ocr_pipeline_tests.review.library import Library, PageMade
from ocr_pipeline_tests.review.shelves import Shelves


class Retries:
    """Takes the place of `ocr-pipeline retry`: notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[RetryRequest] = []

    def __call__(self, request: RetryRequest) -> Asked:
        self.asked.append(request)
        return Asked(("retry-01",), len(request.document_ids))


def token(client: httpx.Client) -> str:
    found = re.search(r'name="token" value="([^"]+)"', client.get("/retry?status=failed").text)
    assert found
    return found[1]


def test_without_the_option_there_is_neither_button_nor_route(client: httpx.Client, shelves: Shelves) -> None:
    assert "/retry" not in client.get("/pages?status=failed").text
    assert "/retry" not in client.get(f"/documents/{shelves.partial}/pages/2").text
    assert client.get("/retry").status_code == 404
    assert client.post("/retry").status_code == 404


def test_one_page_is_asked_again(shelves: Shelves) -> None:
    retries = Retries()
    with asking(shelves.library, allow_retry=retries) as client:
        page = f"/documents/{shelves.partial}/pages/2"
        assert f"/retry?document={shelves.partial}&amp;page=2" in client.get(page).text
        fields = {"document": shelves.partial, "page": "2", "token": token(client)}
        answer = client.post("/retry", data=fields, headers={"Origin": str(client.base_url).rstrip("/")})
    assert "retry-01" in answer.text
    assert retries.asked == [RetryRequest((shelves.partial,), ("repetition",))]


def test_a_filter_is_asked_again_only_the_failed_pages_of_it(shelves: Shelves) -> None:
    retries = Retries()
    with asking(shelves.library, allow_retry=retries) as client:
        shown = client.get("/retry", params={"name": "partial"}).text
        assert "2 × repetition: the model repeated itself" in shown
        assert "2 in all." in shown
        client.post("/retry", data={"name": "partial", "token": token(client)})
    assert retries.asked == [RetryRequest((shelves.partial,), ("repetition",))]


def test_all_that_will_be_asked_is_counted_also_what_the_filter_does_not_hold(empty: Library) -> None:
    def failed(reason: Reason, backend: str) -> PageMade:
        return PageMade(status=PageStatus.FAILED, reason=reason, backend=backend, attempts=("x",))

    first = empty.add("a.pdf", [failed(Reason.REPETITION, "rtx4090"), failed(Reason.TRUNCATED, "dgx-spark")])
    second = empty.add("b.pdf", [failed(Reason.TRUNCATED, "rtx4090"), failed(Reason.EMPTY_TEXT, "dgx-spark")])
    empty.load()
    retries = Retries()
    with asking(empty, allow_retry=retries) as client:
        shown = client.get("/retry", params={"backend": "rtx4090", "status": "failed"}).text
        client.post("/retry", data={"backend": "rtx4090", "status": "failed", "token": token(client)})
        page = client.get("/retry", params={"document": second, "page": "1"}).text
    assert re.findall(r"<li>(\d × \w+)", shown) == ["1 × repetition", "2 × truncated"]
    assert "3 in all: more than the 2 that you chose" in shown
    assert "1 in all." in page
    assert retries.asked == [RetryRequest(tuple(sorted((first, second))), ("repetition", "truncated"))]
    with empty.warehouse.read() as connection:  # what the command takes for this request
        asked = failed_by_document(connection, retries.asked[0].reasons, documents=retries.asked[0].document_ids)
    assert sum(count for _, _, count in asked) == 3


def test_a_rejected_document_is_asked_again(shelves: Shelves) -> None:
    retries = Retries()
    with asking(shelves.library, allow_retry=retries) as client:
        assert f"/retry?document={shelves.rejected}" in client.get(f"/documents/{shelves.rejected}").text
        client.post("/retry", data={"document": shelves.rejected, "token": token(client)})
    assert retries.asked == [RetryRequest((shelves.rejected,), ("encrypted",))]


def test_where_nothing_was_left_to_ask_it_is_said(shelves: Shelves) -> None:
    with asking(shelves.library, allow_retry=lambda request: Asked((), 0, gone=1)) as client:
        answer = client.post("/retry", data={"status": "failed", "token": token(client)})
    assert "Nothing was written: the upload was replaced or deleted" in answer.text


def test_where_nothing_failed_nothing_is_asked(shelves: Shelves) -> None:
    retries = Retries()
    with asking(shelves.library, allow_retry=retries) as client:
        for fields in ({"name": "thin wires"}, {"document": shelves.report, "page": "1"}):
            assert "nothing to ask again" in client.get("/retry", params=fields).text
            assert "nothing to ask again" in client.post("/retry", data={**fields, "token": token(client)}).text
    assert retries.asked == []


@pytest.mark.parametrize(
    ("headers", "right_token"),
    [
        ({}, False),
        ({"Origin": "https://evil.example"}, True),
        ({"Origin": "null"}, True),
        ({"Origin": "http://127.0.0.1:9999"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "same-site"}, True),
    ],
)
def test_a_form_of_another_site_is_refused(shelves: Shelves, headers: dict[str, str], right_token: bool) -> None:
    retries = Retries()
    with asking(shelves.library, allow_retry=retries) as client:
        sent = token(client) if right_token else "guess"
        answer = client.post("/retry", data={"status": "failed", "token": sent}, headers=headers)
    assert answer.status_code == 403
    assert retries.asked == []


def test_a_form_without_end_is_refused(shelves: Shelves) -> None:
    retries = Retries()
    with asking(shelves.library, allow_retry=retries) as client:
        assert client.post("/retry", content=b"a" * 100_000).status_code == 413
        assert client.post("/retry", content=b"&".join(b"a=b" for _ in range(100))).status_code == 413
    assert retries.asked == []


def test_what_the_retry_says_is_wrong_is_shown(shelves: Shelves) -> None:
    def refuse(request: RetryRequest) -> Asked:
        raise RuntimeError("the lake is full\nand more")

    with asking(shelves.library, allow_retry=refuse) as client:
        answer = client.post("/retry", data={"status": "failed", "token": token(client)})
    assert answer.status_code == 500
    assert "could not be written: the lake is full" in answer.text
    assert "and more" not in answer.text


@pytest.mark.parametrize("page", ["", "x", "-1", "0", "99", "99999999999999"])
def test_a_page_that_is_not_there_cannot_be_asked_for(shelves: Shelves, page: str) -> None:
    with asking(shelves.library, allow_retry=Retries()) as client:
        assert client.get("/retry", params={"document": shelves.partial, "page": page}).status_code == 404
