"""The markdown that pages are written in: CommonMark, tables, HTML tags as models write them, and no word lost.

Here belongs what counts as markup. Markdown and HTML hide words by design: a tag that is not known, a comment, the
target of a link, a cell too many. On a page that was read, all of that is text: `vector<int>`, `Dear <Name>`,
`[1]: Introduction`, `f[i](x)`. So markup is only what is on the list here and complete; the rest is shown as it stands.
Not here: what is safe. The sanitiser (`markup.py`) comes last, whatever is let through here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, MutableMapping, Sequence
from html import escape, unescape
from typing import Any
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock, html_block, table
from markdown_it.rules_block.table import escapedSplit, getLine
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline, html_inline
from markdown_it.token import Token

TAGS = frozenset(
    """a abbr b bdi bdo big blockquote br caption center code col colgroup dd del dfn div dl dt em figcaption figure
    font h1 h2 h3 h4 h5 h6 hr i img ins kbd li mark ol p pre q rt ruby s samp small span strike strong sub sup table
    tbody td tfoot th thead tr tt u ul var wbr""".split()  # noqa: SIM905
)
"""HTML tags that are markup in a page's text."""

OUTSIDE = re.compile(r"(?i:https?://|mailto:)")
"""How the address of a link that leads somewhere begins."""

_NAME = "|".join(sorted(TAGS))
# An attribute has a value, or `a <b and c> d` would be a tag with two attributes; these few never have one.
_ATTRIBUTE = r"""\s+(?:[a-zA-Z_:][\w:.-]*\s*=\s*(?:[^"'=<>`\x00-\x20]+|'[^']*'|"[^"]*")|nowrap|reversed|compact)"""
_TAG = re.compile(rf"<(?:(?:{_NAME})(?:{_ATTRIBUTE})*\s*/?|/(?:{_NAME})\s*)>", re.IGNORECASE | re.ASCII)
_DOLLARS = re.compile(r"(?<![\\$\w])\$\$?(?!\s)([^$\n]{1,1000}?)(?<![\s\\])\$\$?(?![\w$])")


def no_word_lost(markdown: MarkdownIt, formula: Callable[[str], str]) -> None:
    """A plugin of markdown-it. `formula`: HTML of the LaTeX of a formula that stands among HTML tags."""
    markdown.disable("reference")
    markdown.block.ruler.at("table", _table, {"alt": ["paragraph", "reference"]})
    markdown.block.ruler.at("html_block", _html_block, {"alt": ["paragraph", "reference", "blockquote"]})
    markdown.inline.ruler.at("html_inline", _html_inline)
    markdown.core.ruler.push("links_and_numbers", _links_and_numbers)
    markdown.add_render_rule("fence", _fence)
    markdown.add_render_rule("html_block", lambda _, tokens, index, *rest: _shown(tokens[index].content, formula))


def _html_inline(state: StateInline, silent: bool) -> bool:
    return _TAG.match(state.src, state.pos, state.posMax) is not None and html_inline(state, silent)


def _html_block(state: StateBlock, first: int, end: int, silent: bool) -> bool:
    """Begins with a tag of ours: `<script>` would take everything to the end, `<title>` the list that follows."""
    start = state.bMarks[first] + state.tShift[first]
    return _TAG.match(state.src, start) is not None and html_block(state, first, end, silent)


def _shown(html: str, formula: Callable[[str], str]) -> str:
    """A block of HTML with only our tags in it. Markdown does not look into HTML, but a table's cells hold formulas."""
    pieces, place = [], 0
    for tag in _TAG.finditer(html):
        pieces += [_words(html[place : tag.start()], formula), tag[0]]
        place = tag.end()
    return "".join([*pieces, _words(html[place:], formula)])


def _words(text: str, formula: Callable[[str], str]) -> str:
    pieces, place = [], 0
    for found in _DOLLARS.finditer(text):
        pieces += [text[place : found.start()].replace("<", "&lt;"), formula(unescape(found[1]))]
        place = found.end()
    return "".join([*pieces, text[place:].replace("<", "&lt;")])


def _table(state: StateBlock, first: int, end: int, silent: bool) -> bool:
    """A row keeps the cells that it has beyond the head's; CommonMark's tables drop them."""
    before = len(state.tokens)
    if not table(state, first, end, silent):
        return False
    if not silent:
        state.tokens[before:] = _whole_rows(state, state.tokens[before:])
    return True


def _whole_rows(state: StateBlock, tokens: Sequence[Token]) -> list[Token]:
    whole: list[Token] = []
    line, seen = 0, 0
    for token in tokens:
        if token.type == "tr_open" and token.map:
            line, seen = token.map[0], 0
        elif token.type == "td_open":
            seen += 1
        elif token.type == "tr_close" and seen:
            for text in _cells(getLine(state, line))[seen:]:
                inline = Token("inline", "", 0, map=[line, line + 1], content=text, children=[], level=token.level + 2)
                opened = Token("td_open", "td", 1, block=True, level=token.level + 1)
                whole += [opened, inline, Token("td_close", "td", -1, block=True, level=token.level + 1)]
        whole.append(token)
    return whole


def _cells(line: str) -> list[str]:
    cells = escapedSplit(line.strip())
    cells = cells[1:] if cells and not cells[0] else cells
    return [cell.strip() for cell in (cells[:-1] if cells and not cells[-1] else cells)]


def _links_and_numbers(state: StateCore) -> None:
    """A link that leads nowhere is text, target and all; and each point of a list keeps the number that was read."""
    for token in state.tokens:
        if token.type == "list_item_open" and token.info.isdigit():
            token.attrSet("value", token.info)
        elif token.type == "inline" and token.children:
            ends: list[str | None] = []  # of the open links: the text in place of an end
            for child in token.children:
                if child.type == "link_open":
                    ends.append(_end_of(child))
                    if ends[-1] is not None:
                        child.type, child.tag, child.nesting, child.content = "text", "", 0, "["
                elif child.type == "link_close" and ends and (text := ends.pop()) is not None:
                    child.type, child.tag, child.nesting, child.content = "text", "", 0, text


def _end_of(link: Token) -> str | None:
    address = str(link.attrs.get("href", ""))
    if link.markup == "autolink" or OUTSIDE.match(address):
        return None
    title = link.attrs.get("title")
    return f"]({unquote(address)}" + (f' "{title}")' if title else ")")


def _fence(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: MutableMapping[str, Any]
) -> str:
    """With what stands behind the opening fence: on a page that was read it is seldom the name of a language."""
    info = unescape(tokens[index].info).strip()
    head = f"{escape(info)}\n" if info else ""
    return f"<pre><code>{head}{escape(tokens[index].content)}</code></pre>\n"
