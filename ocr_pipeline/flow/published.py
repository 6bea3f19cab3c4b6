"""What a batch publishes: its Parquet files, and the manifest that names them, written last.

Parquet is the published result, the warehouse a copy of it. Here belong writing and reading files and manifest. Not
here: where the rows come from (`results.py`), and the load (`loading.py`).
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter

from ocr_pipeline.flow import documents
from ocr_pipeline.flow.memory import limit_retained_memory
from ocr_pipeline.flow.results import PIECE, pieces
from ocr_pipeline.lake import deletions, json_objects, keys
from ocr_pipeline.lake.storage import ObjectForbidden, ObjectMissing, ObjectUnreadable, Storage
from ocr_pipeline.records import Batch, Deletion, Document, DocumentResult
from ocr_pipeline.warehouse import parquet
from ocr_pipeline.warehouse.errors import NotAsPublished, WarehouseError
from ocr_pipeline.warehouse.history import merged_attempts
from ocr_pipeline.warehouse.rows import to_outcomes, to_table
from ocr_pipeline.warehouse.schema import SCHEMA_VERSION, TABLES

_GLOB = frozenset("*?[]{}")
"""What DuckDB takes for a pattern in a path, and knows no way to escape."""

FILES_AT_ONCE = 4
"""Batches of which one Parquet file each is read in parallel: on a bucket that is three requests. It is held whole."""


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


_MANIFEST = TypeAdapter(Manifest)


def publish(lake: Storage, batch: Batch) -> Manifest:
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
                files[name] = TableFile(key, count, path.stat().st_size, _sha256(path))
    gone: dict[str, Deletion | datetime] = {keys.document_id(key): mark for key, mark in deletions.marks(batch).items()}
    manifest = Manifest(batch.name, SCHEMA_VERSION, files, gone)
    write_manifest(lake, manifest)
    return manifest


def table_file(key: str, rows: int, data: bytes) -> TableFile:
    return TableFile(key, rows, len(data), hashlib.sha256(data).hexdigest())


def write_manifest(lake: Storage, manifest: Manifest) -> None:
    lake.write(keys.manifest(manifest.batch), _MANIFEST.dump_json(manifest, indent=1))


def read_manifest(lake: Storage, batch_name: str) -> Manifest:
    """Raises ObjectMissing when the batch is not published, ObjectUnreadable when its manifest is broken, and
    WarehouseError when a newer program published it."""
    key = keys.manifest(batch_name)
    manifest = json_objects.parse(_MANIFEST, key, lake.read(key), "materialise ocr_parquet for the batch again")
    if manifest.schema_version > SCHEMA_VERSION:
        raise WarehouseError(
            f"batch {batch_name}: its Parquet files have schema version {manifest.schema_version}, this program knows "
            f"up to {SCHEMA_VERSION}: update ocr-pipeline"
        )
    return manifest


def read_tables(lake: Storage, manifest: Manifest, *, verified: bool = True) -> Mapping[str, pa.Table]:
    """The batch's rows as Arrow tables; empty when it has no files (a batch of deletions).

    Raises NotAsPublished with batch and key for a file that is not the one of the manifest (`verified`: also where it
    can be read all the same, as after a crash between a file and its manifest), WarehouseError for one that cannot.
    """
    return {name: read_table(lake, manifest, name, verified=verified) for name in manifest.tables}


def read_table(
    lake: Storage, manifest: Manifest, name: str, columns: list[str] | None = None, *, verified: bool = True
) -> pa.Table:
    """The rows of one table of the batch, or these columns of them. `verified` and errors as in `read_tables`."""
    file = manifest.tables[name]
    data = lake.read(file.key)
    if verified and hashlib.sha256(data).hexdigest() != file.sha256:
        raise _another_file(manifest, file)
    try:
        return parquet.from_bytes(name, data, columns)
    except WarehouseError as error:
        raise WarehouseError(
            f"batch {manifest.batch}, {file.key}: {error}: materialise ocr_parquet for the batch again"
        ) from error


def outcomes(lake: Storage, batch: Batch) -> list[DocumentResult]:
    """What became of each upload of the batch and of its pages, as its Parquet files say, in the order of its list.

    Without text, regions and attempts. An upload that is not in the files is not in the list. Raises ObjectMissing when
    the batch is not published, NotAsPublished when its files are not those of its manifest.
    """
    manifest = read_manifest(lake, batch.name)
    if not manifest.tables:
        return []
    columns = [name for name in TABLES["pages"].names if name != "markdown"]
    found = to_outcomes(read_table(lake, manifest, "documents"), read_table(lake, manifest, "pages", columns))
    by_id = {result.document.document_id: result for result in found}
    in_order = [by_id.pop(keys.document_id(upload.key), None) for upload in batch.uploads]
    return [result for result in (*in_order, *by_id.values()) if result is not None]


@contextmanager
def addresses(lake: Storage, manifest: Manifest, *, on_r2: bool = False) -> Iterator[Mapping[str, str]]:
    """Where the database reads the batch's files, by table, until the block ends.

    `on_r2`: MotherDuck reads them in R2 itself. Otherwise, and where an address would be a pattern to DuckDB, they are
    files of this machine: the lake's own, or copies.
    Raises NotAsPublished with batch and key for a file that is not the one of the manifest (in R2 by its size alone),
    ObjectMissing for one that is gone.
    """
    with tempfile.TemporaryDirectory(prefix="ocr-parquet-") as folder:
        found = {}
        for name, file in manifest.tables.items():
            uri = lake.uri_of(file.key)
            is_pattern = bool(_GLOB & set(uri))
            if on_r2 and not is_pattern:
                _check_size(lake, manifest, file)
                found[name] = uri.replace("s3://", "r2://", 1)
                continue
            path = Path(uri)
            if not lake.is_local or is_pattern:
                path = Path(folder) / file.key.removeprefix(keys.TABLES)
                path.parent.mkdir(parents=True)
                lake.download(file.key, path)
            _check_content(lake, manifest, file, path)
            found[name] = str(path)
        yield found


def _check_size(lake: Storage, manifest: Manifest, file: TableFile) -> None:
    """Raises ObjectMissing, and NotAsPublished for a file of another size than the manifest's."""
    info = lake.stat(file.key)
    if info is None:
        raise ObjectMissing(lake.uri_of(file.key))
    if info.size != file.bytes:
        raise _another_file(manifest, file)


def _check_content(lake: Storage, manifest: Manifest, file: TableFile, path: Path) -> None:
    """The same for the bytes of the file at `path`, the lake's own or a copy of it."""
    try:
        same = path.stat().st_size == file.bytes and _sha256(path) == file.sha256
    except FileNotFoundError:
        raise ObjectMissing(lake.uri_of(file.key)) from None
    if not same:
        raise _another_file(manifest, file)


def _another_file(manifest: Manifest, file: TableFile) -> NotAsPublished:
    return NotAsPublished(
        f"batch {manifest.batch}: {file.key} is not the file that the batch's manifest names (other bytes): "
        "materialise ocr_parquet for the batch again"
    )


def _day(lake: Storage, batch: Batch) -> date:
    """The folder of the batch's files: where they stand already, also when a purge has since taken the newest upload
    out of the list. Two folders would hold the same rows twice."""
    try:
        standing = read_manifest(lake, batch.name).tables.values()
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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
