"""Values as a person reads them, and the templates that they go into.

Here belong the template environment (escaping is always on) and its filters. HTML is made in templates only, but for a
page's own markup (`markup.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ocr_pipeline.printable import printable
from ocr_pipeline.records import REASONS, Reason
from ocr_pipeline.review import charts, links

NOTHING = "–"


def environment() -> Environment:
    """The templates with their filters. One for each app."""
    found = Environment(
        loader=PackageLoader("ocr_pipeline.review"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        printable=printable,
        file_name=file_name,
        folder=folder,
        when=when,
        seconds=seconds,
        share=share,
        size=size,
        count=lambda value: f"{value:,}",
        number=charts.number,
        usd=usd,
        in_words=in_words,
        marked=marked,
        with_query=links.with_query,
    )
    found.globals.update(links=links, nothing=NOTHING)
    return found


def file_name(uri: str) -> str:
    return printable(uri.rstrip("/").rsplit("/", 1)[-1] or uri)


def folder(uri: str) -> str:
    """The part before the name, from the inbox on where there is one."""
    path = uri.rsplit("/", 1)[0] if "/" in uri else ""
    _, inbox, below = path.partition("/inbox")
    return printable(f"inbox{below}" if inbox and below[:1] in ("", "/") else path)


def when(value: datetime | None) -> str:
    return value.strftime("%Y-%m-%d %H:%M") if value else NOTHING


def seconds(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return NOTHING
    if value >= 5400:
        return f"{value / 3600:.1f} h"
    if value >= 100:
        return f"{value / 60:.1f} min"
    return f"{value:.1f} s"


def share(value: float | None) -> str:
    return NOTHING if value is None or not math.isfinite(value) else f"{value:.2f}"


def size(value: int) -> str:
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= step:
            return f"{value / step:.1f} {unit}"
    return f"{value} B"


def usd(value: float | None) -> str:
    return NOTHING if value is None else f"${value:,.2f}" if value >= 0.1 else f"${value:.4f}"


def in_words(reason: str | None) -> str:
    """What a reason code means; "" for one that this release does not know."""
    try:
        return REASONS[Reason(reason)] if reason else ""
    except (ValueError, KeyError):
        return ""


def marked(text: str, words: Sequence[str]) -> Markup:
    """The text, escaped, with every place of a word in `<mark>`."""
    out, lower = [], text.lower()
    wanted = [word.lower() for word in words if word]
    if len(lower) != len(text):  # a few letters change their length: no marks rather than wrong ones
        return escape(text)
    place = 0
    while place < len(text):
        found = min(
            ((at, -len(word)) for word in wanted if (at := lower.find(word, place)) >= 0),
            default=None,
        )
        if found is None:
            break
        start, end = found[0], found[0] - found[1]
        out += [escape(text[place:start]), Markup("<mark>{}</mark>").format(text[start:end])]
        place = end
    return Markup("").join([*out, escape(text[place:])])


def render(environment: Environment, template: str, values: Mapping[str, Any]) -> str:
    return environment.get_template(template).render(values)
