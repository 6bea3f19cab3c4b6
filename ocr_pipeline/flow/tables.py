"""From a batch's records in the lake to its Parquet files, and from those to the warehouse.

Parquet is the published result, the warehouse a copy of it: the load reads the files, not what made them, so that a
rebuild of the warehouse is the same load again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa
from pydantic import TypeAdapter

from ocr_pipeline.flow import documents, reading, rendered
from ocr_pipeline.lake import deletions, keys
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Batch, Deletion, DocumentResult
from ocr_pipeline.warehouse import parquet
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.load import LoadCounts, Source, load_batch, mark_deleted
from ocr_pipeline.warehouse.schema import SCHEMA_VERSION


class NotMade(Exception):
    """A hop before this one has not been materialised for the batch."""


@dataclass(frozen=True, slots=True)
class TableFile:
    """One Parquet file of a batch."""

    key: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a batch publishes: written after its files. A batch without one is not there."""

    batch: str
    schema_version: int
    tables: dict[str, TableFile] = field(default_factory=dict)
    deleted: dict[str, Deletion | datetime] = field(default_factory=dict)  # by document id; a time alone: an old one


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load did."""

    rows: dict[str, int]  # by table, in the batch's files
    superseded: int  # documents of the batch of which a newer upload was there already
    differences: str  # between files and tables, "" where there are none
    seconds: float


_MANIFEST = TypeAdapter(Manifest)


def results(lake: Storage, batch: Batch) -> list[DocumentResult]:
    """The rows of every upload of the batch, in the order of its list. Raises NotMade."""
    ids = [keys.document_id(upload.key) for upload in batch.uploads]
    drawn = _read_all(lake, [keys.rendered(batch.name, document_id) for document_id in ids])
    read = _read_all(lake, [keys.reading(batch.name, document_id) for document_id in ids])
    found = []
    for upload, document_id in zip(batch.uploads, ids, strict=True):
        document = drawn[keys.rendered(batch.name, document_id)]
        text = read[keys.reading(batch.name, document_id)]
        if document is None or text is None:
            hop = "rendered_pages" if document is None else "ocr_markdown"
            raise NotMade(f"batch {batch.name}: {hop} has no record of {upload.key!r}; materialise {hop} first")
        transcripts = reading.from_json(text)
        found.append(
            documents.result(batch, rendered.from_json(document), transcripts, transcripts.recipe_id, lake.uri_of)
        )
    return found


def publish(lake: Storage, batch: Batch, rows: list[DocumentResult]) -> Manifest:
    """Writes the batch's Parquet files, then its manifest."""
    files = {}
    if rows:
        day = documents.ingest_date(batch)
        for name, table in parquet.to_tables(rows).items():
            data = parquet.to_bytes(name, table)
            key = keys.table(name, day, batch.name)
            lake.write(key, data)
            files[name] = table_file(key, table.num_rows, data)
    gone: dict[str, Deletion | datetime] = {keys.document_id(key): mark for key, mark in deletions.marks(batch).items()}
    manifest = Manifest(batch.name, SCHEMA_VERSION, files, gone)
    write_manifest(lake, manifest)
    return manifest


def table_file(key: str, rows: int, data: bytes) -> TableFile:
    return TableFile(key, rows, len(data), hashlib.sha256(data).hexdigest())


def write_manifest(lake: Storage, manifest: Manifest) -> None:
    lake.write(keys.manifest(manifest.batch), _MANIFEST.dump_json(manifest, indent=1))


def read_manifest(lake: Storage, batch_name: str) -> Manifest:
    """Raises ObjectMissing when the batch is not published."""
    return _MANIFEST.validate_json(lake.read(keys.manifest(batch_name)))


def read_tables(lake: Storage, manifest: Manifest) -> Mapping[str, pa.Table]:
    """The batch's rows as Arrow tables; empty when it has no files (a batch of deletions)."""
    return {name: parquet.from_bytes(name, lake.read(file.key)) for name, file in manifest.tables.items()}


def load(lake: Storage, warehouse: Warehouse, batch: Batch, *, by_address: bool = False) -> Loaded:
    """The batch's published rows into the warehouse, then both compared. Raises ObjectMissing when not published.

    `by_address`: MotherDuck reads the Parquet files in R2 itself (its secret is there), no row passes through here.
    """
    started = time.monotonic()
    manifest = read_manifest(lake, batch.name)
    counts = LoadCounts(0, 0, 0, 0, 0, 0)
    differences = []
    if manifest.tables:
        arrow = read_tables(lake, manifest)
        source: Source = arrow
        if by_address:
            source = {
                name: lake.uri_of(file.key).replace("s3://", "r2://", 1) for name, file in manifest.tables.items()
            }
        counts = load_batch(warehouse, batch.name, source)
        differences = _differences(warehouse, arrow)
    if manifest.deleted:
        mark_deleted(warehouse, manifest.deleted)
    return Loaded(
        rows={name: file.rows for name, file in manifest.tables.items()},
        superseded=counts.outranked,
        differences="; ".join(differences),
        seconds=time.monotonic() - started,
    )


def _differences(warehouse: Warehouse, arrow: Mapping[str, pa.Table]) -> list[str]:
    """Where the warehouse does not hold what the files say; documents with a newer upload are that upload's matter."""
    found = []
    with warehouse.read() as connection:
        connection.register("published_documents", arrow["documents"])
        for name in ("documents", "pages", "regions"):
            connection.register("published", arrow[name])
            # hashes of rows: comparing the rows themselves would hold all of their text twice more
            columns = "hash(" + ", ".join(c for c in arrow[name].column_names if c != "deleted_at") + ")"
            row = connection.execute(
                f"""
                WITH ours AS (
                    SELECT document_id FROM published_documents p JOIN ocr.documents d USING (document_id)
                    WHERE d.batch = p.batch
                )
                SELECT count(*) FROM (
                    (SELECT {columns} FROM published WHERE document_id IN (FROM ours)
                     EXCEPT ALL SELECT {columns} FROM ocr.{name} WHERE document_id IN (FROM ours))
                    UNION ALL
                    (SELECT {columns} FROM ocr.{name} WHERE document_id IN (FROM ours)
                     EXCEPT ALL SELECT {columns} FROM published WHERE document_id IN (FROM ours))
                )
                """  # noqa: S608  (names of our own tables and columns)
            ).fetchone()
            if row and row[0]:
                found.append(f"{name}: {row[0]} rows differ")
    return found


def _read_all(lake: Storage, wanted: list[str]) -> dict[str, bytes | None]:
    return dict(lake.read_many(wanted))
