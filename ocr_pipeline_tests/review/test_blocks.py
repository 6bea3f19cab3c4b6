"""Which block of a page's markdown belongs to which region."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_pipeline.ocr.parsing.parse import parse_text
from ocr_pipeline.review.blocks import Block, blocks
from ocr_pipeline.review.markup import figure_index
from ocr_pipeline_tests.growth import growth
from ocr_pipeline_tests.review.library import GROUNDED

_TEXT = st.text(st.sampled_from(list("ab #*-.|\\<>\n\n $`")), max_size=60)


@settings(deadline=None)
@given(_TEXT, st.lists(_TEXT, max_size=8))
def test_the_blocks_put_together_are_the_markdown_whatever_the_regions_say(markdown: str, texts: list[str]) -> None:
    found = blocks(markdown, texts, lambda block: len(block) % 5)
    assert "".join(block.markdown for block in found) == markdown
    assert all(0 <= region < len(texts) for block in found for region in block.regions)


@settings(deadline=None)
@given(st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=12), min_size=1, max_size=12))
def test_markdown_joined_from_the_regions_texts_gives_each_region_its_own_block(words: list[str]) -> None:
    texts = [f"{word} {number}" for number, word in enumerate(words)]
    found = blocks("\n\n".join(texts), texts)
    assert [(block.markdown.strip(), block.regions) for block in found] == [
        (text, (number,)) for number, text in enumerate(texts)
    ]


def test_every_region_of_a_grounded_page_finds_its_text_and_the_figure_its_picture() -> None:
    page = parse_text(GROUNDED, "grounding", 1000, 1000)
    markdown = page.markdown.replace("(figure:4)", "(<thin wires.pdf.files/0001-4.jpg>)")
    found = blocks(markdown, [region.text for region in page.regions], lambda block: figure_index(block, 1))
    assert [block.regions for block in found] == [(0,), (1,), (2,), (3,), (4,), (5,)]


def test_heading_marks_and_escapes_do_not_hide_a_region() -> None:
    found = blocks("## 1\\. Introduction\n\n\\*starred\\* line", ["1. Introduction", "*starred* line"])
    assert [block.regions for block in found] == [(0,), (1,)]


def test_a_paragraph_that_goes_on_in_the_next_column_is_one_block_of_two_regions() -> None:
    found = blocks(
        "The wire was heated until it glowed.\n\nNext.", ["The wire was hea-", "ted until it glowed.", "Next."]
    )
    assert found == [Block("The wire was heated until it glowed.\n\n", (0, 1)), Block("Next.", (2,))]


def test_a_region_of_several_paragraphs_is_one_block() -> None:
    found = blocks("Name: A\n\nAge: 7\n\nend", ["Name: A\nAge: 7", "end"])
    assert [block.regions for block in found] == [(0,), (1,)]


def test_text_of_no_region_stays_together_and_a_region_that_is_not_found_marks_nothing() -> None:
    found = blocks("- one\n\n- two\n\nknown\n\nrest", ["nowhere", "known"])
    assert found == [Block("- one\n\n- two\n\n"), Block("known\n\n", (1,)), Block("rest")]


def test_regions_that_say_the_same_take_the_places_in_their_order() -> None:
    found = blocks("same\n\nsame\n\nsame", ["same", "same", "same"])
    assert [block.regions for block in found] == [(0,), (1,), (2,)]


def test_the_time_for_regions_that_are_nowhere_grows_with_their_number_and_not_with_the_text_too() -> None:
    def place(regions: int) -> None:
        blocks("ab " * 60 * regions, ["ab " * 50 + str(number) for number in range(regions)])

    assert growth(place, 150, 1200) < 20  # without the window 64
