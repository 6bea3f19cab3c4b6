"""From a transcript to the page as people read it: finds the parser of its format.

Parsing is not part of the recipe: a better parser runs again over the raw texts that are there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from ocr_pipeline.ocr.layout.lines_to_page import parse_lines
from ocr_pipeline.ocr.parsing.formats import parse_front_matter, parse_json_layout, parse_markdown
from ocr_pipeline.ocr.parsing.grounding import parse_grounding
from ocr_pipeline.records import ParsedPage, Transcript


def parse(transcript: Transcript) -> ParsedPage:
    """Markdown and regions of a transcript; an empty page for one without a text. Never raises for a text."""
    return parse_text(transcript.text, transcript.format, transcript.width, transcript.height)


def parse_text(text: str, format: str, width: int, height: int) -> ParsedPage:
    """The same for a text that is no transcript yet. A format that is not known is read as markdown: a transcript of
    a newer release must not stop an older one."""
    # One page is asked for by the ladder, the tables, the markdown and the figures, one after the other.
    return _parsed(text, format, width, height) if len(text) <= LARGEST_KEPT else _parse(text, format, width, height)


def _parse(text: str, format: str, width: int, height: int) -> ParsedPage:
    if not text.strip():
        return ParsedPage("")
    return FORMATS.get(format, parse_markdown)(text, width, height)


LARGEST_KEPT = 100_000  # characters; a page of 8,192 tokens has fewer
_parsed = lru_cache(maxsize=64)(_parse)


def _grounding(text: str, width: int, height: int) -> ParsedPage:
    return parse_grounding(text)


FORMATS: Mapping[str, Callable[[str, int, int], ParsedPage]] = {
    "grounding": _grounding,
    "markdown": parse_markdown,
    "lines": parse_lines,
    "json_layout": parse_json_layout,
    "front_matter": parse_front_matter,
}
