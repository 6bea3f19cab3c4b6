"""Requests that are refused: the status, the type, the parameter, and words that tell one from another."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from ocr_pipeline_tests.vllm_contract.asking import (
    MODEL,
    PATH,
    body,
    data_url,
    messages,
    picture,
    read_all,
    read_status,
    sent,
    without,
)
from ocr_pipeline_tests.vllm_contract.servers import ServerUnderTest

NOT_AN_IMAGE = "Failed to load image: cannot identify image file"
PNG, JPEG = picture(800, 800), picture(800, 800, "JPEG")

# what is asked · status · type · param · a part of the message
TABLE: dict[str, tuple[dict[str, Any], int, str, str | None, str]] = {
    "unknown model": (
        body(model="nope"), 404, "NotFoundError", "model",
        f"The model `nope` does not exist. Valid aliases: {MODEL}.",
    ),
    "max_tokens over the context": (
        body(max_tokens=100_000), 400, "BadRequestError", "max_tokens",
        "max_tokens=100000 cannot be greater than max_model_len=8192.",
    ),
    "max_tokens 0": (body(max_tokens=0), 400, "BadRequestError", "max_tokens", "max_tokens must be at least 1, got 0."),
    "max_tokens -1": (body(max_tokens=-1), 400, "BadRequestError", "max_tokens", "max_tokens must be at least 1"),
    "max_tokens is no number": (body(max_tokens="x"), 400, "Bad Request", "body.max_tokens", "int_parsing"),
    "temperature below 0": (body(temperature=-1), 400, "BadRequestError", "temperature", "must be non-negative"),
    "temperature above 2": (body(temperature=3), 400, "BadRequestError", "temperature", "must be in [0, 2]"),
    "temperature is no number": (body(temperature="warm"), 400, "Bad Request", "body.temperature", "float_parsing"),
    "top_p above 1": (body(top_p=2), 400, "BadRequestError", "top_p", "must be in (0, 1]"),
    "two greedy choices": (body(n=2), 400, "BadRequestError", None, "n must be 1 when using greedy sampling, got 2."),
    "no choice": (body(n=0), 400, "BadRequestError", None, "n must be at least 1, got 0."),
    "priority is no number": (body(priority="high"), 400, "Bad Request", "body.priority", "int_parsing"),
    "priority is no whole number": (body(priority=1.5), 400, "Bad Request", "body.priority", "int_from_float"),
    "ngram_size 0": (
        body(vllm_xargs={"ngram_size": 0}), 400, "BadRequestError", None,
        "`ngram_size` has to be a strictly positive integer, got 0.",
    ),
    "ngram_size as text": (
        body(vllm_xargs={"ngram_size": "30"}), 400, "BadRequestError", None, "`ngram_size` has to be a strictly",
    ),
    "ngram_size as a float": (
        body(vllm_xargs={"ngram_size": 30.0}), 400, "BadRequestError", None, "`ngram_size` has to be a strictly",
    ),
    "ngram_size null": (
        body(vllm_xargs={"ngram_size": None}), 400, "Bad Request", "body.vllm_xargs.ngram_size", "4 validation errors",
    ),
    "window_size 0": (
        body(vllm_xargs={"ngram_size": 30, "window_size": 0}), 400, "BadRequestError", None,
        "`window_size` has to be a strictly positive integer, got 0.",
    ),
    "whitelist is a number": (
        body(vllm_xargs={"ngram_size": 30, "whitelist_token_ids": 5}), 400, "BadRequestError", None,
        "`whitelist_token_ids` has to be a sequence of integers, got 5.",
    ),
    "vllm_xargs with an object in it": (
        body(vllm_xargs={"a": {"b": 1}}), 400, "Bad Request", "body.vllm_xargs.a", "4 validation errors",
    ),
    "vllm_xargs is a list": (body(vllm_xargs=[1]), 400, "Bad Request", "body.vllm_xargs", "dict_type"),
    "processor arguments": (
        body(mm_processor_kwargs={"crop_mode": False}), 400, "BadRequestError", "mm_processor_kwargs",
        "--trust-request-mm-kwargs",
    ),
    "no messages": (body(messages=without), 400, "Bad Request", "body.messages", "Field required"),
    "messages are text": (body(messages="x"), 400, "Bad Request", "body.messages", "list_type"),
    "empty messages": (body(messages=[]), 400, "BadRequestError", None, "empty conversation"),
    "the assistant begins": (
        body(messages=messages("Hello", role="assistant")), 400, "BadRequestError", None, "roles must alternate",
    ),
    "too many placeholders": (
        body("<image><image>Text."), 400, "BadRequestError", "messages", "Found more '<image>' placeholders",
    ),
    "a text over the context": (
        body("a" * 9000 + "."), 400, "BadRequestError", "input_tokens",
        "This model's maximum context length is 8192 tokens. However, your prompt contains",
    ),
    "images over the context": (
        body("Text.", *[data_url(picture(1240, 1754))] * 10), 400, "BadRequestError", None,
        "exceeds model's maximum context length (8192).",
    ),
    "a part of no known kind": (
        body(messages=messages([{"type": "nonsense", "x": 1}])), 400, "BadRequestError", None, "validation error",
    ),
    "not an image": (body("Text.", data_url(b"hello")), 400, "BadRequestError", None, NOT_AN_IMAGE),
    "a PDF": (body("Text.", data_url(b"%PDF-1.7", "application/pdf")), 400, "BadRequestError", None, NOT_AN_IMAGE),
    "no bytes": (body("Text.", "data:image/png;base64,"), 400, "BadRequestError", None, NOT_AN_IMAGE),
    "a PNG cut off": (body("Text.", data_url(PNG[:-300])), 400, "BadRequestError", None, "image file is truncated"),
    "a JPEG cut off": (body("Text.", data_url(JPEG[:-300])), 400, "BadRequestError", None, "image file is truncated"),
    "a JPEG's head": (body("Text.", data_url(JPEG[:200])), 400, "BadRequestError", None, "Failed to load image: "),
    "not base64": (body("Text.", "data:image/png;base64,@@@@"), 400, "BadRequestError", None, "Non-base64 digit found"),
    "base64 with a line end": (
        body("Text.", data_url(PNG)[:60] + "\n" + data_url(PNG)[60:]), 400, "BadRequestError", None, "Non-base64 digit",
    ),
    "a data URL without a comma": (
        body("Text.", "data:image/png;base64"), 400, "BadRequestError", None, "missing ',' separator",
    ),
    "a data URL that is not base64": (
        body("Text.", "data:image/png,abc"), 501, "NotImplementedError", None, "Only base64 data URLs are supported",
    ),
    "another scheme": (
        body("Text.", "ftp://images.example/a.png"), 400, "BadRequestError", None,
        "The URL must be either a HTTP, data or file URL.",
    ),
    "a path": (body("Text.", "/a.png"), 400, "BadRequestError", None, "The URL must be either a HTTP, data or file"),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_a_refusal_says_what_was_wrong(http: httpx.Client, case: str) -> None:
    request, status, kind, param, words = TABLE[case]
    answer = http.post(PATH, json=request)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["type"], error["param"], error["code"]) == (kind, param, status)
    assert words in error["message"]


@pytest.mark.parametrize(
    ("content", "content_type", "words"),
    [
        (b"{nope", "application/json", "json_invalid"),
        (b"", "application/json", "Field required"),
        (b"[]", "application/json", "Input should be a valid dictionary"),
        (b"{}", "text/plain", "Unsupported Media Type: Only 'application/json' is allowed"),
    ],
)
def test_a_body_that_is_no_request_is_a_400_with_a_space_in_its_type(
    http: httpx.Client, content: bytes, content_type: str, words: str
) -> None:
    answer = http.post(PATH, content=content, headers={"Content-Type": content_type})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "Bad Request")
    assert words in answer.json()["error"]["message"]


def test_the_server_is_as_good_as_before_after_all_these_refusals(http: httpx.Client) -> None:
    assert http.post(PATH, json=body(max_tokens=1)).status_code == 200
    assert http.get("/health").status_code == 200


class TestPermanentFaultsThatLookLikeTheServers:
    """HTTP 500 for a request that will never succeed. vLLM lets these exceptions through to uvicorn, which drops the
    connection after the answer, without a word of it in the headers."""

    def _ask(self, http: httpx.Client, url: str) -> httpx.Response:
        answer = http.post(PATH, json=body("Text.", url))
        assert (answer.status_code, answer.json()["error"]["type"]) == (500, "InternalServerError")
        assert "connection" not in answer.headers
        return answer

    def test_an_image_of_too_many_pixels(self, http: httpx.Client) -> None:
        huge = data_url(picture(20_000, 20_000, "PNG", "1"))
        message = self._ask(http, huge).json()["error"]["message"]
        assert message == (
            "Image size (400000000 pixels) exceeds limit of 178956970 pixels, could be decompression bomb DOS attack."
        )

    def test_a_local_file(self, http: httpx.Client) -> None:
        message = self._ask(http, "file:///a.png").json()["error"]["message"]
        assert message == "Cannot load local files without `--allowed-local-media-path`."

    def test_an_address_that_cannot_be_reached(self, http: httpx.Client) -> None:
        message = self._ask(http, "http://127.0.0.1:9/a.png").json()["error"]["message"]
        assert message.startswith("Cannot connect to host")

    def test_the_connection_is_gone_after_such_an_answer(self, server: ServerUnderTest) -> None:
        with sent(server.url, body("Text.", "file:///a.png")) as connection:
            connection.settimeout(2)  # less than an idle connection is kept
            received = read_all(connection)
        assert received.startswith(b"HTTP/1.1 500 ")

    def test_the_connection_is_kept_after_an_ordinary_refusal(self, server: ServerUnderTest) -> None:
        with sent(server.url, body(max_tokens=0)) as connection:
            assert read_status(connection) == 400
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert read_status(connection) == 200
