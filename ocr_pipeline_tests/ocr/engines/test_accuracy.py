"""Character errors of the CPU engine on the samples, order included: the goals of the first release."""

from __future__ import annotations

import asyncio
import shutil
from typing import Any

import pytest

from benchmarks.accuracy import measure

TESSERACT_ON_THE_SCAN = 0.0196
"""Tesseract 5.3.0 with English on the scanned letter, measured with `benchmarks/accuracy.py`."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rates() -> dict[tuple[str, int], float]:
    return _rates(asyncio.run(measure("rapidocr")))


def _rates(result: dict[str, Any]) -> dict[tuple[str, int], float]:
    return {(page["document"], page["page"]): page["character_error_rate"] for page in result["pages"]}


def test_at_most_two_percent_of_characters_are_wrong_on_each_clean_page(rates: dict[tuple[str, int], float]) -> None:
    clean = {page: rate for page, rate in rates.items() if page[0] != "scanned-letter"}
    assert len(clean) == 9
    assert {page: rate for page, rate in clean.items() if rate > 0.02} == {}


def test_the_two_column_page_is_read_in_its_order(rates: dict[tuple[str, int], float]) -> None:
    assert rates["two-columns", 1] < 0.005


def test_the_scan_is_read_no_worse_than_by_tesseract_alone(rates: dict[tuple[str, int], float]) -> None:
    tesseract = TESSERACT_ON_THE_SCAN
    if shutil.which("tesseract"):
        tesseract = _rates(asyncio.run(measure("tesseract")))["scanned-letter", 1]
    assert rates["scanned-letter", 1] <= tesseract
