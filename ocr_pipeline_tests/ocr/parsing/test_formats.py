"""Other families' output, and the one door to all formats."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_pipeline.ocr.parsing.formats import parse_front_matter, parse_json_layout, parse_markdown
from ocr_pipeline.ocr.parsing.parse import FORMATS, parse
from ocr_pipeline.ocr.vllm.models import MODELS
from ocr_pipeline.records import PageStatus, ParsedPage, Region, Transcript

T = pytest.mark.parametrize

LAYOUT = [
    {"bbox": [140, 28, 700, 84], "category": "Title", "text": "# Report"},
    {"bbox": [140, 112, 700, 280], "category": "Picture"},
    {"bbox": [140, 308, 700, 336], "category": "Formula", "text": "E = mc^2"},
    {"bbox": [140, 364, 700, 700], "category": "Table", "text": "<table><tr><td>1</td></tr></table>"},
    {"bbox": [140, 728, 700, 756], "category": "Section-header", "text": "## Next"},
]
MARKDOWN = "# Report\n\n![](figure:1)\n\n$$E = mc^2$$\n\n<table><tr><td>1</td></tr></table>\n\n## Next"


def test_a_json_layout_becomes_markdown_and_regions() -> None:
    page = parse_json_layout(json.dumps(LAYOUT), 1400, 1400)
    assert page.markdown == MARKDOWN
    assert [region.label for region in page.regions] == ["title", "image", "equation", "table", "sub_title"]
    assert page.regions[0] == Region("title", 0.1, 0.02, 0.5, 0.06, "# Report")


def test_pixels_are_those_of_the_image_the_server_made_of_ours() -> None:
    """Qwen2-VL rounds each side to a multiple of 28: 1654 x 2339 becomes 1652 x 2352."""
    [region] = parse_json_layout('[{"bbox": [0, 0, 1652, 2352], "category": "Text", "text": "x"}]', 1654, 2339).regions
    assert (region.x1, region.y1) == (1.0, 1.0)


@T("wrapped", ["```json\n{}\n```", "  {}\n", "{}"])
def test_a_fence_around_the_answer_is_taken_off(wrapped: str) -> None:
    assert parse_json_layout(wrapped.format(json.dumps(LAYOUT)), 1400, 1400).markdown == MARKDOWN


def test_a_layout_that_was_cut_off_gives_the_elements_before_the_cut() -> None:
    page = parse_json_layout(json.dumps(LAYOUT)[:-40], 1400, 1400)
    assert [region.label for region in page.regions] == ["title", "image", "equation", "table"]


@T(
    "text",
    ["Plain words.", "[1, 2]", "{", "[{]", '{"a": 1}', "[" * 100_000, '{"a":' * 50_000, "A { brace", "null", '"x"'],
)
def test_what_is_no_layout_is_markdown(text: str) -> None:
    page = parse_json_layout(text, 100, 100)
    assert page == parse_markdown(text, 1000, 1000)
    assert page.markdown


@T(
    "bbox",
    [None, [], [1, 2, 3], ["1", 2, 3, 4], [True, 0, 5, 5], [0, 0, 1e400, 5], [5, 5, 5, 5], {"x": 1}, [[1], 2, 3, 4]],
)
def test_an_element_without_a_box_keeps_its_text(bbox: object) -> None:
    page = parse_json_layout(json.dumps([{"bbox": bbox, "category": 5, "text": "words"}]), 100, 100)
    assert page == ParsedPage("words")


FRONT = "---\nprimary_language: en\nis_rotation_valid: True\nrotation_correction: 0\nis_table: False\n---\n"


def test_front_matter_is_no_part_of_the_page_and_figures_become_regions() -> None:
    page = parse_front_matter(FRONT + "# A\n\n![A curve](page_100_200_300_400.png)\n\n\\(x\\)", 1000, 1000)
    assert page.markdown == "# A\n\n![A curve](figure:0)\n\n$x$"
    assert page.regions == (Region("image", 0.1, 0.2, 0.4, 0.6, "A curve"),)


@T(
    ("text", "markdown"),
    [
        (FRONT, ""),
        (FRONT + "null", ""),
        ("no front", "no front"),
        ("---\nrule above", "---\nrule above"),
        (FRONT[:-4] + "cut off", FRONT[:-4] + "cut off"),
        ("![x](page_9999_0_10_10.png) words", "x words"),
        ("![](https://evil.example/x.png)", "![](https://evil.example/x.png)"),
    ],
)
def test_odd_front_matter_loses_no_word(text: str, markdown: str) -> None:
    assert parse_front_matter(text, 1000, 1000).markdown == markdown


def transcript(text: str, format: str) -> Transcript:
    return Transcript(
        recipe_id="r",
        image_sha256="s",
        status=PageStatus.OK,
        text=text,
        format=format,
        engine="vllm",
        backend="b",
        model="m",
        width=1400,
        height=1400,
        finished_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def test_a_transcript_is_parsed_by_its_own_format() -> None:
    assert parse(transcript(json.dumps(LAYOUT), "json_layout")).markdown == MARKDOWN
    assert parse(transcript("<|ref|>text<|/ref|><|det|>[[1,2,3,4]]<|/det|>x", "grounding")).markdown == "x"
    assert parse(transcript(FRONT + "x", "front_matter")).markdown == "x"
    assert parse(transcript("x", "a format of a later release")).markdown == "x"


def test_every_model_has_a_parser() -> None:
    assert {model.format for model in MODELS.values()} <= set(FORMATS)


@T("format", [*FORMATS, "unknown"])
@given(text=st.text(max_size=200))
def test_no_text_stops_a_parser(format: str, text: str) -> None:
    page = parse(transcript(text, format))
    page.markdown.encode()
    for region in page.regions:
        assert 0 <= region.x0 <= region.x1 <= 1
