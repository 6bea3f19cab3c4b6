"""The table of documents that commands print, on terminals of all widths."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from ocr_pipeline.commands.summary import show, summarise
from ocr_pipeline_tests.warehouse.sample_rows import result

NAMES = ("annual-report.pdf", "two-columns.pdf", "a rather long name of a scanned letter from March.pdf")


@pytest.mark.parametrize("width", [80, 100, 120])
def test_every_documents_name_can_be_read_at_each_width(width: int) -> None:
    results = [result(f"inbox/{name}", batch="b") for name in NAMES]
    printed = io.StringIO()
    show(summarise(results, ["b"], 1.0), Console(file=printed, width=width, force_terminal=True, no_color=True))
    for name in NAMES:
        assert name[:15] in printed.getvalue(), printed.getvalue()
    assert ("agreement" in printed.getvalue()) == (width > 110)
