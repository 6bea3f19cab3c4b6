"""From a batch's Parquet files to the warehouse.

The load reads the files, not what made them, so that a rebuild of the warehouse is the same load again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from ocr_pipeline.flow.published import addresses, read_manifest
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Batch
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.differences import differences
from ocr_pipeline.warehouse.load import LoadCounts, load_batch, mark_deleted


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load did."""

    rows: dict[str, int]  # by table, in the batch's files
    superseded: int  # documents of the batch of which a newer upload was there already
    differences: str  # between files and tables, "" where there are none
    seconds: float


def load(lake: Storage, warehouse: Warehouse, batch: Batch, *, on_r2: bool = False) -> Loaded:
    """The batch's published rows into the warehouse, then both compared. Raises ObjectMissing when not published.

    `on_r2`: MotherDuck reads the Parquet files in R2 itself (its secret is there), no row passes through here.
    """
    started = time.monotonic()
    manifest = read_manifest(lake, batch.name)
    counts = LoadCounts(0, 0, 0, 0, 0, 0)
    found: list[str] = []
    if manifest.tables:
        with addresses(lake, manifest, on_r2=on_r2) as files:
            counts = load_batch(warehouse, batch.name, files)
            found = differences(warehouse, batch.name, files)
    if manifest.deleted:
        mark_deleted(warehouse, manifest.deleted)
    return Loaded(
        rows={name: file.rows for name, file in manifest.tables.items()},
        superseded=counts.outranked,
        differences="; ".join(found),
        seconds=time.monotonic() - started,
    )
