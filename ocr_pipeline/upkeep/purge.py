"""Forgetting a document everywhere: the upload, Parquet, markdown, figures, images, transcripts, rows, batch lists.

What has to go is found before anything goes (`traces.py`). The upload goes first, so that nothing brings the document
back; the batch lists go last, so that a purge that died can be repeated. Dagster's own history is `runs/forgetting.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection
from dataclasses import dataclass, replace

from ocr_pipeline.flow import published, reading
from ocr_pipeline.lake import batches, keys, transcripts
from ocr_pipeline.lake.storage import ObjectMissing, ObjectUnreadable, Storage
from ocr_pipeline.records import Batch, Transcript
from ocr_pipeline.upkeep.published import parquet_files
from ocr_pipeline.upkeep.traces import Traces, traces
from ocr_pipeline.warehouse import parquet
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.purge import PurgeCounts, batches_of, left_of
from ocr_pipeline.warehouse.purge import purge as purge_rows
from ocr_pipeline.warehouse.schema import SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class Purged:
    """What was removed, and what was still found afterwards (nothing, and all was looked into: that is the proof)."""

    document_id: str
    rows: PurgeCounts
    parquet_files: int  # written again without the document
    objects: int  # deleted in the lake, Parquet files that no manifest names among them
    left: tuple[str, ...]  # keys or tables that still name the document
    unread: tuple[str, ...]  # objects that could not be looked into: what is wrong with each, and what to do


def check_lake(lake: Storage, warehouse: Warehouse, document_id: str) -> None:
    """Raises WarehouseError where the tables have rows of the document from a batch of which this lake has nothing: ask
    before anything goes. With another lake the rows would go alone, and the proof would look in the wrong place."""
    for name in batches_of(warehouse, document_id):
        if not _knows(lake, name):
            raise WarehouseError(
                f"the tables have rows of {document_id} from batch {name}, and {lake.uri} has nothing of that batch: "
                "is OCR_LAKE the right lake? (If the lake is lost, `rebuild-warehouse --force` takes such rows away)"
            )


def _knows(lake: Storage, batch_name: str) -> bool:
    prefixes = (keys.pages_of_batch(batch_name), keys.manifest(batch_name), keys.batch(batch_name))
    return any(next(lake.list(prefix), None) is not None for prefix in prefixes)


def purge(lake: Storage, warehouse: Warehouse, found: Traces) -> Purged:
    """Removes the document of `found` (by `traces`, just now) everywhere, the PDF in the inbox too; then looks again.

    Transcripts stay where another document's page has the same image; that this document asked for them is taken out.
    The caller holds the intake, and no run works on the batches that name it or those of `found.sharers`.
    """
    document_id, upload_key = found.document_id, found.upload_key
    lake.delete([upload_key])
    written = sum(_rewrite(lake, name, document_id) for name in found.batches)
    for key in found.shared:
        if (transcript := transcripts.read(lake, *keys.parse_transcript(key))) is not None:
            transcripts.write(lake, _without(transcript, document_id))
    for batch_name, other in found.sharers:
        _forget_who_asked(lake, batch_name, other, document_id)
    unnamed = _unnamed(lake, found.batches)
    lake.delete([*found.own, *unnamed])
    counts = purge_rows(warehouse, document_id)
    for name in found.batches:
        # of a batch whose list is gone, records and Parquet may be there; one that cannot be read is told afterwards
        with contextlib.suppress(ObjectMissing, ObjectUnreadable):
            lake.write(keys.batch(name), batches.dump(_smaller(batches.read(lake, name), upload_key)))
    after = traces(lake, warehouse, upload_key)
    left = _left(lake, warehouse, found, after)
    return Purged(document_id, counts, written, len(found.own) + len(unnamed), left, after.unread)


def _smaller(batch: Batch, upload_key: str) -> Batch:
    kept = [place for place, upload in enumerate(batch.uploads) if upload.key != upload_key]
    return replace(
        batch,
        uploads=tuple(batch.uploads[place] for place in kept),
        repeats=tuple(batch.repeats[place] for place in kept) if batch.repeats else (),
        deleted=tuple(key for key in batch.deleted if key != upload_key),
        gone=tuple(upload for upload in batch.gone if upload.key != upload_key),
    )


def _without(transcript: Transcript, document_id: str) -> Transcript:
    kept = tuple(attempt for attempt in transcript.attempts if attempt.document_id != document_id)
    return replace(transcript, attempts=kept)


def _forget_who_asked(lake: Storage, batch_name: str, other: str, document_id: str) -> None:
    """Another document's record repeats the shared transcripts, and with them who asked. A broken one that names the
    document is found again afterwards."""
    try:
        record = reading.read(lake, batch_name, other)
    except ObjectUnreadable:
        return
    if record is None:
        return
    pages = tuple(
        replace(page, transcript=_without(page.transcript, document_id)) if page.transcript else page
        for page in record.pages
    )
    if pages != record.pages:
        reading.write(lake, batch_name, replace(record, pages=pages))


def _rewrite(lake: Storage, batch_name: str, document_id: str) -> int:
    """Writes the batch's Parquet files again without the document; returns how many changed.

    One that cannot be read stays, and is told afterwards: materialised again it is made of records that do not know the
    document. It may hold the attempts of others, which nothing else has.
    """
    manifest = _manifest(lake, batch_name)
    if manifest is None:
        return 0
    changed = {}
    for name in manifest.tables:
        try:
            arrow = published.read_table(lake, manifest, name, verified=False)
        except (ObjectMissing, ObjectUnreadable, WarehouseError):
            continue
        mask = [value != document_id for value in arrow["document_id"].to_pylist()]
        # other rows than the manifest says: a purge died between the file and the manifest
        if all(mask) and arrow.num_rows == manifest.tables[name].rows:
            continue
        kept = arrow.filter(mask)
        data = parquet.to_bytes(name, kept)
        lake.write(manifest.tables[name].key, data)
        changed[name] = published.table_file(manifest.tables[name].key, kept.num_rows, data)
    deleted = {key: at for key, at in manifest.deleted.items() if key != document_id}
    if changed or deleted != manifest.deleted:
        published.write_manifest(
            lake, dataclasses.replace(manifest, tables={**manifest.tables, **changed}, deleted=deleted)
        )
    return len(changed)


def _unnamed(lake: Storage, batch_names: Collection[str]) -> list[str]:
    """The Parquet files of these batches that no manifest names. Nothing reads them, and the batch makes them again
    from its records. With the shorter list that may be in another day's folder, so all of them go."""
    manifests = {name: manifest for name in batch_names if (manifest := _manifest(lake, name)) is not None}
    files = {key for key, name in parquet_files(lake).items() if name in manifests}
    named = {file.key for manifest in manifests.values() for file in manifest.tables.values()}
    return sorted(files - named)


def _manifest(lake: Storage, batch_name: str) -> published.Manifest | None:
    """The batch's manifest; an empty one where it is not published, None where nobody can tell what is."""
    try:
        return published.read_manifest(lake, batch_name)
    except ObjectMissing:
        return published.Manifest(batch_name, SCHEMA_VERSION)
    except (ObjectUnreadable, WarehouseError):
        return None


def _left(lake: Storage, warehouse: Warehouse, before: Traces, after: Traces) -> tuple[str, ...]:
    """Whatever still names the document after the purge."""
    found = [f"{count} rows in {table}" for table, count in left_of(warehouse, before.document_id).items() if count]
    found += [f"batch {name}" for name in sorted(after.batches)]
    found += [*after.own, *after.shared, *(keys.reading(batch, document) for batch, document in after.naming)]
    # after the purge nothing tells any more which images were its own: those that went must not be there again
    found += [key for key in before.own if key not in after.own and lake.stat(key) is not None]
    return tuple(found)
