"""Putting files into the inbox, only where the bytes differ. Which file goes to which key says `sources.py`.

What `ingest` and `demo` do before any batch is cut. No Dagster.
"""

from __future__ import annotations

import filecmp
import hashlib
from pathlib import Path

from ocr_pipeline.intake.sources import Source, SourceError
from ocr_pipeline.lake.storage import ObjectInfo, Storage
from ocr_pipeline.records import Upload

CREATED_WHOLE = 64 * 2**20  # bytes; a larger file is not held in memory


def put(storage: Storage, source: Source) -> Upload:
    """The upload of this file as it stands in the inbox; written only where the bytes differ.

    Raises OSError where the file cannot be read (it may have gone since it was found), StorageError for the lake.
    """
    there = storage.stat(source.key)
    if there is None and source.path.stat().st_size <= CREATED_WHOLE:
        # create-only: of two ingests of one new file at once, the second must not replace what the first has cut
        if storage.create(source.key, source.path.read_bytes()):
            return current_upload(storage, source.key)
        there = storage.stat(source.key)
    if there is None or not _same(storage, there, source.path):
        storage.upload(source.key, source.path)
    return current_upload(storage, source.key)


def current_upload(storage: Storage, key: str) -> Upload:
    """The upload under this key as it is now. Raises SourceError when it is gone."""
    there = storage.stat(key)
    if there is None:
        raise SourceError(f"{key!r} was taken out of the inbox while it was ingested")
    return there.as_upload()


def _same(storage: Storage, there: ObjectInfo, path: Path) -> bool:
    if there.size != path.stat().st_size:
        return False
    if storage.is_local:
        object_path = storage.uri_of(there.key)
        return path.samefile(object_path) or filecmp.cmp(path, object_path, shallow=False)
    return there.etag == _s3_etag(path, there.size)


def _s3_etag(path: Path, size: int) -> str:
    """The etag that S3 gives these bytes when `lake/s3.py` uploads them: their MD5, or the MD5 of their parts' MD5s.

    It saves a copy here and protects nothing. An object that others sent in other parts has another, and is sent again.
    """
    from ocr_pipeline.lake.s3 import PART_BYTES  # costs a second of imports, which an S3 lake has paid already

    parts = []
    with path.open("rb") as file:
        while part := file.read(PART_BYTES):
            parts.append(hashlib.md5(part, usedforsecurity=False))
    if size < PART_BYTES:
        return (parts or [hashlib.md5(usedforsecurity=False)])[0].hexdigest()
    whole = hashlib.md5(b"".join(part.digest() for part in parts), usedforsecurity=False)
    return f"{whole.hexdigest()}-{len(parts)}"
