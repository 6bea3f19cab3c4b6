"""What the simulated model says, and how an answer is cut."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_pipeline_tests.simulator import texts
from ocr_pipeline_tests.simulator.completion import Repetition, complete
from ocr_pipeline_tests.simulator.texts import SPECIAL

hashes = st.integers(0, 2**256 - 1).map(lambda number: f"{number:064x}")


@given(hashes)
def test_the_same_image_always_has_the_same_text(sha256: str) -> None:
    assert texts.page(sha256, 800, grounded=True) == texts.page(sha256, 800, grounded=True)


@given(hashes, st.integers(40, 3000))
def test_a_page_is_about_as_long_as_was_asked_for(sha256: str, mean: int) -> None:
    assert mean // 2 - 40 <= len(texts.page(sha256, mean, grounded=True)) <= mean * 3 // 2 + 60


@given(hashes)
def test_a_page_begins_with_a_title_and_has_boxes_within_the_page(sha256: str) -> None:
    text = "".join(texts.page(sha256, 800, grounded=True))
    regions = re.findall(r"<\|ref\|>(\w+)<\|/ref\|><\|det\|>\[\[(\d+), (\d+), (\d+), (\d+)\]\]<\|/det\|>\n", text)
    assert regions[0][0] == "title"
    assert len(regions) == text.count("<|ref|>") >= 3
    for _, *corners in regions:
        x0, y0, x1, y1 = map(int, corners)
        assert 0 <= x0 < x1 <= 999
        assert 0 <= y0 < y1 <= 999


@given(hashes)
def test_without_grounding_there_are_no_tags(sha256: str) -> None:
    assert not SPECIAL & set(texts.page(sha256, 800, grounded=False))


def test_pages_differ() -> None:
    assert len({"".join(texts.page(f"{n:064x}", 200, grounded=True)) for n in range(200)}) == 200


@pytest.mark.parametrize("guarded", [False, True])
def test_a_looping_page_repeats_itself_until_it_is_cut_off(guarded: bool) -> None:
    answer = complete(texts.looping(texts.page("a" * 64, 300, grounded=True), guarded=guarded), 3000)
    assert (answer.finish_reason, answer.completion_tokens) == ("length", 3000)
    assert answer.text.count("the same line of the same list") > 200
    assert ("\n7. the same" in answer.text) is guarded  # what an n-gram guard lets through


@given(hashes)
def test_garbage_is_no_text(sha256: str) -> None:
    answer = complete(texts.garbage(sha256), 8000)
    assert answer.finish_reason == "stop"
    assert not re.search(r"[A-Za-z]", answer.text)


tokens = st.lists(st.sampled_from(["a", "b", " c", "<|ref|>", "\n"]), max_size=60)


@given(tokens, st.integers(1, 80), st.booleans())
def test_an_answer_never_has_more_tokens_than_were_allowed(said: list[str], limit: int, skip: bool) -> None:
    answer = complete(said, limit, skip_special=skip)
    assert answer.completion_tokens == min(limit, len(said) + 1)
    assert answer.finish_reason == ("stop" if len(said) < limit else "length")
    assert answer.text == "".join(t for t in said[:limit] if not (skip and t in SPECIAL))


@given(tokens, st.sampled_from(["a", "b c", "\na"]))
def test_a_stop_string_is_never_in_the_text(said: list[str], stop: str) -> None:
    answer = complete(said, 100, stop=(stop,))
    assert answer.text == "".join(said).partition(stop)[0]
    assert (answer.stop_reason == stop) is (stop in "".join(said))


@given(st.lists(st.sampled_from("ab"), max_size=40), st.integers(1, 4), st.integers(1, 3), st.integers(2, 4))
def test_repetition_is_found_at_the_first_token_where_the_tail_is_one_pattern(
    said: list[str], least: int, more: int, count: int
) -> None:
    def repeats(upto: int) -> bool:
        for size in range(least, least + more):
            tail = said[max(0, upto - size * count) : upto]
            if len(tail) == size * count and tail == tail[-size:] * count:
                return True
        return False

    first = next((upto for upto in range(1, len(said) + 1) if repeats(upto)), None)
    answer = complete(said, 100, repetition=Repetition(least + more - 1, least, count))
    assert (answer.finish_reason == "repetition") is (first is not None)
    assert answer.completion_tokens == (first if first is not None else len(said) + 1)
