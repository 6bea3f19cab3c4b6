"""What the lines of a page mean together: paragraphs, headings, tables, forms."""

from __future__ import annotations

from ocr_pipeline_tests.ocr.layout.typesetting import BODY, askew, blocks, line, lines, page

TEXT = [
    "The library was open on many days and counted a lot of visits, which is more",
    "than in the year before. Every second visitor came to read or to work rather",
    "than to borrow a book. The reading room was full on most afternoons.",
]
PARAGRAPH = " ".join(TEXT)


def test_lines_of_a_paragraph_are_joined_and_white_space_between_paragraphs_parts_them() -> None:
    assert blocks(lines(TEXT, 130, 300) + lines(TEXT, 130, 300 + 3 * 29 + 17)) == [PARAGRAPH, PARAGRAPH]


def test_a_word_divided_at_the_end_of_a_line_is_whole_again() -> None:
    text = lines(["My neighbour, who was once a carpen-", "ter, thinks so."], 130, 300)
    assert blocks(text) == ["My neighbour, who was once a carpenter, thinks so."]


def test_a_hyphen_before_a_capital_or_a_number_stays() -> None:
    text = lines(["the treaty of Schleswig-", "Holstein and the years 1848-", "1851 were long ago for us"], 130, 300)
    assert blocks(text) == ["the treaty of Schleswig- Holstein and the years 1848- 1851 were long ago for us"]


def test_lines_that_end_although_there_was_room_are_not_joined() -> None:
    address = lines(["Margaret Osborne", "27 Mill Lane", "Ludlow, Shropshire"], 130, 150)
    assert blocks([*address, *lines(TEXT, 130, 300)]) == [
        "Margaret Osborne",
        "27 Mill Lane",
        "Ludlow, Shropshire",
        PARAGRAPH,
    ]


def test_an_indented_first_line_begins_a_paragraph() -> None:
    full = TEXT[:2]
    items = [*lines(full, 130, 300), line(TEXT[0], 170, 358), line(TEXT[1], 130, 387)]
    assert blocks(items) == [" ".join(full), " ".join(full)]


def test_larger_type_is_a_heading_and_much_larger_type_a_title() -> None:
    items = [
        line("Harbour Library", 130, 130, size=2 * BODY),
        line("The year in brief", 130, 230, size=1.4 * BODY),
        *lines(TEXT, 130, 290),
    ]
    assert blocks(items) == ["# Harbour Library", "## The year in brief", PARAGRAPH]
    assert [region.label for region in page(items).regions] == ["title", "sub_title", "text"]


def test_a_heading_of_two_lines_is_one_heading() -> None:
    heading = lines(["The year in brief, and what", "we make of it"], 130, 200, pitch=40, size=1.4 * BODY)
    assert blocks([*heading, *lines(TEXT, 130, 300)]) == ["## The year in brief, and what we make of it", PARAGRAPH]


def test_large_type_that_ends_like_a_sentence_is_no_heading() -> None:
    items = [line("This is printed large.", 130, 200, size=1.4 * BODY), *lines(TEXT, 130, 300)]
    assert blocks(items)[0] == "This is printed large."


def test_a_table_keeps_its_rows_and_its_empty_cells() -> None:
    cells = [
        ["Item", "Quantity", "Amount"],
        ["Oak table", "4", "2,560.00"],
        ["Total", "", "2,560.00"],
        ["Chair", "16", "74.00"],
    ]
    items = [
        line(text, x, 400 + 44 * row)
        for row, texts in enumerate(cells)
        for x, text in zip((130, 600, 900), texts, strict=True)
        if text
    ]
    assert blocks([*lines(TEXT, 130, 200), *items]) == [
        PARAGRAPH,
        "| Item | Quantity | Amount |\n| --- | --- | --- |\n| Oak table | 4 | 2,560.00 |\n"
        "| Total |  | 2,560.00 |\n| Chair | 16 | 74.00 |",
    ]


def test_a_short_paragraph_below_a_table_is_not_a_row_of_it() -> None:
    rows = [line(text, x, 400 + 40 * row) for row in range(4) for text, x in ((f"a long item {row}", 130), ("7", 900))]
    note = line("Paid.", 130, 400 + 4 * 40 + 40)
    assert blocks([*rows, note])[1:] == ["Paid."]


