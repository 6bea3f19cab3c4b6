"""Is what a model said the text of the page? A verdict with its reason, and a score to choose by. Pure.

Here belongs the judging of one text. What is tried next is the ladder's; loops have their own file (repetition.py).
A verdict never rests on the text layer alone: agreement raises or lowers the score, and clears a text of looking like
a loop, since a loop's words stand in no layer so often.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ocr_pipeline.ocr.parsing.grounding import FIGURE_LABELS
from ocr_pipeline.ocr.parsing.parse import parse_text
from ocr_pipeline.ocr.quality.agreement import agreement as words_agreement
from ocr_pipeline.ocr.quality.repetition import find_loop
from ocr_pipeline.records import PageImage, ParsedPage, Reason

INK_OF_A_WORD = 0.0002  # share of an A4 page that one word of 11 points covers with ink
CLEARED_BY_LAYER = 0.9  # agreement from which a text that looks like a loop is the page's own


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason is None`: the text is good. `score`, 0 to 1, orders the tries of one page."""

    reason: Reason | None
    score: float
    detail: str = ""
    agreement: float | None = None  # with the text layer; None where there is none to speak of


def judge(text: str, finish_reason: str | None, image: PageImage, format: str) -> Verdict:
    """Judges the raw answer of a model for a page image. `format` is the model profile's."""
    parsed = parse_text(text, format, image.width, image.height)
    words = plain(parsed.markdown)
    agreed = words_agreement(words, image.text_layer)
    reason, detail, worth = _fault(text, words, parsed, finish_reason, image.ink, agreed)
    score = worth if agreed is None else worth * (0.6 + 0.4 * agreed)
    return Verdict(reason, round(min(max(score, 0.0), 1.0), 4), detail, agreed)


def _fault(
    raw: str, words: str, parsed: ParsedPage, finish_reason: str | None, ink: float, agreed: float | None
) -> tuple[Reason | None, str, float]:
    """`(reason, detail, worth from 0 to 1)`."""
    if finish_reason == "repetition":
        return Reason.REPETITION, "the server stopped a loop", 0.2
    loop = find_loop(parsed.markdown)
    if finish_reason == "length":
        if loop is not None:
            return Reason.REPETITION, f"{loop.pattern!r} {loop.times:.0f} times", 0.3 * (1 - loop.share)
        return Reason.TRUNCATED, "cut off at the length limit", 0.5
    if loop is not None and not (agreed is not None and agreed >= CLEARED_BY_LAYER):
        return Reason.REPETITION, f"{loop.pattern!r} {loop.times:.0f} times", 0.4 * (1 - loop.share)
    if not _WORD.search(words) and not _has_figure(parsed) and ink >= INK_OF_A_WORD:
        return Reason.EMPTY_TEXT, f"no word for a page with {ink:.2%} ink", 0.0
    if garbage := _garbage(raw, words):
        return Reason.GARBAGE, garbage, 0.1
    return None, "", 1.0 - _blemishes(raw, words)


_WORD = re.compile(r"\w")


def _has_figure(parsed: ParsedPage) -> bool:
    return any(region.label in FIGURE_LABELS for region in parsed.regions)


_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")
_LINK = re.compile(r"!\[[^\[\]\n]{0,300}\]\([^()\n]{0,300}\)")


def plain(markdown: str) -> str:
    """The words of a page: without HTML tags and figure links."""
    return _LINK.sub(" ", _TAG.sub(" ", markdown))


# -- garbage -----------------------------------------------------------------------------------------------------------

# What a server leaves of the tags when it strips special tokens: "text[[56, 148, 941, 202]]". Table cells are special
# tokens too and are lost with them, so that the text cannot be mended.
_STRIPPED = re.compile(r"^\w{1,30}\[\[\d{1,4}, ?\d{1,4}, ?\d{1,4}, ?\d{1,4}\]", re.MULTILINE)
# UTF-8 read as Latin-1 or Windows-1252, once ("Ã¼", "â€™") or after a loss ("ï¿½").
_MOJIBAKE = re.compile("[ÃÂ][\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]|â€|ï¿½")

# Scripts whose letters never share a word, as ranges of code points. Greek stands beside Latin in formulas, and CJK
# beside Latin in any text, so neither counts.
_SCRIPTS = (
    (0x0041, 0x024F),  # Latin
    (0x0400, 0x052F),  # Cyrillic
    (0x0530, 0x058F),  # Armenian
    (0x0590, 0x05FF),  # Hebrew
    (0x0600, 0x077F),  # Arabic
    (0x0900, 0x0DFF),  # the scripts of India
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x10A0, 0x10FF),  # Georgian
    (0x1200, 0x139F),  # Ethiopic
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # kana
    (0xAC00, 0xD7AF),  # Hangul
)


def _garbage(raw: str, words: str) -> str | None:
    """Why this is no text, None where it is one."""
    if "<|det|>" not in raw and (stripped := len(_STRIPPED.findall(raw))):
        return f"{stripped} box(es) without their tags: the server strips special tokens"
    visible = sum(map(len, words.split()))
    if not visible:
        return None
    lost = _lost_characters(words)
    if lost >= 3 and lost > 0.02 * visible:
        return f"{lost} of {visible} characters are lost"
    mangled = len(_MOJIBAKE.findall(words))
    if mangled >= 5 and mangled > 0.01 * visible:
        return f"{mangled} characters in a wrong encoding"
    jumps, scripts = _script_soup(words)
    if jumps >= 10 and jumps > 0.02 * visible:
        return f"{jumps} words of two scripts"
    if scripts >= 5:
        return f"{scripts} scripts on one page"
    return None


def _lost_characters(words: str) -> int:
    """Replacement characters, private use, and code points that stand for nothing."""
    codes = _codes(words)
    lost = (codes == 0xFFFD) | ((codes >= 0xE000) & (codes <= 0xF8FF)) | (codes >= 0xF0000)
    return int(np.count_nonzero(lost))


def _script_soup(words: str) -> tuple[int, int]:
    """`(places where a letter of one script follows a letter of another, scripts with a share of 4 % or more)`."""
    codes = _codes(words)
    script = np.zeros(len(codes), dtype=np.int8)
    for number, (first, last) in enumerate(_SCRIPTS, 1):
        script[(codes >= first) & (codes <= last)] = number
    before, after = script[:-1], script[1:]
    jumps = int(np.count_nonzero((before > 0) & (after > 0) & (before != after)))
    letters = int(np.count_nonzero(script))
    counts = np.bincount(script, minlength=len(_SCRIPTS) + 1)[1:]
    return jumps, int(np.count_nonzero(counts >= max(20, 0.04 * letters)))


def _codes(words: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(words[:20_000].encode("utf-32-le", "replace"), dtype=np.uint32)


def _blemishes(raw: str, words: str) -> float:
    """What a good text may still have against it, up to 0.3: broken tags and single lost characters."""
    opened, closed = raw.count("<|det|>"), raw.count("<|/det|>")
    broken = abs(opened - closed) / max(opened, closed, 1)
    lost = _lost_characters(words) / max(len(words), 1)
    return min(0.3, 0.2 * broken + 5 * lost)
