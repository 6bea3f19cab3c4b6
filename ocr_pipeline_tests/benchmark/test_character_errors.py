"""The character error rate, held against the textbook way of counting edits."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.character_errors import character_error_rate, edit_distance

texts = st.text(st.sampled_from("abcé "), max_size=14)


def _textbook(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        above, row = row, [i]
        for j, y in enumerate(b, start=1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
    return row[-1]


@given(texts, texts)
@settings(deadline=None)
def test_the_fast_distance_is_the_textbook_distance(a: str, b: str) -> None:
    assert edit_distance(a, b) == _textbook(a, b)


@pytest.mark.parametrize(
    ("text", "known", "rate"),
    [
        ("same  text\n", "same text", 0.0),
        ("e\u0301", "é", 0.0),
        ("b a", "a b", 2 / 3),
        ("", "gone", 1.0),
        ("noise", "", 1.0),
        ("", "", 0.0),
    ],
)
def test_white_space_and_the_form_of_accents_do_not_count_and_order_does(text: str, known: str, rate: float) -> None:
    assert character_error_rate(text, known) == pytest.approx(rate)
