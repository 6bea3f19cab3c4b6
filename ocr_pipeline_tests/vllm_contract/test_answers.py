"""Requests that are answered with a text."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from ocr_pipeline_tests.vllm_contract.asking import (
    CLEAN,
    MODEL,
    PATH,
    PROMPT,
    body,
    data_url,
    messages,
    picture,
    without,
)

GUARD = {"ngram_size": 3, "window_size": 90}
CELLS = [128821, 128822]  # <td> and </td>


def _ask(http: httpx.Client, *arguments: Any, **fields: Any) -> dict[str, Any]:
    answer = http.post(PATH, json=body(*arguments, **fields))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def _text(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"])


def _finish(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["finish_reason"])


def test_an_answer_has_these_fields(http: httpx.Client) -> None:
    answer = _ask(http)
    assert answer.keys() >= {"id", "object", "created", "model", "choices", "usage", "system_fingerprint"}
    assert (answer["object"], answer["model"]) == ("chat.completion", MODEL)
    [choice] = answer["choices"]
    assert choice.keys() >= {"index", "message", "logprobs", "finish_reason", "stop_reason"}
    assert (choice["message"]["role"], choice["message"]["content"]) == ("assistant", CLEAN)
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", None)
    usage = {"prompt_tokens": 309, "completion_tokens": 14, "total_tokens": 323}
    assert usage.items() <= answer["usage"].items()


def test_the_same_request_gets_the_same_text(http: httpx.Client) -> None:
    assert _text(_ask(http)) == _text(_ask(http))


def test_tags_are_silently_lost_unless_special_tokens_are_kept(http: httpx.Client) -> None:
    text = _text(_ask(http, skip_special_tokens=without))
    assert text.startswith("title[[56, 48, 941, 102]]\n# Tiny title")


def test_the_request_id_header_becomes_the_answers_id(http: httpx.Client) -> None:
    answer = http.post(PATH, json=body(), headers={"X-Request-Id": "page-0001"})
    assert answer.json()["id"] == "chatcmpl-page-0001"


def test_a_request_id_in_the_body_becomes_the_answers_id(http: httpx.Client) -> None:
    assert _ask(http, request_id="page-0002")["id"] == "chatcmpl-page-0002"


def test_without_a_request_id_each_answer_has_its_own(http: httpx.Client) -> None:
    first, second = _ask(http, max_tokens=1)["id"], _ask(http, max_tokens=1)["id"]
    assert first.startswith("chatcmpl-")
    assert first != second


def test_two_requests_at_once_with_one_id_are_both_answered(http: httpx.Client) -> None:
    def ask(_: int) -> httpx.Response:
        return http.post(PATH, json=body(), headers={"X-Request-Id": "twice"})

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(ask, range(2)))
    assert [(a.status_code, a.json()["id"]) for a in answers] == [(200, "chatcmpl-twice")] * 2


def test_eight_requests_at_once_are_all_answered_alike(http: httpx.Client) -> None:
    url = data_url(picture(1240, 1754))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: _ask(http, PROMPT, url), range(8)))
    assert {_text(answer) for answer in answers} == {CLEAN}
    assert {answer["usage"]["prompt_tokens"] for answer in answers} == {939}


def test_the_model_may_be_left_out(http: httpx.Client) -> None:
    assert _ask(http, model=without, max_tokens=1)["model"] == MODEL


def test_unknown_fields_are_ignored_even_those_that_belong_into_vllm_xargs(http: httpx.Client) -> None:
    assert _text(_ask(http, ngram_size=0, foo=1)) == CLEAN


@pytest.mark.parametrize("priority", [0, 5, -3])
def test_a_priority_is_accepted_also_where_the_policy_is_first_come(http: httpx.Client, priority: int) -> None:
    assert _text(_ask(http, priority=priority)) == CLEAN


def test_a_number_as_a_string_is_accepted(http: httpx.Client) -> None:
    assert _ask(http, max_tokens="5")["usage"]["completion_tokens"] == 5


def test_an_answer_that_is_cut_off_says_length(http: httpx.Client) -> None:
    answer = _ask(http, max_tokens=5)
    assert (_text(answer), _finish(answer)) == ("<|ref|>title<|/ref|><|det|>[[56, 48, 941, 102]]", "length")
    assert answer["usage"]["completion_tokens"] == 5


def test_an_answer_whose_end_token_has_no_room_says_length(http: httpx.Client) -> None:
    answer = _ask(http, max_tokens=13)
    assert (_text(answer), _finish(answer), answer["usage"]["completion_tokens"]) == (CLEAN, "length", 13)


def test_max_completion_tokens_is_the_same_as_max_tokens(http: httpx.Client) -> None:
    assert _ask(http, max_tokens=without, max_completion_tokens=5)["usage"]["completion_tokens"] == 5


def test_max_tokens_up_to_the_context_is_clamped(http: httpx.Client) -> None:
    assert _finish(_ask(http, max_tokens=8192)) == "stop"


def test_without_max_tokens_the_rest_of_the_context_is_free(http: httpx.Client) -> None:
    assert _finish(_ask(http, max_tokens=without)) == "stop"


def test_a_stop_string_ends_the_text_before_it(http: httpx.Client) -> None:
    answer = _ask(http, stop=["Tiny"])
    assert _text(answer) == "<|ref|>title<|/ref|><|det|>[[56, 48, 941, 102]]<|/det|>\n# "
    assert (_finish(answer), answer["choices"][0]["stop_reason"]) == ("stop", "Tiny")
    assert answer["usage"]["completion_tokens"] == 7


def test_several_choices_are_several_times_the_tokens(http: httpx.Client) -> None:
    answer = _ask(http, n=2, temperature=1.0, max_tokens=3)
    assert len(answer["choices"]) == 2
    assert answer["usage"]["completion_tokens"] == 6


class TestLoops:
    def test_a_loop_without_a_guard_runs_to_the_limit(self, http: httpx.Client) -> None:
        answer = _ask(http, "loop!")
        assert _finish(answer) == "length"
        assert _text(answer).count(" loop1") == 5

    def test_the_guard_breaks_a_loop(self, http: httpx.Client) -> None:
        answer = _ask(http, "loop!", max_tokens=60, vllm_xargs=GUARD)
        assert _text(answer) == " loop1 loop2 loop3 loop4 loop5 loop6 loop7 loop1 loop2 [loop broken]"
        assert (_finish(answer), answer["usage"]["completion_tokens"]) == ("stop", 11)

    def test_the_guard_of_the_recipe_breaks_it_after_36_words(self, http: httpx.Client) -> None:
        text = _text(_ask(http, "loop!", max_tokens=60, vllm_xargs={"ngram_size": 30, "window_size": 90}))
        loop, broken, rest = text.partition(" [loop broken]")
        assert (len(loop.split()), broken, rest) == (36, " [loop broken]", "")

    def test_the_guard_breaks_a_run_of_table_cells(self, http: httpx.Client) -> None:
        text = _text(_ask(http, "cells?", vllm_xargs=GUARD))
        assert text.startswith("<td></td><td></td>")
        assert not text.startswith("<td></td><td></td><td>")

    def test_tokens_on_the_whitelist_may_repeat(self, http: httpx.Client) -> None:
        answer = _ask(http, "cells?", vllm_xargs={**GUARD, "whitelist_token_ids": CELLS})
        assert (_text(answer), _finish(answer)) == ("<td></td>" * 15, "length")

    @pytest.mark.parametrize("useless", ["128821,128822", ["128821", "128822"], [999999, -5]])
    def test_a_whitelist_of_another_shape_is_accepted_and_has_no_effect(
        self, http: httpx.Client, useless: object
    ) -> None:
        text = _text(_ask(http, "cells?", vllm_xargs={**GUARD, "whitelist_token_ids": useless}))
        assert not text.startswith("<td></td><td></td><td>")

    def test_unknown_arguments_in_vllm_xargs_are_ignored(self, http: httpx.Client) -> None:
        assert _text(_ask(http, vllm_xargs={"nonsense": 5})) == CLEAN

    def test_repetition_detection_ends_a_loop_with_a_reason_of_its_own(self, http: httpx.Client) -> None:
        rule = {"max_pattern_size": 64, "min_pattern_size": 1, "min_count": 8}
        answer = _ask(http, "loop!", max_tokens=200, repetition_detection=rule)
        [choice] = answer["choices"]
        assert (choice["finish_reason"], choice["stop_reason"]) == ("repetition", "repetition_detected")
        assert answer["usage"]["completion_tokens"] == 7 * 8


class TestPrompts:
    """Prompt tokens: one to begin with, the text, 273 for a small image and one for the line end after it."""

    def _tokens(self, http: httpx.Client, **fields: Any) -> int:
        return int(_ask(http, max_tokens=1, **fields)["usage"]["prompt_tokens"])

    @pytest.fixture
    def image(self) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": data_url(picture())}}

    def test_text_alone(self, http: httpx.Client) -> None:
        assert self._tokens(http, messages=messages(PROMPT)) == 35

    def test_the_image_may_come_after_the_text(self, http: httpx.Client, image: dict[str, Any]) -> None:
        assert self._tokens(http, messages=messages([{"type": "text", "text": PROMPT}, image])) == 309

    def test_a_placeholder_in_the_text_is_not_doubled(self, http: httpx.Client, image: dict[str, Any]) -> None:
        prompt = {"type": "text", "text": f"<image>\n{PROMPT}"}
        assert self._tokens(http, messages=messages([image, prompt])) == 309

    def test_a_system_message_is_put_before_it(self, http: httpx.Client, image: dict[str, Any]) -> None:
        both = messages("You are.", role="system") + messages([image, {"type": "text", "text": PROMPT}])
        assert self._tokens(http, messages=both) == 309 + len("You are.")

    def test_several_images_cost_their_sum(self, http: httpx.Client) -> None:
        urls = [data_url(picture())] * 5
        assert _ask(http, PROMPT, *urls, max_tokens=1)["usage"]["prompt_tokens"] == 35 + 5 * 274


class TestStreams:
    def _events(self, http: httpx.Client, **fields: Any) -> list[Any]:
        with http.stream("POST", PATH, json=body(stream=True, **fields)) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
        assert lines.pop() == "[DONE]"
        return [json.loads(line) for line in lines]

    def test_a_stream_adds_up_to_the_whole_text(self, http: httpx.Client) -> None:
        events = self._events(http)
        choices = [choice for event in events for choice in event["choices"]]
        assert "".join(choice["delta"].get("content") or "" for choice in choices) == CLEAN
        assert choices[-1]["finish_reason"] == "stop"

    def test_the_usage_comes_last_without_choices_where_it_was_asked_for(self, http: httpx.Client) -> None:
        last = self._events(http, stream_options={"include_usage": True})[-1]
        assert last["choices"] == []
        assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (309, 14)
