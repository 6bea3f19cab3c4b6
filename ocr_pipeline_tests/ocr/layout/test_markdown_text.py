"""Escaping, judged by a CommonMark reader that is not ours."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from benchmarks.character_errors import plain_text
from ocr_pipeline.ocr.layout.markdown_text import escaped, table

READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
marks = st.text(st.sampled_from("ab1 .)#*_`<>[]()!|~\\&;:=+/\"'"), min_size=1, max_size=25)
cells = marks.map(lambda text: " ".join(text.split())).filter(bool)
LIST_ITEM = re.compile(r"^(?:[-+*]|\d{1,2}[.)])(?:\s|$)")


@given(cells)
@settings(max_examples=600, deadline=None)
@example("# 1 of 12")
@example("2025. A year, not a list")
@example("***")
@example("<script>alert(1)</script>")
@example("[click](javascript:alert(1))")
@example("5 * 3 and *stressed*, snake_case_name and _this_")
@example("a &lt; b &amp; c")
@example("\\")
def test_a_reader_shows_a_paragraph_as_it_was_printed(text: str) -> None:
    if LIST_ITEM.match(text):
        return  # lists stay lists
    rendered = READER.render(escaped(text))
    assert rendered.startswith("<p>")
    assert rendered.count("<") == 2  # the paragraph's own tags
    assert html.unescape(rendered.removeprefix("<p>").removesuffix("</p>\n")) == text


@given(st.lists(st.lists(cells, min_size=2, max_size=4), min_size=1, max_size=4))
@settings(deadline=None)
def test_a_reader_shows_each_cell_of_a_table_as_it_was_printed(rows: list[list[str]]) -> None:
    rendered = READER.render(table(rows))
    shown = [html.unescape(cell) for cell in re.findall(r"<t[hd]>(.*?)</t[hd]>", rendered)]
    width = max(map(len, rows))
    assert shown == [cell for row in rows for cell in row + [""] * (width - len(row))]


@pytest.mark.parametrize(
    "text", ["Prices rose by 6.4 % (see page 3), didn't they?", "1. First", "- item", "A-1 / B_2", "a * b"]
)
def test_ordinary_text_is_left_as_it_is(text: str) -> None:
    assert escaped(text) == text


@given(cells)
@settings(deadline=None)
def test_plain_text_takes_back_what_escaping_added(text: str) -> None:
    assert plain_text(escaped(text)) == text