def test_labels_with_a_colon_and_their_values_are_lines_and_no_table() -> None:
    fields = [("Surname:", "Fernández"), ("First name:", "Joséphine"), ("Town:", "Bern"), ("Telephone:", "031 555")]
    items = [
        line(text, x, 300 + 60 * row)
        for row, pair in enumerate(fields)
        for text, x in zip(pair, (130, 500), strict=True)
    ]
    assert blocks(items) == [f"{label} {value}" for label, value in fields]


def test_pieces_of_one_line_are_joined_from_left_to_right() -> None:
    pieces = [line("and its end", 130 + 40 * 12, 300), line("the beginning of a line that is long", 130, 302)]
    assert blocks(pieces) == ["the beginning of a line that is long and its end"]


def test_regions_lie_where_their_lines_were_found_on_the_scan() -> None:
    straight, turned = page(lines(TEXT, 130, 300)).regions[0], page(askew(lines(TEXT, 130, 300), 1.0)).regions[0]
    assert (straight.x0, straight.y0) == (round(130 / 1240, 5), round(300 / 1754, 5))
    assert straight.y1 == round((300 + 2 * 29 + BODY) / 1754, 5)
    assert abs(turned.y0 - straight.y0) < 0.02
    assert turned.y0 > straight.y0  # a page turned clockwise lies lower on its right


def test_a_page_without_lines_is_empty() -> None:
    assert page([]).markdown == ""
    assert page([]).regions == ()


def test_an_initial_or_a_date_at_the_beginning_of_a_line_does_not_begin_a_list() -> None:
    text = [
        "Present were J. Adeyemi in the chair, L. Novák, and",
        "T. Brandt; the next meeting is to be held either on",
        "12. May.",
    ]
    assert blocks(lines(text, 130, 300)) == [" ".join(text)]


def test_items_of_a_list_are_paragraphs_of_their_own() -> None:
    text = [
        "- the first thing, which is so long that it fills",
        "a second line",
        "- another",
        "1. and one with a number",
    ]
    assert blocks(lines(text, 130, 300)) == [" ".join(text[:2]), *text[2:]]


def test_cells_of_several_lines_are_whole_again_where_the_rows_stand_apart() -> None:
    items = []
    for row, (name, remark) in enumerate(
        [("Harrow", ["a ramp that was", "extended late"]), ("Leigh", ["none"]), ("Hyde", ["shut"])]
    ):
        y = 400 + 90 * row
        items += [line(name, 130, y), *lines(remark, 400, y, pitch=25), line("412", 900, y)]
    assert blocks(items) == [
        "| Harrow | a ramp that was extended late | 412 |\n| --- | --- | --- |\n"
        "| Leigh | none | 412 |\n| Hyde | shut | 412 |"
    ]


def test_a_cell_over_two_columns_of_a_table_leaves_the_other_rows_as_they_are() -> None:
    rows = [
        ["Depot", "Remarks", "Sum"],
        ["Leigh", "none", "41"],
        ["All depots together", "", "82"],
        ["Hyde", "shut", "41"],
    ]
    items = [
        line(text, x, 400 + 40 * number)
        for number, row in enumerate(rows)
        for x, text in zip((130, 300, 700), row, strict=True)
        if text
    ]
    assert blocks(items)[0].splitlines()[2:] == [
        "| Leigh | none | 41 |",
        "| All depots together |  | 82 |",
        "| Hyde | shut | 41 |",
    ]


def test_only_the_largest_of_large_headings_is_the_title() -> None:
    items = [
        line("Harbour Library", 130, 100, size=3 * BODY),
        line("Introduction", 130, 220, size=1.8 * BODY),
        *lines(TEXT, 130, 290),
    ]
    assert [block.split()[0] for block in blocks(items)] == ["#", "##", "The"]


def test_a_quotation_narrower_than_the_text_is_one_paragraph() -> None:
    quotation = [
        "Permission is granted to copy and to change",
        "it under the terms of a licence which was",
        "made for that.",
    ]
    items = [*lines(TEXT, 130, 300), *lines(quotation, 230, 420)]
    assert blocks(items) == [PARAGRAPH, " ".join(quotation)]
