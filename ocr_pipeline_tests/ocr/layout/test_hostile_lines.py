"""The layout on raw transcripts that nobody would have written in good faith."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.character_errors import plain_text
from ocr_pipeline.ocr.layout.lines_to_page import parse_lines

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(["text", "box", "score", "lines"]), inner)
    ),
    max_leaves=30,
)
# No hyphens, which are joined away at the end of a line on purpose.
words = st.text(st.characters(exclude_categories=["Z", "C"], exclude_characters="-\u2010"), min_size=1, max_size=12)
numbers = st.integers(-50, 2000) | st.floats(-1e6, 1e6)
boxes = st.lists(numbers, min_size=4, max_size=4) | st.lists(
    st.lists(numbers, min_size=2, max_size=2), min_size=4, max_size=4
)
placed = st.tuples(st.integers(0, 40), st.integers(0, 60), st.integers(1, 45)).map(
    lambda at: [at[0] * 30, at[1] * 28, at[0] * 30 + at[2] * 12, at[1] * 28 + 25]
)
raw_lines = st.lists(
    st.fixed_dictionaries(
        {"text": st.lists(words, min_size=1, max_size=6).map(" ".join)}, optional={"box": placed | boxes}
    ),
    max_size=40,
)


@given(json_values)
@settings(deadline=None)
def test_any_json_gives_a_page(value: Any) -> None:
    page = parse_lines(json.dumps(value), 1240, 1754)
    page.markdown.encode("utf-8")
    assert all(0 <= side <= 1 for region in page.regions for side in (region.x0, region.y0, region.x1, region.y1))


@given(st.text(), st.integers(-1, 5000), st.integers(-1, 5000))
@settings(deadline=None)
def test_any_text_and_any_page_size_give_a_page(text: str, width: int, height: int) -> None:
    parse_lines(text, width, height).markdown.encode("utf-8")


@given(raw_lines)
@settings(max_examples=150, deadline=None)
def test_every_word_is_in_the_markdown_once_and_every_box_within_the_page(items: list[dict[str, Any]]) -> None:
    page = parse_lines(json.dumps(items), 1240, 1754)
    said = Counter(word for item in items for word in item["text"].split())
    assert Counter(plain_text(page.markdown).split()) == said
    for region in page.regions:
        assert 0 <= region.x0 <= region.x1 <= 1
        assert 0 <= region.y0 <= region.y1 <= 1


@pytest.mark.parametrize(
    "raw",
    [
        "[" * 100_000,
        '[{"text":"a","box":[' + "9" * 5000 + ",1,2,3]}]",
        '[{"text":"a","box":[NaN,Infinity,-Infinity,1e999]}]',
        '[{"text":"\\ud800 half","box":[1,2,3,4]}]',
        '[{"text":"\\u0000\\u001b[31m","box":[1,2,3,4]}]',
    ],
)
def test_numbers_and_characters_that_no_table_can_hold_do_no_harm(raw: str) -> None:
    page = parse_lines(raw, 1240, 1754)
    page.markdown.encode("utf-8")
    assert "\x00" not in page.markdown
    assert "\x1b" not in page.markdown


def test_thousands_of_lines_in_nested_columns_are_read_without_deep_recursion() -> None:
    items = [
        {
            "text": f"line {row} of the column {column} says",
            "box": [column * 400, row * 28, column * 400 + 380, row * 28 + 24],
        }
        for column in range(20)
        for row in range(60)
    ]
    assert len(plain_text(parse_lines(json.dumps(items), 8000, 1700).markdown).split()) == 7 * 1200


def test_the_text_layer_of_a_page_has_no_boxes_and_keeps_its_order() -> None:
    page = parse_lines(json.dumps([{"text": "second comes first"}, {"text": "# not a heading"}]), 1240, 1754)
    assert page.markdown == "second comes first\n\\# not a heading"
    assert [region.text for region in page.regions] == ["second comes first\n# not a heading"]
