"""Putting files into the inbox: which file goes to which key, and only where the bytes differ.

What `ingest` and `demo` do before any batch is cut. No Dagster.
"""

from __future__ import annotations

import filecmp
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ocr_pipeline.lake.storage import ObjectInfo, Storage
from ocr_pipeline.records import Upload

CREATED_WHOLE = 64 * 2**20  # bytes; a larger file is not held in memory
PDF_MAGIC = b"%PDF-"


class SourceError(Exception):
    """The paths given cannot be ingested as they are; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Source:
    """A local file and the inbox key it goes to."""

    path: Path
    key: str


def sources(paths: Iterable[Path], inbox: str) -> tuple[list[Source], int]:
    """The files to ingest with their keys, and how many files of folders were left alone as not PDFs.

    A folder's files go to `inbox/<folder's name>/<path below it>`, a single file to `inbox/<name>`. In a folder, a
    file is taken when it ends in .pdf or begins like a PDF; hidden files and folders are not looked at. A file that is
    named itself is always taken. Raises SourceError for a path that is not there and for two sources of one key.
    """
    found: dict[str, Source] = {}
    left_alone = 0
    for path in paths:
        if not path.exists():
            raise SourceError(f"there is no file or folder {str(path)!r}")
        if path.is_dir():
            name = path.resolve().name
            pairs: Iterator[tuple[Path, str]] = (
                (file, "/".join([name, *file.relative_to(path).parts])) for file in _files(path)
            )
        else:
            pairs = iter([(path, path.resolve().name if path.name in ("", "..") else path.name)])
        for file, below in pairs:
            if path.is_dir() and not looks_like_pdf(file):
                left_alone += 1
                continue
            source = Source(file, inbox + below)
            other = found.setdefault(source.key, source)
            if other.path.resolve() != file.resolve():
                raise SourceError(
                    f"{str(other.path)!r} and {str(file)!r} would both become {source.key!r}: ingest them one by one, "
                    "or rename a folder"
                )
    return list(found.values()), left_alone


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(root) / name
            if not name.startswith(".") and file.is_file():
                yield file


def looks_like_pdf(file: Path) -> bool:
    """By its ending, or by its first kilobyte."""
    if file.suffix.lower() == ".pdf":
        return True
    try:
        with file.open("rb") as opened:
            return PDF_MAGIC in opened.read(1024)
    except OSError:
        return False


def put(storage: Storage, source: Source) -> Upload:
    """The upload of this file as it stands in the inbox; written only where the bytes differ."""
    there = storage.stat(source.key)
    try:
        if there is None and source.path.stat().st_size <= CREATED_WHOLE:
            # create-only: of two ingests of one new file at once, the second must not replace what the first has cut
            storage.create(source.key, source.path.read_bytes())
            there = storage.stat(source.key)
        if there is None or not _same(storage, there, source.path):
            storage.upload(source.key, source.path)
    except PermissionError as error:
        raise SourceError(f"{str(source.path)!r} cannot be read: give this user the right, or leave it out") from error
    return standing(storage, source.key)


def standing(storage: Storage, key: str) -> Upload:
    """The upload under this key as it is now. Raises SourceError when it is gone."""
    there = storage.stat(key)
    if there is None:
        raise SourceError(f"{key!r} was taken out of the inbox while it was ingested")
    return upload_of(there)


def upload_of(info: ObjectInfo) -> Upload:
    return Upload(info.key, info.etag, info.size, info.last_modified)


def _same(storage: Storage, there: ObjectInfo, path: Path) -> bool:
    if there.size != path.stat().st_size:
        return False
    if storage.uri.startswith("file:"):
        return filecmp.cmp(path, storage.uri_of(there.key), shallow=False)
    if len(there.etag) != 32:
        return False  # several parts: cheaper to send again than to fetch and compare
    with path.open("rb") as file:
        # an S3 etag of one part is the MD5 of the bytes; it saves a copy here and protects nothing
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == there.etag
