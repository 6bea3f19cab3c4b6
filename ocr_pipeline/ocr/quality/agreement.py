"""How far OCR text and a PDF's own text layer agree: one number from 0 to 1, for people and for statistics.

Here belongs the comparison only. It never decides a status. Order does not count: a text layer gives columns and
tables in the order in which they were drawn.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

# Chinese and Japanese have no spaces: there each character is a word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")

FEWEST_WORDS = 5
"""Of a layer to be compared with: a page number, or the one line that a scanner stamps, measures nothing."""


def agreement(text: str, layer: str) -> float | None:
    """F1 of the two bags of words, 0 (no word in common) to 1 (the same words, each as often); None where the
    layer has fewer than `FEWEST_WORDS` words.

    Words are compared case-folded and NFKC-normalised (ligatures, full-width forms); punctuation and markup between
    words do not count. Linear in the length: 10,000 words take about 10 ms.
    """
    layer_words = _words(layer)
    if layer_words.total() < FEWEST_WORDS:
        return None
    words = _words(text)
    common = (words & layer_words).total()
    return 2 * common / (words.total() + layer_words.total())


def _words(text: str) -> Counter[str]:
    return Counter(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))
