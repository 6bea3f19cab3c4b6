"""In which order the lines of a page are read."""

from __future__ import annotations

import random

import pytest

from ocr_pipeline_tests.ocr.layout.typesetting import askew, blocks, line, lines, page

LEFT = ["The stream that drains the valley", "rises within an hour and it falls", "again before the evening comes up"]
RIGHT = ["Valleys with deep soil had second", "waves almost always. Where a rock", "lies bare we saw it only one time"]
LEFT_TEXT, RIGHT_TEXT = " ".join(LEFT), " ".join(RIGHT)
LEFT_X, RIGHT_X = 130, 650


@pytest.mark.parametrize("offset", [0, 7, 14, 22])
def test_two_columns_are_read_one_after_the_other_whatever_their_baselines(offset: int) -> None:
    items = lines(LEFT, LEFT_X, 300) + lines(RIGHT, RIGHT_X, 300 + offset)
    random.Random(offset).shuffle(items)
    assert blocks(items) == [LEFT_TEXT, RIGHT_TEXT]


def test_three_columns_are_read_from_left_to_right() -> None:
    texts = [[f"column {name} has a line {number}" for number in "12345"] for name in "abc"]
    items = [item for x, column in zip((60, 450, 840), texts, strict=True) for item in lines(column, x, 300)]
    assert blocks(items) == [" ".join(column) for column in texts]


def test_a_gutter_as_narrow_as_latex_sets_it_still_parts_the_columns() -> None:
    width = max(len(text) for text in LEFT) * 12
    assert blocks(lines(LEFT, LEFT_X, 300) + lines(RIGHT, LEFT_X + width + 12, 310)) == [LEFT_TEXT, RIGHT_TEXT]


def test_a_title_over_both_columns_comes_first_and_a_line_below_both_last() -> None:
    title = line("Why Small Rivers Flood Twice a Year", 200, 140, size=46)
    footer = line("Printed on paper from the valley, page 1 of 12, all rights reserved", 230, 1600)
    assert blocks([footer, *lines(RIGHT, RIGHT_X, 300), *lines(LEFT, LEFT_X, 300), title]) == [
        "# Why Small Rivers Flood Twice a Year",
        LEFT_TEXT,
        RIGHT_TEXT,
        "Printed on paper from the valley, page 1 of 12, all rights reserved",
    ]


def test_a_line_over_both_columns_ends_them_and_new_columns_begin_below_it() -> None:
    between = line("A line that runs over the whole width of the page and parts what is above and below it", 130, 420)
    below = lines(["lower left column has some words", "and it goes on in a second line", "until its third."], 130, 480)
    beside = lines(["lower right column has words too", "and it goes on in a second line", "until its end."], 650, 480)
    order = blocks([*lines(LEFT, LEFT_X, 300), *lines(RIGHT, RIGHT_X, 300), between, *below, *beside])
    assert [block.split()[0] for block in order] == ["The", "Valleys", "A", "lower", "lower"]
    assert order[3].startswith("lower left")


def test_a_right_column_that_begins_higher_than_the_left_one_still_comes_second() -> None:
    title = line("A title as wide as the whole page is, so that it stands over both of them", 130, 140)
    right = ["Right column begins on its own row", *RIGHT]
    items = [title, *lines(LEFT, LEFT_X, 331), *lines(right, RIGHT_X, 300)]
    assert blocks(items)[1:] == [LEFT_TEXT, " ".join(right)]


def test_a_paragraph_that_runs_on_into_the_next_column_is_one_paragraph_of_two_regions() -> None:
    left = [*LEFT[:2], "again before the evening and then"]
    right = [
        "it comes a second time, which they",
        "who live there have long known of.",
        "Nobody has believed them so far.",
    ]
    parsed = page(lines(left, LEFT_X, 300) + lines(right, RIGHT_X, 300))
    assert parsed.markdown == " ".join(left + right)
    assert [region.text for region in parsed.regions] == [" ".join(left), " ".join(right)]


def test_a_paragraph_can_run_over_three_columns_without_losing_its_beginning() -> None:
    columns = [[f"word{c}{n} and then more of it" for n in range(4)] for c in range(3)]
    items = [item for x, column in zip((60, 450, 840), columns, strict=True) for item in lines(column, x, 300)]
    assert blocks(items) == [" ".join(text for column in columns for text in column)]


