"""Makes a batch's Parquet files from its records in the lake, and publishes them: the manifest is written last.

Not here: where the rows come from (`results.py`), and how files and manifest are read (`published.py`).
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from ocr_pipeline.flow import documents, published
from ocr_pipeline.flow.memory import limit_retained_memory
from ocr_pipeline.flow.results import PIECE, pieces
from ocr_pipeline.lake import deletions, keys
from ocr_pipeline.lake.storage import ObjectForbidden, ObjectMissing, ObjectUnreadable, Storage
from ocr_pipeline.records import Batch, Deletion, Document
from ocr_pipeline.warehouse import parquet
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.history import merged_attempts
from ocr_pipeline.warehouse.rows import to_table
from ocr_pipeline.warehouse.schema import SCHEMA_VERSION, TABLES


def publish(lake: Storage, batch: Batch) -> published.Manifest:
    """Makes the batch's Parquet files from its records in the lake and writes them, then its manifest. Raises NotMade.

    Attempts are history: those of the batch's file as it stands, such as an earlier recipe's, stay in it.
    """
    files = {}
    limit_retained_memory()
    if batch.uploads:
        day = _day(lake, batch)
        with tempfile.TemporaryDirectory(prefix="ocr-parquet-") as folder:
            rows = _write_files(lake, batch, day, Path(folder))
            for name, count in rows.items():
                key, path = keys.table(name, day, batch.name), Path(folder) / name
                lake.upload(key, path)
                files[name] = published.table_file_at(key, count, path)
    gone: dict[str, Deletion | datetime] = {keys.document_id(key): mark for key, mark in deletions.marks(batch).items()}
    manifest = published.Manifest(batch.name, SCHEMA_VERSION, files, gone)
    published.write_manifest(lake, manifest)
    return manifest


def _day(lake: Storage, batch: Batch) -> date:
    """The folder of the batch's files: where they stand already, also when a purge has since taken the newest upload
    out of the list. Two folders would hold the same rows twice."""
    try:
        standing = published.read_manifest(lake, batch.name).tables.values()
    except ObjectForbidden:  # it may be sound
        raise
    except (ObjectMissing, ObjectUnreadable, WarehouseError):  # none yet; or broken: publishing again mends it
        return documents.ingest_date(batch)
    days = [place[1] for file in standing if (place := keys.parse_table(file.key))]
    return max(days, default=documents.ingest_date(batch))


def _write_files(lake: Storage, batch: Batch, day: date, folder: Path) -> dict[str, int]:
    """Writes one file per table into the folder, named after the table; returns their rows."""
    waiting: dict[str, list[Any]] = {name: [] for name in TABLES}
    before = _attempts_before(lake, batch, day)
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(parquet.TableWriter(name, folder / name, day, len(batch.uploads)))
            for name in TABLES
        }

        def flush(up_to: tuple[str, int] | None) -> None:
            nonlocal before
            for name, records in waiting.items():
                rows = to_table(name, records)
                if name == "attempts":
                    rows, before = merged_attempts(rows, before, up_to)
                writers[name].write(rows)
                records.clear()

        for found in pieces(lake, batch):
            if isinstance(found, Document):
                waiting["documents"].append(found)
                continue
            waiting["pages"].extend(found.pages)
            waiting["regions"].extend(found.regions)
            waiting["attempts"].extend(found.attempts)
            if len(waiting["pages"]) >= PIECE:
                last = waiting["pages"][-1]
                flush((last.document_id, last.page_number))
        flush(None)
    return {name: writer.rows for name, writer in writers.items()}


def _attempts_before(lake: Storage, batch: Batch, day: date) -> pa.Table:
    """The attempts of the batch's file as it stands, of documents that are still in the batch."""
    try:
        rows = parquet.from_bytes("attempts", lake.read(keys.table("attempts", day, batch.name)))
    except (ObjectMissing, WarehouseError):  # none yet; or broken: publishing again is how that is mended
        return TABLES["attempts"].empty_table()
    ours = {keys.document_id(upload.key) for upload in batch.uploads}
    return rows.filter(pa.array([identity in ours for identity in rows["document_id"].to_pylist()], pa.bool_()))
