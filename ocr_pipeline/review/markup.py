"""A page's markdown as HTML that can be shown: the one place where model output becomes markup.

Here belong the steps from markdown to HTML (`dialect.py` says what is markup, `formulas.py` draws formulas), the
figures of a page, and the sanitiser. Whatever a step before it does, the last step is always nh3, whose lists say what
may stand on our page; nothing is put into the HTML after it. The content security policy (`guards.py`) is the second
wall, not the first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping, Sequence
from html import escape
from typing import Any, cast

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup
from mdit_py_plugins.dollarmath import dollarmath_plugin

from ocr_pipeline.review.dialect import OUTSIDE, TAGS, no_word_lost
from ocr_pipeline.review.formulas import formula

MAX_CHARACTERS = 100_000
"""Of one page, as rich text: a page of a book has 3,000. Some hostile texts cost markdown-it time that grows with the
square of their length (0.6 s for 50,000 opening brackets on the slowest machine tried). The rest is shown as it is."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MATH_TAGS = _names(
    """math menclose mfrac mi mmultiscripts mn mo mover mprescripts mroot mrow ms mspace msqrt mstyle msub msubsup msup
    mtable mtd mtext mtr munder munderover none"""
)
_ATTRIBUTES: Mapping[str, frozenset[str]] = {
    "a": frozenset({"href"}),
    "img": frozenset({"src", "alt"}),
    "li": frozenset({"value"}),
    "ol": frozenset({"start"}),
    "td": frozenset({"colspan", "rowspan", "align"}),
    "th": frozenset({"colspan", "rowspan", "align"}),
    "math": frozenset({"display"}),
    "mfrac": frozenset({"linethickness"}),
    "mi": frozenset({"mathvariant"}),
    "mn": frozenset({"mathvariant"}),
    "mo": frozenset({"stretchy", "fence", "form", "separator", "largeop", "movablelimits", "accent", "symmetric"}),
    "mover": frozenset({"accent"}),
    "munder": frozenset({"accentunder"}),
    "mspace": frozenset({"width"}),
    "mstyle": frozenset({"displaystyle", "scriptlevel"}),
    "mtable": frozenset({"columnalign"}),
    "mtd": frozenset({"columnalign"}),
}
_CLASSES: Mapping[str, frozenset[str]] = {
    "span": frozenset({"math", "inline"}),
    "div": frozenset({"math", "block"}),
}
_SCHEMES = frozenset({"http", "https", "mailto"})

_PASSES = 6  # of the sanitiser; two are the rule, three were the most ever seen
_SMALL_SPACE = re.compile(r"-?\d?(?:\.\d{1,4})?em")
_FIGURE = re.compile(r"(?:^|/)(\d{4,})-(\d{1,6})\.jpg$")
_ELEMENT = re.compile(r"</?([A-Za-z][\w-]*)")


class PageMarkup:
    """Makes HTML of the markdown of one page, block by block. `figures`: the address below which the page's figures
    are served, by region index; no other image is ever shown."""

    def __init__(self, page_number: int, figures: str) -> None:
        self._page = page_number
        self._figures = figures
        self._left = MAX_CHARACTERS
        self._markdown = (
            MarkdownIt("commonmark", {"html": True})
            .enable(["table", "strikethrough"])
            .use(dollarmath_plugin, allow_space=False, allow_digits=False, renderer=_math)
            .use(no_word_lost, formula=_math)
        )
        self._markdown.add_render_rule("image", lambda _, *token: self._image(*token))
        self._cleaner = nh3.Cleaner(
            tags=TAGS | _MATH_TAGS,
            attributes=_ATTRIBUTES,
            attribute_filter=self._attribute,
            allowed_classes=_CLASSES,
            url_schemes=_SCHEMES,
            link_rel="noopener noreferrer nofollow",
        )

    def html(self, markdown: str) -> Markup:
        """One block, sanitised. Once the page's share of rich text is used up, the text as it stands."""
        if len(markdown) > self._left:
            self._left = 0
            return Markup("<pre>{}</pre>").format(markdown)
        self._left -= len(markdown)
        return self.sanitised(self._markdown.render(markdown))

    def sanitised(self, html: str) -> Markup:
        """Only what the lists allow, and such that it means the same when it is parsed again.

        Taking out an element can leave markup that a browser reads otherwise (`<p><select><p>` leaves a paragraph in a
        paragraph, which no parser makes): the ground of "mutation XSS". So it is cleaned until nothing changes.
        """
        for _ in range(_PASSES):
            clean = self._cleaner.clean(html)
            if clean == html:
                return Markup(clean)  # noqa: S704  this is the sanitiser
            html = clean
        return Markup("<pre>{}</pre>").format(html)

    @property
    def cut(self) -> bool:
        """Whether a part of the page was too long to be shown as rich text."""
        return self._left == 0

    def _image(self, tokens: Sequence[Token], index: int, options: Any, env: MutableMapping[str, Any]) -> str:
        token = tokens[index]
        renderer = cast(RendererHTML, self._markdown.renderer)
        alt = renderer.renderInlineAsText(token.children or [], options, env)
        address = self._figure(str(token.attrs.get("src", "")))
        if address is None:
            return f"<span>[picture: {escape(alt)}]</span>" if alt else "<span>[picture]</span>"
        return f'<img src="{escape(address)}" alt="{escape(alt or "figure")}">'

    def _figure(self, link: str) -> str | None:
        """The address of a figure of this page; None for any other picture. See `flow.documents._figure_links`."""
        found = _FIGURE.search(link)
        return f"{self._figures}/{int(found[2])}" if found and int(found[1]) == self._page else None

    def _attribute(self, tag: str, name: str, value: str) -> str | None:
        if name not in _ATTRIBUTES.get(tag, ()) and name not in ("class", "rel"):  # checked or set by nh3 itself
            return None  # nh3 lets "title" and "lang" stand on everything
        if (tag, name) == ("a", "href"):
            return value if OUTSIDE.match(value) else None
        if (tag, name) == ("img", "src"):
            index = value.removeprefix(f"{self._figures}/")
            return value if index != value and index.isascii() and index.isdigit() else None
        if name == "width":
            return value if _SMALL_SPACE.fullmatch(value) else None
        return value


def _math(content: str, options: Mapping[str, Any] | None = None) -> str:
    r"""The formula, or its LaTeX where it has brought HTML with it (`\text{<Name>}`), which would be taken out."""
    html = formula(content, display=bool((options or {}).get("display_mode")))
    return html if _MATH_TAGS.issuperset(_ELEMENT.findall(html)) else f"<code>{escape(content)}</code>"


def figure_index(block: str, page_number: int) -> int | None:
    """The region index where a block of markdown is nothing but a figure of this page; None where it is not."""
    found = _FIGURE_BLOCK.fullmatch(block.strip())
    return int(found[2]) if found and int(found[1]) == page_number else None


_FIGURE_BLOCK = re.compile(r"!\[[^\[\]\n]{0,500}\]\(<?[^<>\n]{0,2000}?(\d{4,8})-(\d{1,6})\.jpg>?\)")
