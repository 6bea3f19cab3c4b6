"""The short ways out of the search for loops find nothing that the whole search would find."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_pipeline.ocr.quality.repetition import (
    characters_in_circles,
    find_loop,
    may_loop_in_characters,
    may_loop_in_words,
    words_in_circles,
)

WORD = st.sampled_from(["a", "b", "of", "the", "sum", "1,200", "total", "x" * 30])
SOME = st.lists(WORD, max_size=15)
TEXT = st.tuples(SOME, st.lists(WORD, min_size=1, max_size=12), st.integers(1, 60), SOME)
LETTERS = st.text("abc 水", max_size=80)
ENDLESS = st.tuples(LETTERS, st.text("abcd水火", min_size=1, max_size=64), st.integers(1, 200), LETTERS)


@given(TEXT)
@settings(deadline=None, max_examples=300)
def test_where_no_ten_words_are_there_twice_no_words_go_in_circles(text) -> None:
    before, pattern, times, after = text
    words = [*before, *pattern * times, *after]
    if len(words) < 12:
        return
    names = {word: number for number, word in enumerate(sorted(set(words)))}
    codes = np.array([names[word] for word in words], dtype=np.int32)
    found = list(words_in_circles(words, codes, len(" ".join(words))))
    assert may_loop_in_words(codes) or not found


@given(ENDLESS)
@settings(deadline=None, max_examples=300)
def test_where_no_block_stands_shortly_before_itself_no_characters_go_in_circles(text) -> None:
    before, pattern, times, after = text
    whole = (before + pattern * times + after)[:4000]
    if len(whole) < 200:
        return
    assert may_loop_in_characters(whole) or not list(characters_in_circles(whole, len(whole)))


@pytest.mark.parametrize("period", [1, 7, 63, 64])
@pytest.mark.parametrize("start", [0, 1, 40, 63, 64, 90])
def test_a_run_of_the_shortest_length_is_looked_into_wherever_it_begins(period: int, start: int) -> None:
    alphabet = [chr(0x4E00 + n) for n in range(1000)]  # no character twice but by the pattern
    pattern = alphabet[:period]
    run = "".join(pattern[n % period] for n in range(period + max(3 * period, 150)))
    text = "".join(alphabet[500 : 500 + start]) + run + "".join(alphabet[700:900])
    assert may_loop_in_characters(text)


def test_a_page_of_words_goes_the_short_way() -> None:
    words = [f"word{n * 7919 % 1009}" for n in range(900)]
    assert not may_loop_in_words(np.array([n * 7919 % 1009 for n in range(900)], dtype=np.int32))
    assert not may_loop_in_characters(" ".join(words))
    assert find_loop(" ".join(words)) is None
