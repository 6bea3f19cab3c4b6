"""The way of a batch's Parquet into the warehouse, tried with one page: what doctor asks before the first batch.

Here belong the page, and its file in the lake while it is tried. Not here: what is asked of the database
(`warehouse/check.py`).
"""

from __future__ import annotations

from datetime import UTC, date, datetime

from ocr_pipeline.flow.published import Manifest, addresses, table_file
from ocr_pipeline.lake import keys
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Page, PageStatus
from ocr_pipeline.warehouse import parquet
from ocr_pipeline.warehouse.check import check_load
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.rows import to_table
from ocr_pipeline.warehouse.schema import SCHEMA_VERSION

_DAY = date(2026, 11, 1)  # of the key's folder

_PAGE = Page(
    document_id="0" * 32,
    page_number=1,
    status=PageStatus.OK,
    reason=None,
    detail=None,
    markdown="# A page of doctor's\n\nä 漢 𝄞 '' \u0301",
    engine="vllm",
    backend="doctor",
    model="none",
    attempts=1,
    prompt_tokens=913,
    completion_tokens=None,
    seconds=0.1,
    finish_reason="stop",
    quality=1 / 3,
    agreement=None,
    width=1240,
    height=1754,
    rotation=0,
    image_uri=None,
    image_sha256=None,
    recipe_id="doctor",
    batch="doctor",
    ingest_date=_DAY,
    processed_at=datetime(2026, 11, 1, 8, 0, 0, 123456, UTC),
)


def rehearse(lake: Storage, warehouse: Warehouse, *, on_r2: bool) -> str:
    """Writes one page to the lake as Parquet, has the database load it, and takes both away; returns the address that
    the database was given. `on_r2` as in `load`. Raises StorageError and WarehouseError."""
    data = parquet.to_bytes("pages", to_table("pages", [_PAGE]))
    lake.write(keys.PROBE_TABLE, data)
    try:
        manifest = Manifest("doctor", SCHEMA_VERSION, {"pages": table_file(keys.PROBE_TABLE, 1, data)})
        with addresses(lake, manifest, on_r2=on_r2) as files:
            check_load(warehouse, files["pages"])
            return files["pages"]
    finally:
        lake.delete([keys.PROBE_TABLE])
