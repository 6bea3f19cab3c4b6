r"""LaTeX as MathML, which browsers draw without a script, a font or a network.

Here belongs the step from one formula to one `<math>`, and what to do with a formula that cannot be read. What comes
out is not safe yet: latex2mathml copies `\text{<script>}` and `\href{javascript:…}` through. It is sanitised with the
rest of the page (`markup.py`).
"""

from __future__ import annotations

import re
from html import escape

from latex2mathml.converter import convert

MAX_CHARACTERS = 4000
"""Of one formula: 2,000 characters take 20 ms; a longer one is no formula but a model that went astray."""

# Environments that latex2mathml does not know, as the ones that look the same and that it does.
_ENVIRONMENT = re.compile(r"\\(begin|end)\s*\{(aligned|gathered|gather\*?|multline\*?|eqnarray\*?|equation\*?)\}")
_MARKS = re.compile(r"\\(?:label\s*\{[^{}]*\}|nonumber|notag)")


def formula(latex: str, *, display: bool) -> str:
    """HTML of one formula: a `<math>`, or the LaTeX itself as code where it cannot be read. Never raises."""
    if len(latex) > MAX_CHARACTERS:
        return _as_text(latex)
    try:
        math = convert(_prepared(latex), display="block" if display else "inline")
    except Exception:  # it raises a dozen kinds, RecursionError and IndexError among them
        return _as_text(latex)
    if "<mi>\\" in math:  # a command that it does not know
        return _as_text(latex)
    return math


def _prepared(latex: str) -> str:
    latex = _ENVIRONMENT.sub(lambda found: _environment(found[1], found[2]), _MARKS.sub("", latex))
    return latex.replace(r"\bm{", r"\boldsymbol{")


def _environment(side: str, name: str) -> str:
    if name.startswith("equation"):
        return ""
    return rf"\{side}{{align*}}"


def _as_text(latex: str) -> str:
    return f"<code>{escape(latex)}</code>"
