"""Forgetting a document everywhere: the upload, Parquet, markdown, figures, images, transcripts, rows, batch lists.

What has to go is found before anything goes. The upload goes first, so that nothing brings the document back; the
batch lists, by which it is found, go last, so that a purge that died can be repeated.
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


def purge(lake: Storage, warehouse: Warehouse, upload_key: str) -> Purged:
    """Removes the document of `upload_key` everywhere, the PDF in the inbox too.

    Transcripts go unless another document's page has the same image. The caller holds the intake: a batch must not be
    cut from the upload meanwhile.
    """
    document_id = keys.document_id(upload_key)
    naming = [
        batch
        for batch in batches.load(lake)
        if upload_key in batch.deleted or any(upload.key == upload_key for upload in batch.uploads)
    ]
    drawn = [info.key for info in lake.list(keys.PAGES) if f"/{document_id}/" in info.key]
    images = _images(lake, drawn)
    own = images - _images_of_others(warehouse, document_id, images)
    doomed = [
        upload_key,
        *drawn,
        keys.markdown(upload_key),
        *(info.key for info in lake.list(keys.figure(upload_key, 0, 0).rsplit("/", 1)[0] + "/")),
        *(info.key for info in lake.list(keys.TRANSCRIPTS) if info.key.rsplit("/", 1)[1][:-5] in own),
        *(info.key for info in lake.list(keys.POISONED) if info.key.split("/")[2] in own),
    ]

    lake.delete([upload_key])
    written = sum(_rewrite(lake, batch.name, document_id) for batch in naming)
    lake.delete(doomed)
    counts = purge_rows(warehouse, document_id)
    for batch in naming:
        smaller = dataclasses.replace(
            batch,
            uploads=tuple(upload for upload in batch.uploads if upload.key != upload_key),
            deleted=tuple(key for key in batch.deleted if key != upload_key),
            gone=tuple(upload for upload in batch.gone if upload.key != upload_key),
        )
        lake.write(keys.batch(batch.name), _BATCH.dump_json(smaller, indent=1))
    return Purged(document_id, counts, written, len(doomed), _left(lake, warehouse, upload_key, document_id))


def _images(lake: Storage, drawn: list[str]) -> set[str]:
    """SHA-256 of every page image that any batch made of the document."""
    found: set[str] = set()
    for _, data in lake.read_many(key for key in drawn if key.endswith("/rendered.json")):
        document = rendered.from_json(data) if data is not None else None
        found.update(page.image_sha256 for page in (document.pages if document else ()) if page.image_sha256)
    return found


def _images_of_others(warehouse: Warehouse, document_id: str, images: set[str]) -> set[str]:
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
    deleted = {key: mark for key, mark in manifest.deleted.items() if key != document_id}
    tables.write_manifest(lake, dataclasses.replace(manifest, tables={**manifest.tables, **changed}, deleted=deleted))
    return len(changed)


def _left(lake: Storage, warehouse: Warehouse, upload_key: str, document_id: str) -> tuple[str, ...]:
    """Looks again, everywhere: whatever still names the document."""
    found = [f"{rows} rows in the warehouse" for rows in [rows_of(warehouse, document_id)] if rows]
    found += [key for key in (upload_key, keys.markdown(upload_key)) if lake.stat(key)]
    found += [info.key for info in lake.list(keys.PAGES) if f"/{document_id}/" in info.key]
    found += [
        keys.batch(batch.name)
        for batch in batches.load(lake)
        if upload_key in (*batch.deleted, *(upload.key for upload in batch.uploads))
    ]
    for info in lake.list(keys.MANIFESTS):
        manifest = tables.read_manifest(lake, info.key.removeprefix(keys.MANIFESTS).removesuffix(".json"))
        found += [info.key] if document_id in manifest.deleted else []
        for name, arrow in tables.read_tables(lake, manifest).items():
            if document_id in set(arrow["document_id"].to_pylist()):
                found.append(manifest.tables[name].key)
    return tuple(found)
