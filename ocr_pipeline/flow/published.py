"""What a batch has published: its Parquet files, and the manifest that names them.

Parquet is the published result, the warehouse a copy of it. Here belong the manifest and how files are read. Not here:
how they are made (`publishing.py`), and the load (`loading.py`).
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pyarrow as pa
from pydantic import TypeAdapter

from ocr_pipeline.lake import json_objects, keys
from ocr_pipeline.lake.storage import ObjectMissing, Storage
from ocr_pipeline.records import Batch, Deletion, DocumentResult
from ocr_pipeline.warehouse import parquet
from ocr_pipeline.warehouse.errors import NotAsPublished, WarehouseError
from ocr_pipeline.warehouse.rows import to_outcomes
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


def table_file(key: str, rows: int, data: bytes) -> TableFile:
    return TableFile(key, rows, len(data), hashlib.sha256(data).hexdigest())


def table_file_at(key: str, rows: int, path: Path) -> TableFile:
    """The same for a local file that is written there."""
    return TableFile(key, rows, path.stat().st_size, _sha256(path))


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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
