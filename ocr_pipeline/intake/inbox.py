"""Putting files into the inbox, only where the bytes differ. Which file goes to which key says `sources.py`.

What `ingest` and `demo` do before any batch is cut. No Dagster.
"""

from __future__ import annotations

import filecmp
import hashlib
from collections.abc import Generator, Iterable
from functools import partial
from pathlib import Path

from ocr_pipeline.intake.sources import Source, SourceError
from ocr_pipeline.lake.batch_index import BatchIndex
from ocr_pipeline.lake.current import PROBE
from ocr_pipeline.lake.storage import (
    PARALLEL,
    KeyBlocked,
    KeyRefused,
    ObjectInfo,
    Storage,
    StorageError,
    parallel_map,
)
from ocr_pipeline.records import Upload

OneFault = OSError | StorageError
"""What is wrong with one file and no other: it cannot be read, no object can have its name, something else stands in
its place, or the store refuses the one object that is there."""

CREATED_WHOLE = 64 * 2**20  # bytes; a larger file is not held in memory

IN_PARALLEL = ((2**20, PARALLEL), (8 * 2**20, 4))
"""Files up to so many bytes, so many at once. Ctrl-C waits for those in flight: at most 32 MiB, half a minute at
1 MB/s. Larger ones go one by one, on the caller's thread, where Ctrl-C ends them at once."""


def put_all(storage: Storage, sources: Iterable[Source]) -> Generator[tuple[Source, Upload | OneFault], None, None]:
    """Puts every file into the inbox: its upload, or what is wrong with this one. In no order.

    Raises StorageError for the lake. Where it ends early it waits for the files in flight.
    """
    waiting = [list[Source]() for _ in (*IN_PARALLEL, None)]
    for source in sources:
        try:
            size = source.path.stat().st_size
        except OSError as error:
            yield source, error
        else:
            waiting[sum(size > most for most, _ in IN_PARALLEL)].append(source)

    def one(source: Source) -> tuple[Source, Upload | OneFault]:
        return source, put(storage, source)

    for (_, parallel), some in zip(IN_PARALLEL, waiting, strict=False):
        yield from parallel_map(one, some, parallel)
    yield from map(one, waiting[-1])


def put(storage: Storage, source: Source) -> Upload | OneFault:
    """The upload of this file as it is in the inbox, written only where the bytes differ; or what is wrong with it.

    Raises StorageError for the lake.
    """
    try:
        there = storage.stat(source.key)
    except StorageError as error:
        storage.stat(PROBE)  # raises where the lake does not answer: then it is no fault of this key
        return error
    try:
        return _put(storage, source, there)
    except (OSError, KeyRefused, KeyBlocked) as error:
        return error


def _put(storage: Storage, source: Source, there: ObjectInfo | None) -> Upload:
    if there is None and source.path.stat().st_size <= CREATED_WHOLE:
        # create-only: of two ingests of one new file at once, the second must not replace what the first has cut
        if storage.create(source.key, source.path.read_bytes()):
            return current_upload(storage, source.key)
        there = storage.stat(source.key)
    if there is not None and _same(storage, there, source.path):
        return there.as_upload()
    storage.upload(source.key, source.path)
    return current_upload(storage, source.key)


def current_upload(storage: Storage, key: str) -> Upload:
    """The upload under this key as it is now. Raises SourceError when it is gone."""
    there = storage.stat(key)
    if there is None:
        raise SourceError(f"{key!r} was taken out of the inbox while it was ingested")
    return there.as_upload()


def overtaken(storage: Storage, uploads: Iterable[Upload], index: BatchIndex) -> dict[Upload, Upload]:
    """Uploads that another ingest has replaced, and cut into a batch, since they were put; each with its replacement.

    `index` knows the lists since the oldest of `uploads`. The store is asked only about keys of which a list has a
    later upload.
    Raises SourceError for one that is gone.
    """
    asked = {upload.key: upload for upload in uploads}
    known = index.known(asked)
    late = [
        asked[key]
        for key, entry in known.items()
        if asked[key] not in entry.uploads and entry.newest[0].last_modified >= asked[key].last_modified
    ]
    return dict(zip(late, parallel_map(lambda upload: current_upload(storage, upload.key), late), strict=True))


def _same(storage: Storage, there: ObjectInfo, path: Path) -> bool:
    if there.size != path.stat().st_size:
        return False
    if storage.is_local:
        object_path = storage.uri_of(there.key)
        return path.samefile(object_path) or filecmp.cmp(path, object_path, shallow=False)
    return there.etag == _s3_etag(path, in_parts="-" in there.etag)


def _s3_etag(path: Path, *, in_parts: bool) -> str:
    """The etag that S3 gives these bytes: their MD5 where they came in one request, as `create` sends them, or the MD5
    of their parts' MD5s and the number of parts, as `upload` sends large files.

    It saves a copy here and protects nothing. An object that others sent in other parts has another, and is sent again.
    """
    from ocr_pipeline.lake.s3 import PART_BYTES  # costs a second of imports, which an S3 lake has paid already

    with path.open("rb") as file:
        if not in_parts:
            return hashlib.file_digest(file, _md5).hexdigest()
        parts = [_md5(part).digest() for part in iter(partial(file.read, PART_BYTES), b"")]
    return f"{_md5(b''.join(parts)).hexdigest()}-{len(parts)}"


_md5 = partial(hashlib.md5, usedforsecurity=False)
