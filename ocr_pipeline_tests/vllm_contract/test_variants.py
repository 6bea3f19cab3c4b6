"""The same server, started otherwise: with a key, short limits and load tracking; and without the logits processor."""

from __future__ import annotations

import httpx
import pytest

from ocr_pipeline_tests.vllm_contract.asking import (
    CLEAN,
    PATH,
    PROMPT,
    body,
    data_url,
    held_in_flight,
    messages,
    metrics,
    picture,
)
from ocr_pipeline_tests.vllm_contract.conftest import Connect
from ocr_pipeline_tests.vllm_contract.servers import LAB_KEY, ServerUnderTest


class TestStrict:
    """API key, at most 2 requests in all, a context of 1024 tokens, one image a prompt, load tracking, priorities."""

    @pytest.fixture
    def http(self, strict_server: ServerUnderTest, connect: Connect) -> httpx.Client:
        return connect(strict_server)

    @pytest.mark.parametrize("path", ["/v1/models", PATH])
    @pytest.mark.parametrize("headers", [{"Authorization": "Bearer wrong"}, {"Authorization": ""}])
    def test_without_the_key_the_error_is_a_string_and_no_object(
        self, http: httpx.Client, path: str, headers: dict[str, str]
    ) -> None:
        answer = http.request("POST" if path == PATH else "GET", path, headers=headers)
        assert (answer.status_code, answer.json()) == (401, {"error": "Unauthorized"})

    @pytest.mark.parametrize("path", ["/health", "/metrics", "/version", "/load"])
    def test_what_is_not_below_v1_is_open_to_all(self, http: httpx.Client, path: str) -> None:
        assert http.get(path, headers={"Authorization": ""}).status_code == 200

    def test_with_the_key_a_page_is_read(self, http: httpx.Client) -> None:
        answer = http.post(PATH, json=body())
        assert (answer.status_code, answer.json()["choices"][0]["message"]["content"]) == (200, CLEAN)

    def test_a_third_request_is_turned_away_at_once_and_counted(
        self, strict_server: ServerUnderTest, http: httpx.Client
    ) -> None:
        with held_in_flight(strict_server, http, 2, LAB_KEY):
            before = metrics(http).get("admission_rejections_total", reason="max_num_queued_reqs")
            answer = http.post(PATH, json=body(max_tokens=1))
            assert http.get("/health").status_code == 200
        assert answer.status_code == 503
        error = answer.json()["error"]
        assert (error["type"], error["param"], error["code"]) == ("Service Unavailable", None, 503)
        assert error["message"].startswith("The engine is currently busy and cannot accept new requests.")
        assert "retry-after" not in answer.headers
        assert metrics(http).get("admission_rejections_total", reason="max_num_queued_reqs") == before + 1

    def test_the_load_counts_requests_in_flight(self, strict_server: ServerUnderTest, http: httpx.Client) -> None:
        with held_in_flight(strict_server, http, 2, LAB_KEY):
            held = http.get("/load").json()["server_load"]
        # Not always 0 when idle: vLLM counts a client that goes away as its answer is ready down twice.
        assert held == http.get("/load").json()["server_load"] + 2

    def test_a_second_image_is_refused(self, http: httpx.Client) -> None:
        answer = http.post(PATH, json=body(PROMPT, *[data_url(picture())] * 2))
        error = answer.json()["error"]
        assert (answer.status_code, error["type"], error["param"]) == (400, "BadRequestError", "image")
        assert error["message"].startswith("At most 1 image(s) may be provided in one prompt.")

    def test_max_tokens_is_cut_to_what_the_prompt_leaves(self, http: httpx.Client) -> None:
        answer = http.post(PATH, json=body("loop!", data_url(picture(1240, 1754)), max_tokens=500))
        usage = answer.json()["usage"]
        assert (answer.status_code, answer.json()["choices"][0]["finish_reason"]) == (200, "length")
        assert usage["total_tokens"] == 1024

    def test_an_image_and_a_text_over_the_context_are_refused(self, http: httpx.Client) -> None:
        answer = http.post(PATH, json=body("a" * 300 + ".", data_url(picture(1240, 1754))))
        assert answer.status_code == 400
        message = answer.json()["error"]["message"]
        assert message == "Input length (1206) exceeds model's maximum context length (1024)."

    def test_priorities_are_accepted(self, http: httpx.Client) -> None:
        assert http.post(PATH, json=body(priority=-1, messages=messages("Text."))).status_code == 200


class TestPlain:
    """Without the logits processor nothing says that there is no guard."""

    @pytest.fixture
    def http(self, plain_server: ServerUnderTest, connect: Connect) -> httpx.Client:
        return connect(plain_server)

    def test_what_the_processor_would_refuse_is_accepted(self, http: httpx.Client) -> None:
        answer = http.post(PATH, json=body(vllm_xargs={"ngram_size": 0}))
        assert (answer.status_code, answer.json()["choices"][0]["message"]["content"]) == (200, CLEAN)

    def test_the_guard_that_a_request_asks_for_does_nothing(self, http: httpx.Client) -> None:
        answer = http.post(PATH, json=body("loop!", vllm_xargs={"ngram_size": 3, "window_size": 90}))
        assert answer.json()["choices"][0]["finish_reason"] == "length"
