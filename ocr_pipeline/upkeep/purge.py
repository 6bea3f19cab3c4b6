"""Forgetting a document everywhere: rows, Parquet, markdown, figures, images, transcripts, the upload itself.

The order is chosen so that a purge that dies can be repeated: what would bring the document back (the upload, the
batch lists, the Parquet files that a rebuild reads) goes first.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from pydantic import TypeAdapter

from ocr_pipeline.flow import rendered, tables
from ocr_pipeline.lake import batches, keys
from ocr_pipeline.lake.storage import ObjectMissing, Storage
from ocr_pipeline.records import Batch
from ocr_pipeline.warehouse import parquet
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.purge import PurgeCounts, rows_of
from ocr_pipeline.warehouse.purge import purge as purge_rows

_BATCH = TypeAdapter(Batch)


@dataclass(frozen=True, slots=True)
class Purged:
    """What was removed, and what was still found afterwards (nothing: that is the proof)."""

    document_id: str
    rows: PurgeCounts
    parquet_files: int  # written again without the document
    objects: int  # deleted in the lake
    left: tuple[str, ...]  # keys or tables that still name the document


def purge(lake: Storage, warehouse: Warehouse, upload_key: str, *, keep_upload: bool = False) -> Purged:
    """Removes the document of `upload_key` everywhere.

    With `keep_upload` the PDF and its entry in the batch lists stay (it is not read again by itself); its text goes.
    Transcripts go unless another document's page has the same image.
    """
    document_id = keys.document_id(upload_key)
    images = _images(lake, document_id)
    holding = [batch for batch in batches.load(lake) if any(u.key == upload_key for u in batch.uploads)]
    doomed: list[str] = []
    if not keep_upload:
        doomed.append(upload_key)
        for batch in holding:
            smaller = dataclasses.replace(batch, uploads=tuple(u for u in batch.uploads if u.key != upload_key))
            lake.write(keys.batch(batch.name), _BATCH.dump_json(smaller, indent=1))
    written = sum(_rewrite(lake, batch.name, document_id) for batch in holding)

    markdown = keys.markdown(upload_key)
    doomed.append(markdown)
    doomed += [info.key for info in lake.list(keys.figure(upload_key, 0, 0).rsplit("/", 1)[0] + "/")]
    for batch in holding:
        doomed += [info.key for info in lake.list(f"{keys.PAGES}{batch.name}/{document_id}/")]
    shared = _images_of_others(lake, warehouse, document_id, images)
    own = images - shared
    doomed += [info.key for info in lake.list(keys.TRANSCRIPTS) if info.key.rsplit("/", 1)[1][:-5] in own]
    doomed += [info.key for info in lake.list(keys.POISONED) if info.key.split("/")[2] in own]
    lake.delete(doomed)
    counts = purge_rows(warehouse, document_id)
    return Purged(
        document_id, counts, written, len(doomed), _left(lake, warehouse, upload_key, document_id, keep_upload)
    )


def _images(lake: Storage, document_id: str) -> set[str]:
    """SHA-256 of every page image that any batch made of the document."""
    found: set[str] = set()
    for batch in batches.load(lake):
        document = rendered.read(lake, batch.name, document_id) if _holds(batch, document_id) else None
        found.update(page.image_sha256 for page in (document.pages if document else ()) if page.image_sha256)
    return found


def _holds(batch: Batch, document_id: str) -> bool:
    return any(keys.document_id(upload.key) == document_id for upload in batch.uploads)


def _images_of_others(lake: Storage, warehouse: Warehouse, document_id: str, images: set[str]) -> set[str]:
    with warehouse.read() as connection:
        rows = connection.execute(
            "SELECT DISTINCT image_sha256 FROM ocr.pages WHERE document_id <> ? AND list_contains(?, image_sha256)",
            [document_id, sorted(images)],
        ).fetchall()
    return {row[0] for row in rows}


def _rewrite(lake: Storage, batch_name: str, document_id: str) -> int:
    """Writes the batch's Parquet files again without the document; returns how many changed."""
    try:
        manifest = tables.read_manifest(lake, batch_name)
    except ObjectMissing:
        return 0
    changed = {}
    for name, arrow in tables.read_tables(lake, manifest).items():
        mask = [value != document_id for value in arrow["document_id"].to_pylist()]
        if all(mask):
            continue
        kept = arrow.filter(mask)
        data = parquet.to_bytes(name, kept)
        lake.write(manifest.tables[name].key, data)
        changed[name] = tables.table_file(manifest.tables[name].key, kept.num_rows, data)
    deleted = {key: at for key, at in manifest.deleted.items() if key != document_id}
    tables.write_manifest(lake, dataclasses.replace(manifest, tables={**manifest.tables, **changed}, deleted=deleted))
    return len(changed)


def _left(lake: Storage, warehouse: Warehouse, upload_key: str, document_id: str, keep_upload: bool) -> tuple[str, ...]:
    """Looks again, everywhere: whatever still names the document."""
    found = [f"{rows} rows in the warehouse" for rows in [rows_of(warehouse, document_id)] if rows]
    if not keep_upload and lake.stat(upload_key):
        found.append(upload_key)
    if lake.stat(keys.markdown(upload_key)):
        found.append(keys.markdown(upload_key))
    found += [info.key for info in lake.list(keys.PAGES) if f"/{document_id}/" in info.key]
    for info in lake.list(keys.MANIFESTS):
        manifest = tables.read_manifest(lake, info.key.removeprefix(keys.MANIFESTS).removesuffix(".json"))
        for name, arrow in tables.read_tables(lake, manifest).items():
            if document_id in set(arrow["document_id"].to_pylist()):
                found.append(manifest.tables[name].key)
    return tuple(found)
