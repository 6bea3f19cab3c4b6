"""Can a PDF's own text of a page be taken for the page? A measured test, for `OCR_TEXT_LAYER=prefer`. Pure.

That a layer is there says nothing: scanners stamp one line on a page of pictures, fonts without a ToUnicode table give
signs of private use, old OCR gives "tbe" and "l1ke". Every doubt is answered with no: then the page is read, which
costs one request.
"""

from __future__ import annotations

import re

FEWEST_WORDS = 8
# Ink (pdf/ink.py) for one character that is not a space. Measured on A4 pages: text of 6 to 12 points 0.5 to 1.7e-4,
# tables with rules and forms 1.2 to 2.7e-4, 18 points 4e-4; a scanned letter with one stamped line 1e-3 and more. Above
# this there is more on the page than the layer tells, or large type, which is read as well to be safe.
MOST_INK_A_CHARACTER = 2.5e-4

_LOST = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffd\ue000-\uf8ff\U000f0000-\U0010ffff]|\\(cid:\\d+\\)")
_WORD = re.compile(r"[^\W_]+")
# Letters around digits ("l1ke", "0f"), or a capital after small letters twice ("tHeRe"): what poor OCR leaves.
_ODD = re.compile(r"[a-z]\d+[a-z]|^(?!1st)[01][a-z]{1,2}$|[a-z][A-Z][a-z]+[A-Z]")
_SPACELESS = re.compile("[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")  # scripts without spaces


def sound_layer(layer: str, ink: float) -> bool:
    """Whether `layer` is all that stands on a page with this share of ink."""
    visible = "".join(layer.split())
    words = _WORD.findall(layer)
    if not visible or (len(words) < FEWEST_WORDS and len(_SPACELESS.findall(layer)) < 4 * FEWEST_WORDS):
        return False
    if ink / len(visible) > MOST_INK_A_CHARACTER:
        return False
    if len(_LOST.findall(layer)) > 0.005 * len(visible):
        return False
    if sum(map(len, words)) < 0.5 * len(visible):  # signs, not words: a font whose letters have other letters' codes
        return False
    if _SPACELESS.search(layer):
        return True
    letters = [word for word in words if word.isalpha()]
    single = sum(len(word) == 1 for word in letters)
    if single > 0.35 * max(len(letters), 1):  # "T h e  l e t t e r s": no words can be had from it
        return False
    if sum(len(word) for word in words) > 14 * len(words):  # spaces are lost
        return False
    return sum(bool(_ODD.search(word)) for word in words) <= 0.04 * len(words)
