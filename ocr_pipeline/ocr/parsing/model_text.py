"""What a model wrote as markdown that can be stored and shown: control characters, leaked tokens, formulas, spacing.

Here belongs what holds for every output format. Boxes and tags are in grounding.py and formats.py; HTML is left as it
is, to be sanitised where it is shown. Everything is linear in the length of the text, whatever the text.
"""

from __future__ import annotations

import re

# C0 and C1 but tab and line feed; marks that turn the direction of what follows, with which text can hide text; the
# byte order mark; half characters, which no file takes.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LINE_END = re.compile("\r\n?|\x0b|\x0c|\x85|\u2028|\u2029")

# <|ref|>, <|end_of_text|>, <｜end▁of▁sentence｜>: no text has these, a tokenizer's special tokens do.
_TOKEN = re.compile(r"<[|｜]/?[A-Za-z0-9_▁\- ]{1,40}[|｜]>")

_CENTER = re.compile(r"</?center>")
_OWN_LINK = re.compile(r"\(figure:(?=\d)")  # only the parser links figures; a model's words must not pass for it


def clean(text: str) -> str:
    """The text of a block or a page. Keeps the words; idempotent but for formulas already converted."""
    if not text.strip():
        return ""
    text = _LINE_END.sub("\n", text)
    text = _SURROGATE.sub("\ufffd", _INVISIBLE.sub("", text))
    text = without_tokens(text)
    text = _CENTER.sub("", text).replace("\\coloneqq", ":=").replace("\\eqqcolon", "=:")
    text = _OWN_LINK.sub("(figure: ", text)
    return spaced(formulas(text))


def without_tokens(text: str) -> str:
    """Special tokens taken out, also one that only comes to be when another goes."""
    for _ in range(3):
        text, found = _TOKEN.subn("", text)
        if not found:
            return text
    return text.replace("<|", "< |").replace("<｜", "< ｜")


def spaced(text: str) -> str:
    """No space at the ends of lines, no empty line twice, none at either end."""
    lines = [line.rstrip() for line in text.split("\n")]
    kept = [line for line, before in zip(lines, ["", *lines], strict=False) if line or before]
    return "\n".join(kept).strip("\n")


_FORMULA_MARK = re.compile(r"\\\\|\\[()\[\]]")  # a double backslash is a line break within a formula: \\[2pt]
_CLOSES = {r"\(": r"\)", r"\[": r"\]"}


def formulas(text: str) -> str:
    r"""`\( \)` and `\[ \]` become `$ $` and `$$ $$`.

    CommonMark takes `\(` for an escaped bracket and shows the formula without its mark; the dollars are what GitHub,
    KaTeX, MathJax and pandoc read. An opening mark without its end, and a formula that has a dollar itself, stay.
    """
    out: list[str] = []
    done = 0
    opened: re.Match[str] | None = None
    for mark in _FORMULA_MARK.finditer(text):
        kind = mark.group()
        if kind in _CLOSES:
            opened = mark
        elif opened is not None and kind == _CLOSES[opened.group()]:
            inner = text[opened.end() : mark.start()].strip()
            if inner and "$" not in inner and "\n\n" not in inner:
                dollars = "$" if kind == r"\)" else "$$"
                out += (text[done : opened.start()], dollars, " ".join(inner.split("\n")), dollars)
                done = mark.end()
            opened = None
    return "".join((*out, text[done:]))
