"""From a batch's records in the lake to its Parquet files, and from those to the warehouse.

Parquet is the published result, the warehouse a copy of it: the load reads the files, not what made them, so that a
rebuild of the warehouse is the same load again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa
from pydantic import TypeAdapter

from ocr_pipeline.flow import documents, reading, rendered
from ocr_pipeline.lake import keys
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Batch, DocumentResult
from ocr_pipeline.warehouse import parquet
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
    deleted: dict[str, datetime] = field(default_factory=dict)  # document id -> when its upload was gone


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
            documents.result(
                batch, rendered.from_json(document), transcripts, transcripts.recipe_id, lake.uri_of
            )
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
            files[name] = TableFile(key, table.num_rows, len(data), hashlib.sha256(data).hexdigest())
    gone = {keys.document_id(key): batch.created_at for key in batch.deleted if batch.created_at}
    manifest = Manifest(batch.name, SCHEMA_VERSION, files, gone)
    lake.write(keys.manifest(batch.name), _MANIFEST.dump_json(manifest, indent=1))
    return manifest


def read_manifest(lake: Storage, batch_name: str) -> Manifest:
    """Raises ObjectMissing when the batch is not published."""
    return _MANIFEST.validate_json(lake.read(keys.manifest(batch_name)))


def read_tables(lake: Storage, manifest: Manifest) -> Mapping[str, pa.Table]:
    """The batch's rows as Arrow tables; empty when it has no files (a batch of deletions)."""
    return {name: parquet.from_bytes(name, lake.read(file.key)) for name, file in manifest.tables.items()}


def _read_all(lake: Storage, wanted: list[str]) -> dict[str, bytes | None]:
    return dict(lake.read_many(wanted))