def test_bullets_that_stand_apart_stay_with_their_text() -> None:
    texts = [
        "first thing that has to be done here",
        "second thing that has to be done now",
        "third thing, which can wait",
    ]
    items = [*lines(["1.", "2.", "3."], 130, 300), *lines(texts, 220, 300)]
    assert blocks(items) == [f"{number}. {text}" for number, text in enumerate(texts, start=1)]


def test_text_that_runs_up_the_margin_comes_last_and_does_not_mix_with_the_lines_beside_it() -> None:
    margin = {"text": "archive copy 1998", "box": [20, 200, 46, 900]}
    assert blocks([margin, *lines(LEFT, LEFT_X, 300)]) == [LEFT_TEXT, "archive copy 1998"]


@pytest.mark.parametrize("degrees", [-2.0, -0.7, 0.7, 2.0])
def test_a_page_scanned_askew_reads_as_if_it_were_straight(degrees: float) -> None:
    table = [
        line(text, x, 600 + 40 * row) for row in range(5) for text, x in ((f"item {row}", 130), (f"{row}.50", 1000))
    ]
    items = [*lines(LEFT, LEFT_X, 300), *lines(RIGHT, RIGHT_X, 300), *table]
    straight = page(items).markdown
    assert "| item 4 | 4.50 |" in straight
    assert page(askew(items, degrees)).markdown == straight


def test_a_page_number_far_below_the_left_column_comes_after_the_right_one() -> None:
    assert blocks([*lines(LEFT, LEFT_X, 300), *lines(RIGHT, RIGHT_X, 300), line("12", 300, 1650)]) == [
        LEFT_TEXT,
        RIGHT_TEXT,
        "12",
    ]


def test_a_table_inside_a_column_of_text_stays_in_its_column() -> None:
    left = [f"{text} and so on in words" for text in (*LEFT, *LEFT)]
    table = [
        line(text, x, 300 + 29 * row)
        for row, pair in enumerate([("Alder", "1.2"), ("Birch", "0.8"), ("Cedar", "2.4")])
        for x, text in zip((800, 1000), pair, strict=True)
    ]
    items = [*lines(left, 60, 300), *table, *lines(RIGHT, 700, 300 + 29 * 3)]
    order = blocks(items)
    assert order[0] == " ".join(left)
    assert order[1].splitlines()[2:] == ["| Birch | 0.8 |", "| Cedar | 2.4 |"]
    assert order[2] == RIGHT_TEXT


def test_a_sidebar_of_short_lines_does_not_tear_the_text_beside_it() -> None:
    text = [f"{text} and so on in many words" for text in (*LEFT, *RIGHT)]
    sidebar = lines(["At a glance", "Depots: six", "Staff: two hundred", "Parcels: millions"], 900, 300)
    assert blocks([*lines(text, 60, 300), *sidebar])[0] == " ".join(text)


def test_a_table_in_the_middle_of_a_column_does_not_end_the_columns() -> None:
    left = [f"{text} and so on in words" for text in (*LEFT, *LEFT, *LEFT)]
    cells = [("Alder", "1.2", "9"), ("Birch", "0.8", "7"), ("Cedar", "2.4", "8")]
    table = [
        line(pair[side], (750, 900, 1000)[side], 387 + 29 * row) for row, pair in enumerate(cells) for side in range(3)
    ]
    order = blocks([*lines(left, 60, 300), *lines(RIGHT, 700, 300), *table, *lines(RIGHT, 700, 474)])
    assert order[:2] == [" ".join(left), RIGHT_TEXT]
    assert order[2].splitlines()[2:] == ["| Birch | 0.8 | 7 |", "| Cedar | 2.4 | 8 |"]
    assert order[3] == RIGHT_TEXT


def test_a_table_at_the_foot_of_a_column_belongs_to_it() -> None:
    left = [f"{text} and so on in words" for text in (*LEFT, *LEFT)]
    cells = [("Alder", "1.2", "9"), ("Birch", "0.8", "7"), ("Cedar", "2.4", "8")]
    table = [
        line(pair[side], (750, 900, 1000)[side], 387 + 29 * row) for row, pair in enumerate(cells) for side in range(3)
    ]
    order = blocks([*lines(left, 60, 300), *lines(RIGHT, 700, 300), *table])
    assert order[:2] == [" ".join(left), RIGHT_TEXT]
    assert order[2].splitlines()[2:] == ["| Birch | 0.8 | 7 |", "| Cedar | 2.4 | 8 |"]
