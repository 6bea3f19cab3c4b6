"""The comparison of a batch's files with the warehouse sees each kind of difference."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocr_pipeline.flow import tables
from ocr_pipeline.flow.service import OcrService
from ocr_pipeline.flow.stream import StreamOptions
from ocr_pipeline.lake.storage import open_storage
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline_tests.flow.doubles import ScriptedTranscriber
from ocr_pipeline_tests.flow.test_stream import put
from ocr_pipeline_tests.pdfs import numbered

CHANGES = {
    "UPDATE ocr.pages SET markdown = markdown || '.' WHERE page_number = 2": "pages: 2 rows differ",
    "UPDATE ocr.pages SET reason = 'garbage' WHERE page_number = 1": "pages: 2 rows differ",
    "DELETE FROM ocr.pages WHERE page_number = 3": "pages: 1 rows differ",
    "UPDATE ocr.documents SET page_count = 4": "documents: 2 rows differ",
    "SELECT 1": "",
}


@pytest.mark.parametrize(("change", "told"), CHANGES.items())
def test_a_changed_or_missing_row_is_a_difference(tmp_path: Path, change: str, told: str) -> None:
    lake = open_storage(str(tmp_path / "lake"))
    batch = put(lake, {"a.pdf": numbered(3)})
    service = OcrService(lake, ScriptedTranscriber, StreamOptions(render_workers=1))
    try:
        service.run(batch)
    finally:
        service.close()
    manifest = tables.publish(lake, batch, tables.results(lake, batch))
    warehouse = Warehouse(str(tmp_path / "warehouse.duckdb"))
    assert tables.load(lake, warehouse, batch).differences == ""
    warehouse.run(lambda connection: connection.execute(change))
    assert "; ".join(tables._differences(warehouse, tables.read_tables(lake, manifest))) == told
