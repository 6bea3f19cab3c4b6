"""When a PDF's own text can be taken for the page, and how far OCR agrees with it."""

from __future__ import annotations

import random
from pathlib import Path

import pypdfium2 as pdfium
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_pipeline import samples
from ocr_pipeline.ocr.quality.agreement import agreement
from ocr_pipeline.ocr.quality.soundness import sound_layer
from ocr_pipeline_tests.ocr.quality.test_verdict import prose

FOLDER = Path(samples.__file__).parent

# Ink of the samples as pdf/ink.py measures them at 150 dpi (two digits).
SAMPLES = {
    "form.pdf": 0.084,
    "annual-report.pdf": 0.117,
    "invoice-table.pdf": 0.056,
    "two-columns.pdf": 0.182,
    "rotated-page.pdf": 0.045,
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_layer_of_a_born_digital_page_is_sound(name: str) -> None:
    document = pdfium.PdfDocument(FOLDER / name)
    layer = document[0].get_textpage().get_text_range()
    document.close()
    assert sound_layer(layer, SAMPLES[name])


TEXT = prose(300)
INK = 0.2


def noisy(text: str, share: float) -> str:
    """As an old OCR engine leaves it."""
    rng = random.Random(2)
    confused = {"l": "1", "o": "0", "e": "c", "h": "li", "i": "1", "s": "5", "a": "4"}
    return "".join(confused.get(c, c) if rng.random() < share else c for c in text)


@pytest.mark.parametrize(
    ("why", "layer", "ink"),
    [
        ("nothing", "", 0.1),
        ("white space", " \n\t ", 0.1),
        ("one stamped line on a scanned page", "Scanned by the office of the county on 3 March 2019 page 4", 0.08),
        ("a header over a scanned body", prose(12), 0.15),
        ("no ToUnicode: private use", "".join(chr(0xE000 + ord(c) % 80) if c != " " else c for c in TEXT), INK),
        ("no ToUnicode: control characters", "".join(chr(ord(c) % 31) if c != " " else c for c in TEXT), INK),
        ("replacement characters", TEXT.replace("e", "\ufffd"), INK),
        ("glyph numbers", " ".join(f"(cid:{ord(c)})" for c in TEXT), INK),
        ("other letters' codes", TEXT.translate({n: 33 + n % 14 for n in range(97, 123)}), INK),
        ("signs", "ab&%$#@!^ cd{}[]()<> " * 100, INK),
        ("letters one by one", " ".join(TEXT.replace(" ", "")), INK),
        ("spaces lost", TEXT.replace(" ", ""), INK),
        ("poor OCR", noisy(TEXT, 0.12), INK),
    ],
)
def test_a_layer_that_is_there_and_not_sound_is_refused(why: str, layer: str, ink: float) -> None:
    assert not sound_layer(layer, ink)


@pytest.mark.parametrize(
    "layer",
    [
        TEXT,
        "\n".join(" ".join(str(random.Random(row * 9 + n).randint(0, 99999)) for n in range(6)) for row in range(60)),
        "中华人民共和国是工人阶级领导的、以工农联盟为基础的人民民主专政的社会主义国家。" * 12,
        "Die Größe der Fläche über dem Ärmel beträgt ungefähr fünfzehn Quadratmeter für Müller und Söhne. " * 8,
        "Система читает страницу и пишет текст в таблицу, отчёт за квартал показывает рост выручки. " * 10,
        "Der iPhone- und der MacBook-Verkauf, die eBay-Auktion und H2O sowie CO2 im 3. Quartal 2024 (Q3). " * 8,
    ],
    ids=["prose", "numbers", "Chinese", "German", "Russian", "brands"],
)
def test_a_layer_of_real_words_is_sound(layer: str) -> None:
    assert sound_layer(layer, len(layer) * 1.2e-4)


@given(st.text(max_size=300), st.floats(0, 1))
def test_any_layer_gets_an_answer(layer: str, ink: float) -> None:
    assert sound_layer(layer, ink) in (True, False)


def test_agreement_counts_words_in_any_order() -> None:
    assert agreement("the river runs on to the sea", "sea the to on runs river the") == 1.0
    assert agreement("", "the river runs on to the sea") == 0.0
    half = agreement("the river runs nowhere else at all", "the river runs on to the sea")
    assert half is not None
    assert 0.4 < half < 0.6


def test_a_loop_does_not_agree_with_its_layer() -> None:
    layer = prose(100)
    looped = agreement(layer + " the" * 500, layer)
    assert looped is not None
    assert looped < 0.4


def test_a_layer_of_next_to_nothing_measures_nothing() -> None:
    assert agreement("the whole of a page", "") is None
    assert agreement("the whole of a page", "page 4 of 7") is None


def test_chinese_is_compared_by_characters() -> None:
    close = agreement("中华人民共和国是工人阶级领导的", "中华人民共和国是工人阶级领道的")
    assert close is not None
    assert close > 0.9
