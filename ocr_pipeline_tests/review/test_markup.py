"""Markdown of a page as HTML: what must be there, and what must never be."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_pipeline.review.markup import _ATTRIBUTES, _CLASSES, _MATH_TAGS, _TEXT_TAGS, MAX_CHARACTERS, PageMarkup
from ocr_pipeline_tests.review.shelves import HOSTILE

FIGURES = "/documents/d1/pages/3/figures"


def html(markdown: str) -> str:
    return str(PageMarkup(3, FIGURES).html(markdown))


class Elements(HTMLParser):
    """Every tag and attribute of a piece of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def is_harmless(text: str) -> bool:
    for tag, attributes in Elements(text).found:
        if tag not in _TEXT_TAGS | _MATH_TAGS:
            return False
        for name, value in attributes.items():
            if name == "href":
                if not re.match(r"https?://|mailto:", value or "", re.IGNORECASE):
                    return False
            elif name == "src":
                if not re.fullmatch(rf"{FIGURES}/\d+", value or ""):
                    return False
            elif name == "class":
                if not set((value or "").split()) <= _CLASSES.get(tag, frozenset()):
                    return False
            elif name != "rel" and name not in _ATTRIBUTES.get(tag, frozenset()):
                return False
    return True


def test_tables_headings_lists_and_emphasis_are_rendered() -> None:
    shown = html("# Head\n\n| a | b |\n|---|---|\n| 1 | **2** |\n\n- one\n- two")
    assert "<h1>Head</h1>" in shown
    assert "<td><strong>2</strong></td>" in shown
    assert shown.count("<li>") == 2


def test_a_table_that_the_model_wrote_as_html_is_a_table_and_formulas_in_its_cells_are_formulas() -> None:
    shown = html("<table><tr><td colspan=2>Rise</td><td>$x^2$</td></tr></table>")
    assert '<td colspan="2">Rise</td>' in shown
    assert "<msup><mi>x</mi><mn>2</mn></msup>" in shown


@pytest.mark.parametrize(
    ("latex", "part"),
    [
        (r"\frac{a}{b}", "<mfrac>"),
        (r"\sum_{i=1}^{n} x_i", "<munderover>"),
        (r"\begin{aligned} a &= b \\ c &= d \end{aligned}", "<mtable"),
        (r"\sqrt{\alpha}", "<msqrt>"),
    ],
)
def test_formulas_are_mathml_on_a_line_and_within_one(latex: str, part: str) -> None:
    assert part in html(f"so ${latex}$ holds").replace("<munder>", "<munderover>").replace("<msubsup>", "<munderover>")
    assert 'display="block"' in html(f"$${latex}$$")


def test_prices_are_no_formulas() -> None:
    assert "<math" not in html("It costs $5 and then $10 more.")


@pytest.mark.parametrize("latex", [r"\notacommand{x}", "{" * 900, r"\frac", "x" * 5000, r"\begin{aligned"])
def test_a_formula_that_cannot_be_read_is_shown_as_it_stands(latex: str) -> None:
    assert f"<code>{latex}</code>" in html(f"$${latex}$$")


def test_nothing_of_a_hostile_page_but_its_words_is_left() -> None:
    shown = html(HOSTILE)
    assert is_harmless(shown)
    assert "canary" not in shown.replace("[link](javascript:window.__canary=4)", "")
    assert "after the hostile part" in shown


FRAGMENTS = [
    *(
        "<script>",
        "</script>",
        "<img src=x onerror=a()>",
        '<a href="',
        "javascript:a()",
        '">',
        "'",
        "<style>",
        "</style>",
    ),
    *(
        "<math>",
        "<mtext>",
        "</mtext>",
        "<mglyph>",
        "<annotation-xml encoding='text/html'>",
        "<svg>",
        "<table>",
        "</table>",
    ),
    *(
        "<!--",
        "-->",
        "<title>",
        "</title>",
        "<noscript>",
        "<textarea>",
        "<form>",
        "<div class='math'>",
        "<![CDATA[",
        "]]>",
    ),
    *(
        "$",
        "$$",
        "`",
        "```\n",
        "\n\n",
        "# ",
        "|",
        "![",
        "](",
        ")",
        r"\text{",
        "}",
        r"\href{javascript:a()}{",
        "x",
        "&lt;",
    ),
    *(
        " onload=a()",
        'style="x"',
        "<td ",
        "<p>",
        "&#106;avascript:",
        "\x00",
        "<a href=//evil.example>",
        "<select>",
        "<xmp>",
    ),
]


@settings(deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join))
def test_no_mixture_of_hostile_pieces_gets_past_the_lists(markdown: str) -> None:
    shown = html(markdown)
    assert is_harmless(shown)
    assert PageMarkup(3, FIGURES)._cleaner.clean(shown) == shown  # parsed again it is the same: nothing mutates


def test_a_figure_of_this_page_is_shown_and_no_other_picture_in_the_world() -> None:
    assert f'<img src="{FIGURES}/4" alt="wires"' in html("![wires](<a b.pdf.files/0003-4.jpg>)")
    for other in ("a.files/0002-4.jpg", "https://x.example/0003-4.png", "/static/icon.svg", "//x.example/a.jpg"):
        assert "<img" not in html(f"![wires](<{other}>)")
    assert "src" not in html('<img src="/documents/d1/pages/3/image" alt="x">')


def test_links_go_outside_only_and_tell_nobody_where_from() -> None:
    assert 'href="https://a.example/"' in html("[a](https://a.example/)")
    assert 'rel="noopener noreferrer nofollow"' in html("[a](https://a.example/)")
    for address in ("/retry", "javascript:a()", "data:text/html,x", "//b.example", "file:///etc/passwd", "#main"):
        assert "href" not in html(f'<a href="{address}">a</a>')


def test_a_very_long_page_is_shown_whole_its_end_as_plain_text() -> None:
    markup = PageMarkup(1, FIGURES)
    first, second = markup.html("*a* " * 1000), markup.html("*b* " * (MAX_CHARACTERS // 4))
    assert "<em>a</em>" in first
    assert second.count("*b*") == MAX_CHARACTERS // 4
    assert markup.cut


@pytest.mark.parametrize(
    "piece", ["[", "*a_ ", "`a", "$a", "$$a\n", "![a](", "<div>", "<b><i>", "> ", "~~a", "|a", "- \n"]
)
def test_hostile_repetition_comes_to_an_end(piece: str) -> None:
    assert html(piece * (20_000 // len(piece))) is not None
