"""Raw grounded text to markdown and regions, whatever the text."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_pipeline.ocr.parsing.grounding import parse_grounding
from ocr_pipeline.ocr.parsing.model_text import clean, formulas
from ocr_pipeline.records import Region
from ocr_pipeline_tests.growth import growth

T = pytest.mark.parametrize


def box(text: str, label: str = "text", boxes: str = "[[0, 0, 999, 999]]") -> str:
    return f"<|ref|>{label}<|/ref|><|det|>{boxes}<|/det|>\n{text}"


PAGE = """\
<|ref|>title<|/ref|><|det|>[[56, 48, 941, 102]]<|/det|>
# Annual report

<|ref|>text<|/ref|><|det|>[[56, 150, 941, 300]]<|/det|>
Revenue grew by 4 % in the \\(n\\)-th quarter.

<|ref|>image<|/ref|><|det|>[[100, 320, 500, 600]]<|/det|>

<|ref|>image_caption<|/ref|><|det|>[[100, 605, 500, 630]]<|/det|>
<center>Figure 1: growth</center>

<|ref|>table<|/ref|><|det|>[[120, 650, 874, 725]]<|/det|>
<table><tr><td>a</td><td></td></tr></table>

<|ref|>equation<|/ref|><|det|>[[120, 730, 874, 760]]<|/det|>
\\[ x \\coloneqq \\frac{1}{2} \\tag{3} \\]
<｜end▁of▁sentence｜>"""


def test_a_page_becomes_markdown_and_regions_in_reading_order() -> None:
    page = parse_grounding(PAGE)
    assert page.markdown == (
        "# Annual report\n\n"
        "Revenue grew by 4 % in the $n$-th quarter.\n\n"
        "![](figure:2)\n\n"
        "Figure 1: growth\n\n"
        "<table><tr><td>a</td><td></td></tr></table>\n\n"
        "$$x := \\frac{1}{2} \\tag{3}$$"
    )
    assert [region.label for region in page.regions] == [
        "title",
        "text",
        "image",
        "image_caption",
        "table",
        "equation",
    ]
    assert page.regions[0] == Region("title", 56 / 999, 48 / 999, 941 / 999, 102 / 999, "# Annual report")


def test_several_boxes_are_several_regions_and_the_text_belongs_to_the_first() -> None:
    page = parse_grounding(box("A paragraph.", boxes="[[0, 0, 100, 100], [0, 200, 100, 300]]"))
    assert [(region.y0 > 0.1, region.text) for region in page.regions] == [(False, "A paragraph."), (True, "")]
    assert page.markdown == "A paragraph."


def test_each_box_of_a_picture_is_a_picture() -> None:
    page = parse_grounding(box("", "image", "[[0, 0, 100, 100], [0, 200, 100, 300]]"))
    assert page.markdown == "![](figure:0)\n\n![](figure:1)"


@T(
    "boxes",
    [
        "[[999, 999, 0, 0]]",
        "[[-50, -1, 2000, 100000]]",
        "[0, 0, 999, 999]",
        "0, 0, 999, 999",
        "[[0 0 999 999]]",
        "[[0.0, 0.0, 999.0, 999.0]]",
        "[[0, 0, 999, 999], [nan, 0, 1, 1], [1, 2], [1, 2, 3, 4, 5], [], [5, 5, 5, 9]]",
        "[[0, 0, " + "9" * 30 + ", 99999]]",
    ],
)
def test_a_box_is_sorted_and_cut_at_the_edges_of_the_page(boxes: str) -> None:
    [region] = parse_grounding(box("words", boxes=boxes)).regions
    assert (region.x0, region.y0, region.x1, region.y1) == (0.0, 0.0, 1.0, 1.0)


@T(
    "boxes",
    [
        "",
        "[[]]",
        "[[1, 2, 3]]",
        "[[nan, nan, nan, nan]]",
        "[[inf, 0, 1, 1]]",
        "[[5, 5, 5, 5]]",
        "[[2000, 2000, 3000, 3000]]",
        "[[" + "9" * 5000 + ", 0, 1, 1]]",
        "[[1e999, 1, 2, 3]]",
        "[[0x10, 1, 2, 3]]",
    ],
)
def test_what_is_no_box_makes_no_region_and_its_text_stays(boxes: str) -> None:
    page = parse_grounding(box("The words.", boxes=boxes))
    assert page.regions == ()
    assert page.markdown == "The words."


@T(
    ("text", "markdown", "labels"),
    [
        ("no tags at all", "no tags at all", []),
        ("before\n" + box("after"), "before\n\nafter", ["text"]),
        ("<|ref|>text<|/ref|><|det|>[[1, 2, 30, 40", "", ["text"]),
        ("<|ref|>text<|/ref|><|det|>[[1, 2, 30, 40]]\nwords", "words", ["text"]),
        ("<|ref|>text<|/ref|><|det|>[[1, 2, 30, 40\n2024 (12)", "2024 (12)", ["text"]),
        ("<|ref|>text<|/ref|><|det|>[[1, 2, 30, 40]]\n2024 1,234.50 (12)", "2024 1,234.50 (12)", ["text"]),
        ("<|det|>[[1, 2, 30, 40]]\n1. one\n2. two", "1. one\n2. two", ["text"]),
        ("<|det|>[1, 2, 30, 40]\n[1] a reference", "[1] a reference", ["text"]),
        ("<|det|>[1] a reference", "[1] a reference", []),
        ("<|det|>1, 2, 30, 40\nwords", "1, 2, 30, 40\nwords", []),
        ("<|ref|>text<|/ref|><|det|>[[1, 2, 30, 40]]\nAll of it.<|/det|>\n", "All of it.", ["text"]),
        ("<|ref|>text<|/ref|><|det|>Invoice 4711<|/det|>\nwords", "Invoice 4711\n\nwords", []),
        ("<|det|>__import__('os').system('true')<|/det|>", "__import__('os').system('true')", []),
        ("<|det|>[[①, 2, 3, 4]]<|/det|>words", "[[①, 2, 3, 4]]\n\nwords", []),
        ("<|ref|>text<|det|>[[1, 2, 30, 40]]<|/det|>words", "words", ["text"]),
        ("<|/ref|><|det|>[[1, 2, 30, 40]]<|/det|>words", "words", ["text"]),
        ("<|det|>[[1, 2, 30, 40]]<|/det|>words", "words", ["text"]),
        ("<|ref|>Hello world<|/ref|><|det|>[[1, 2, 30, 40]]<|/det|>", "Hello world", ["text"]),
        ("<|ref|>Sub Title<|/ref|><|det|>[[1, 2, 30, 40]]<|/det|>\n## x", "## x", ["sub_title"]),
        ("<|ref|>a name<|/ref|> is here", "a name\n\nis here", []),
        ("<|ref|>an open tag\nand words", "an open tag\nand words", []),
        ("words<|/det|><|/ref|><|grounding|> more", "words more", []),
        ("<|re<|ref|>f|>words<|en<|x|>d|>", "words", []),
        ("a <| f <| b", "a <| f <| b", []),
        ("<|ref|><|/ref|><|det|><|/det|>", "", []),
        ("<|ref|>text<|/ref|>\n<|det|>[[1, 2, 30, 40]]<|/det|>\nwords", "words", ["text"]),
        ("<|User|>words<｜end▁of▁sentence｜><|end_of_text|>", "words", []),
    ],
)
def test_broken_tags_lose_no_word_and_leave_no_tag(text: str, markdown: str, labels: list[str]) -> None:
    page = parse_grounding(text)
    assert (page.markdown, [region.label for region in page.regions]) == (markdown, labels)


def test_hostile_content_stays_text_without_what_cannot_be_seen() -> None:
    page = parse_grounding(box("<script>alert(1)</script>\x00\x1b[31m\u202eevil\u2066 \ud800 [x](javascript:a)\x0cb"))
    assert page.markdown == "<script>alert(1)</script>[31mevil \ufffd [x](javascript:a)\nb"


def test_words_of_the_page_cannot_pass_for_a_figure_of_ours() -> None:
    """The flow puts a path in the place of (figure:N)."""
    page = parse_grounding(box("see ![](figure:0) and (figure:12)") + box("", "image"))
    assert re.findall(r"\(figure:\d+\)", page.markdown) == ["(figure:1)"]


@T(
    ("text", "shown"),
    [
        (r"\(a\)", "$a$"),
        (r"\[ a \\[2pt] b \]", r"$$a \\[2pt] b$$"),
        (r"open \( without end", r"open \( without end"),
        (r"\( \( a \)", r"\( $a$"),
        (r"\(a\]", r"\(a\]"),
        (r"\( \$5 \)", r"\( \$5 \)"),
        (r"\(\)", r"\(\)"),
        ("\\(a\nb\\)", "$a b$"),
        ("\\(a\n\nb\\)", "\\(a\n\nb\\)"),
        (r"\\(not a formula\\)", r"\\(not a formula\\)"),
        (r"$5 and \(x\)", r"$5 and $x$"),
    ],
)
def test_formulas_are_marked_as_markdown_marks_them(text: str, shown: str) -> None:
    assert formulas(text) == shown


HOSTILE = [
    "<|ref|>",
    "<|ref|>a<|/ref|>",
    "<|det|>",
    "<|ref|><|det|>",
    "<|ref|>a<|det|>[[",
    "[[1,2,3,4]]",
    "<|det|>[[1,2,3,4]]<|/det|>",
    "<|det|>" + "[" * 5990,
    "<|ref|>" + "a" * 499,
    "\\(",
    "\\[x\\]",
    " ",
    "\n",
    "<|",
    "<|a",
    "<|re<|x|>f|>",
    "![",
    "\u202e",
]


@T("unit", HOSTILE)
def test_the_time_for_a_hostile_text_grows_with_its_length_and_not_with_the_square(unit: str) -> None:
    assert growth(parse_grounding, unit * (30_000 // len(unit)), unit * (240_000 // len(unit))) < 20  # a square: 64


@pytest.mark.slow
@T("unit", HOSTILE)
def test_two_megabytes_of_anything_take_no_square_either(unit: str) -> None:
    assert growth(parse_grounding, unit * (250_000 // len(unit)), unit * (2_000_000 // len(unit))) < 20


TAGS = st.sampled_from(
    ["<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "[[", "]]", "[1, 2, 3, 4]", "text", "image", "table", "<table>"]
)
SOUP = st.lists(st.one_of(TAGS, st.text(max_size=8), st.integers().map(str), st.floats().map(str)), max_size=40)


@given(SOUP.map("".join))
def test_nothing_raises_and_every_box_lies_on_the_page(text: str) -> None:
    page = parse_grounding(text)
    for region in page.regions:
        assert 0 <= region.x0 < region.x1 <= 1
        assert 0 <= region.y0 < region.y1 <= 1
        assert all(math.isfinite(side) for side in (region.x0, region.y0, region.x1, region.y1))
    assert not re.search(r"<\|/?\w+\|>", page.markdown)
    page.markdown.encode()
    for number in re.findall(r"!\[\]\(figure:(\d+)\)", page.markdown):
        assert page.regions[int(number)].label in ("image", "figure")


WORD = st.text(st.characters(categories=["Lu", "Ll", "Lo", "Nd"]), min_size=1, max_size=12)
LABEL = st.sampled_from(["text", "title", "sub_title", "table", "equation"])
COORDINATE = st.integers(-100, 1200)
BLOCK = st.tuples(LABEL, st.lists(st.tuples(*[COORDINATE] * 4), max_size=3), st.lists(WORD, min_size=1, max_size=6))


@given(st.lists(BLOCK, max_size=8))
def test_every_word_of_a_well_formed_page_comes_back_in_order(blocks: list[tuple[str, list, list[str]]]) -> None:
    text = "\n\n".join(
        f"<|ref|>{label}<|/ref|><|det|>{[list(b) for b in boxes]}<|/det|>\n{' '.join(words)}"
        for label, boxes, words in blocks
    )
    assert parse_grounding(text).markdown.split() == [word for _, _, words in blocks for word in words]


DAMAGE = st.sampled_from(
    [
        "{ref}<|det|>{box}<|/det|>\n{words}",
        "{ref}<|det|>{box}\n{words}",
        "{ref}<|det|>{box}\n{words}<|/det|>",
        "{ref}<|det|>{box}<|/det|>{words}<|/det|>",
        "{ref}<|det|><|det|>{box}<|/det|><|/det|>{words}",
        "{ref}<|det|>{words}<|/det|>",
        "{ref}<|det|>{words}",
        "{ref}{words}<|/det|>",
        "{ref}<|det|>{box}<|/det|>\n<b>{words}</b>",
        "{ref}<|det|>\n{words} <|/det|> {box}",
    ]
)
REF = st.sampled_from(["<|ref|>text<|/ref|>", "<|ref|>text<|/ref|>\n", "<|/ref|>", "<|ref|>", ""])
BOXES = st.lists(st.tuples(*[COORDINATE] * 4), min_size=1, max_size=3).map(lambda boxes: str([list(b) for b in boxes]))
CONTENT = st.lists(WORD | st.sampled_from(["1.", "(12)", "1,234.50", "[1]", "2024", "-5"]), min_size=1, max_size=6)


@given(st.lists(st.tuples(DAMAGE, REF, BOXES, CONTENT), min_size=1, max_size=5))
def test_every_word_survives_whatever_happened_to_the_tags(blocks: list[tuple[str, str, str, list[str]]]) -> None:
    text = "\n\n".join(damage.format(ref=ref, box=boxes, words=" ".join(words)) for damage, ref, boxes, words in blocks)
    left = iter(re.findall(r"[^\s<>]+", parse_grounding(text + " .").markdown))
    for damage, _, _, words in blocks:
        for word in words:
            if re.search(r"<\|det\|>\n?\{words\}", damage) and not any(sign.isalpha() for sign in word):
                continue  # numbers at the place of the boxes are boxes
            assert any(word in found for found in left), (word, text)


@given(st.text(max_size=300))
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    assert clean(clean(text)) == clean(text)
