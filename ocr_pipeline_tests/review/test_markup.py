"""Markdown of a page as HTML: what must be there, and what must never be."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_pipeline.review.dialect import TAGS
from ocr_pipeline.review.markup import _ATTRIBUTES, _CLASSES, _MATH_TAGS, MAX_CHARACTERS, PageMarkup
from ocr_pipeline_tests.review.shelves import HOSTILE

FIGURES = "/documents/d1/pages/3/figures"


def html(markdown: str) -> str:
    return str(PageMarkup(3, FIGURES).html(markdown))


class Elements(HTMLParser):
    """Every tag and attribute of a piece of HTML, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.text += " "  # cells stand apart

    def handle_data(self, data: str) -> None:
        self.text += data


def text(markdown: str) -> str:
    """What a reader sees of it, on one line."""
    return " ".join(Elements(html(markdown)).text.split())


def is_harmless(text: str) -> bool:
    for tag, attributes in Elements(text).found:
        if tag not in TAGS | _MATH_TAGS:
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


def test_of_a_hostile_page_the_words_are_left_and_nothing_that_does_something() -> None:
    shown = html(HOSTILE)
    assert is_harmless(shown)
    assert "<script>window.__canary = 1</script>" in text(HOSTILE)
    assert "after the hostile part" in text(HOSTILE)


@pytest.mark.parametrize(
    "markdown",
    [
        "vector<int> x and more words",
        "Dear <Name>, use map<string> as in <section> 3",
        "#include <stdio.h> and a <b and c> d",
        "a <math> b </math> c <svg> d <textarea> e <title> f <select> g <script> h",
        "before <!-- no comment\n\nafter --> it <? and ?> <![CDATA[ x ]]> <!DOCTYPE y>",
        "<table><tr><td>List<int></td><td>a < b</td></tr></table>",
        "<title> alone\nand the next line",
        "[1]: Introduction",
        "f[i](x) and [see](chapter two.pdf)",
        r"$\text{<Name>}$",
    ],
)
def test_what_only_looks_like_markup_is_shown_as_it_stands(markdown: str) -> None:
    words = [word for word in re.split(r"[\s$]|</?t[dra]\w*>", markdown) if word]
    assert [word for word in words if word not in text(markdown)] == []


def test_a_list_begins_after_a_line_that_looks_like_a_tag() -> None:
    assert html("<Name>\n- one\n- two").count("<li>") == 2


def test_points_of_a_list_keep_their_numbers() -> None:
    assert re.findall(r"<li value=\"(\d+)\">", html("3. a\n7. b\n7. c")) == ["3", "7", "7"]


def test_a_row_that_is_longer_than_the_head_keeps_its_last_cells() -> None:
    shown = html("| a | b |\n|---|---|\n| 1 | 2 | **3** | 4 |\n| 5 |")
    assert "<td>2</td>\n<td><strong>3</strong></td>\n<td>4</td>" in shown
    assert shown.count("<tr>") == 3


WORDS = st.one_of(
    st.text("klmnor", min_size=3, max_size=6).map(lambda word: f"x{word}"),
    st.sampled_from(["int", "text", "list", "set", "title", "script", "style", "textarea", "select", "math", "svg"]),
)
AROUND = [
    *("{}", "<{}>", "</{}>", "<{}", "{}>", "<{} ", "<b {}>", "<{}/>", "<!-- {}", "<!-- {} -->", "<?{}?>", "<!{}>"),
    *("[{}]", "[{}]: {}", "[{}]({})", "[{}](<{}> '{}')", "[{}][{}]", "| {} | {} |", "\n|---|---|\n", "|{}|{}|{}|{}|"),
    *("```{} {}\n{}\n```", "~~~ {}", "<table><tr><td>{}", "</td></tr></table>", "<td>", "<pre>", "</pre>", "<p>{}"),
    *("# {}", "- {}", "> {}", "1. {}", "    {}", "*{}*", "__{}", "`{}`", "~~{}~~", "\\{}", "\n", "\n\n", "{}\n---\n"),
    *("<![CDATA[{}]]>", "<center>{}", "</div>", "<a href='{}", '"', "<col>", "<ruby>{}<rt>{}"),
]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(AROUND), st.lists(WORDS, min_size=4, max_size=4)), max_size=12), st.data())
def test_every_word_of_the_input_stands_in_the_text_of_the_output(
    pieces: list[tuple[str, list[str]]], data: st.DataObject
) -> None:
    markdown, wanted = "", Counter[str]()
    for around, words in pieces:
        taken = words[: around.count("{}")]
        wanted.update(taken)
        markdown += around.format(*taken) + data.draw(st.sampled_from((" ", "\n", "\n\n")))
    shown = Counter(re.findall(r"[a-z]+", text(markdown)))
    assert {word: shown[word] for word in wanted} == dict(wanted)


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
