"""What another site cannot do with the app, though the user's browser reaches it."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_pipeline.review.guards import HEADERS, host_name
from ocr_pipeline_tests.review.conftest import asking
from ocr_pipeline_tests.review.library import Library
from ocr_pipeline_tests.review.shelves import Shelves


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8400", "localhost:1", "LOCALHOST", "localhost.", "[::1]:8400"]
)
def test_the_names_of_this_machine_are_answered(client: httpx.Client, host: str) -> None:
    assert client.get("/documents", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "evil.example:8400",
        "",
        "127.0.0.1@evil.example",
        "a/127.0.0.1",
        "[::1",
    ],
)
def test_a_name_that_only_resolves_to_this_machine_gets_no_page(client: httpx.Client, host: str) -> None:
    answer = client.get("/documents", headers={"Host": host})
    assert answer.status_code in (400, 421)  # 400: the server itself takes it for no host
    assert "inbox" not in answer.text


def test_a_name_that_was_allowed_is_answered(shelves: Shelves) -> None:
    with asking(shelves.library, allowed_hosts=["review.example"]) as client:
        assert client.get("/documents", headers={"Host": "review.example"}).status_code == 200
        assert client.get("/documents", headers={"Host": "127.0.0.1"}).status_code == 421


@settings(deadline=None)
@given(st.text(max_size=30))
def test_any_host_header_is_read_without_an_error(host: str) -> None:
    assert isinstance(host_name(host), str)


@pytest.mark.parametrize("path", ["/documents", "/nothing", "/static/review.css", "/documents/x/pages/1/image"])
def test_every_answer_has_the_policy_and_none_is_open_to_other_origins(client: httpx.Client, path: str) -> None:
    answer = client.get(path, headers={"Origin": "https://evil.example"})
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_an_answer_to_a_fault_of_ours_has_the_policy_too(empty: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocr_pipeline.review.queries.choices", lambda _: 1 / 0)
    with asking(empty) as client:
        answer = client.get("/documents")
    assert answer.status_code == 500
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    assert answer.headers["cache-control"] == "no-store"


def test_a_preflight_of_another_origin_is_not_granted(client: httpx.Client) -> None:
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = client.options("/documents", headers=asked)
    assert answer.status_code == 405
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_the_app_only_reads(client: httpx.Client, method: str) -> None:
    for path in ("/documents", "/pages", "/overview", "/retry"):
        assert client.request(method, path).status_code in (404, 405)
