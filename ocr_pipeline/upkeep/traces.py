"""Finds everything in the lake that names a document: what a purge removes, and what it searches again as the proof.

Here belongs the search, which changes nothing. It looks at every kind of object, and not only at a batch's present
records: a backfill with another recipe rewrites those, and then nothing else names the transcripts of the earlier page
images.
One look reads every batch list, record of reading, Parquet file (also those that no manifest names: a killed run
leaves them) and transcript once: some 10 minutes for 100,000 pages on a store that answers 200 requests a second.

What cannot be read may name the document: the look goes on and says so (`unread`). Only where it is the document's own
record or transcript does it end, since that alone tells which page images are its, and what others have of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from ocr_pipeline.flow import rendered
from ocr_pipeline.flow.published import FILES_AT_ONCE, Manifest
from ocr_pipeline.lake import batches, keys, transcripts
from ocr_pipeline.lake.storage import ObjectMissing, ObjectUnreadable, Storage, parallel_map
from ocr_pipeline.upkeep.published import of_each, parquet_files, readable_columns, unnamed_columns
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import WarehouseError


@dataclass(frozen=True, slots=True)
class Traces:
    """What knows one document. Lake keys, but for `batches` (names), `sharers` and `naming` (batch, document)."""

    upload_key: str
    document_id: str
    batches: frozenset[str] = frozenset()  # whose list, records, Parquet or manifest name it
    own: tuple[str, ...] = ()  # objects that are its alone
    shared: tuple[str, ...] = ()  # transcripts of page images that other documents have too, and that name it
    sharers: tuple[tuple[str, str], ...] = ()  # the documents that have these images: their runs may repeat them
    naming: tuple[tuple[str, str], ...] = ()  # of the sharers those whose records name it
    unread: tuple[str, ...] = ()  # objects that could not be looked into: what is wrong with each, and what to do

    @property
    def found(self) -> bool:
        return bool(self.batches or self.own or self.shared or self.naming)


def traces(lake: Storage, warehouse: Warehouse, upload_key: str) -> Traces:
    """Looks everywhere in the lake; the warehouse is asked which page images are the document's, and which others'.

    Raises StorageError for the lake and for the document's own records and transcripts, WarehouseError for the tables.
    """
    document_id = keys.document_id(upload_key)
    unread = Unread()
    named = {
        batch.name
        for batch in batches.load(lake, tell=unread.append)
        if upload_key in batch.deleted or any(upload.key == upload_key for upload in batch.uploads)
    }
    records, of_others = _records(lake, document_id)
    named.update(key.split("/")[1] for key in records)
    images = _drawn(lake, records) | _in_tables(warehouse, document_id)
    files = parquet_files(lake)
    published = list(
        of_each(lake, lambda manifest: _published(lake, manifest, document_id, unread), tell=unread.append)
    )
    unnamed = files.keys() - {key for batch in published for key in batch.files}
    published += parallel_map(
        lambda key: _unnamed(lake, key, files[key], document_id, unread), sorted(unnamed), FILES_AT_ONCE
    )
    named.update(batch.name for batch in published if batch.names_it)
    images.update(image for batch in published for image in batch.images_of(document_id))

    asked, by_others = _transcripts(lake, document_id, images, unread)
    images.update(sha for _, sha in asked)
    sharers = _sharers(published, warehouse, document_id, images)
    naming, copies = _naming(lake, of_others, document_id, unread)
    kept = by_others | {image for _, _, image in sharers}
    return Traces(
        upload_key=upload_key,
        document_id=document_id,
        batches=frozenset(named),
        own=(
            *([upload_key] if lake.stat(upload_key) else []),
            *records,
            *([keys.markdown(upload_key)] if lake.stat(keys.markdown(upload_key)) else []),
            *(info.key for info in lake.list(keys.figures(upload_key))),
            *(info.key for info in lake.list(keys.shown_by(upload_key))),
            *(key for key, sha in asked if sha not in kept),
            *_poisoned(lake, document_id, images - kept, unread),
            *_of_the_worker(lake, upload_key, unread),
            *_copies_of_lists(lake, upload_key, unread),
            *copies,
        ),
        shared=tuple(key for key, sha in asked if sha in kept),
        sharers=tuple(sorted({(batch, document) for batch, document, image in sharers if image in images} | naming)),
        naming=tuple(sorted(naming)),
        unread=tuple(sorted(unread)),
    )


Unread = list[str]
"""What is wrong with each object that a look could not look into."""


@dataclass(frozen=True, slots=True)
class _Published:
    """What is kept of a batch's Parquet files."""

    name: str
    files: tuple[str, ...]  # their keys
    names_it: bool  # the document, in one of its files or its deletions
    pages: pa.Table | None  # document_id and image_sha256; Arrow: 100,000 pages are 10 MB

    def images_of(self, document_id: str) -> Iterator[str]:
        if self.pages is not None and self.names_it:
            of_it = self.pages.filter(pc.equal(self.pages["document_id"], document_id))
            yield from of_it["image_sha256"].drop_null().to_pylist()

    def pages_with(self, images: set[str]) -> Iterator[tuple[str, str]]:
        """(document, image) of the pages that have one of the images."""
        if self.pages is not None:
            wanted = pa.array(sorted(images), self.pages["image_sha256"].type)
            found = self.pages.filter(pc.is_in(self.pages["image_sha256"], value_set=wanted))
            yield from zip(found["document_id"].to_pylist(), found["image_sha256"].to_pylist(), strict=True)


def _published(lake: Storage, manifest: Manifest, document_id: str, unread: Unread) -> _Published:
    """Reads each file once. All four: a purge that died has written some of them again."""
    read = partial(readable_columns, lake, manifest, tell=unread.append)
    pages = read("pages", "document_id", "image_sha256")
    others = (read(name, "document_id") for name in manifest.tables if name != "pages")
    holds = [_holds(table, document_id) for table in (pages, *others) if table is not None]
    files = tuple(file.key for file in manifest.tables.values())
    return _Published(manifest.batch, files, document_id in manifest.deleted or any(holds), pages)


def _unnamed(lake: Storage, key: str, batch: str, document_id: str, unread: Unread) -> _Published:
    """A file that the batch's manifest does not name."""
    try:
        table = unnamed_columns(lake, key, "document_id", "image_sha256")
    except ObjectMissing:
        return _Published(batch, (key,), False, None)
    except (ObjectUnreadable, WarehouseError) as error:
        unread.append(str(error))
        return _Published(batch, (key,), False, None)
    pages = table if "image_sha256" in table.column_names else None
    return _Published(batch, (key,), _holds(table, document_id), pages)


def _holds(table: pa.Table, document_id: str) -> bool:
    return bool(pc.any(pc.equal(table["document_id"], document_id)).as_py())


def _drawn(lake: Storage, records: list[str]) -> set[str]:
    """SHA-256 of the page images that the records of rendering name."""
    found: set[str] = set()
    for key, data in lake.read_many(filter(keys.is_rendered, records)):
        document = rendered.parse(key, data) if data is not None else None
        found.update(page.image_sha256 for page in (document.pages if document else ()) if page.image_sha256)
    return found


def _records(lake: Storage, document_id: str) -> tuple[list[str], list[str]]:
    """Keys of all objects of the document below pages/, and of the records of reading of the others."""
    own, of_others = [], []
    for info in lake.list(keys.PAGES):
        if f"/{document_id}/" in info.key:
            own.append(info.key)
        elif keys.is_reading(info.key):
            of_others.append(info.key)
    return own, of_others


def _naming(
    lake: Storage, records: list[str], document_id: str, unread: Unread
) -> tuple[set[tuple[str, str]], list[str]]:
    """(batch, document) of the records of others that name this document, and keys of copies of such records. They
    repeat the transcripts of page images that both have, published or not, and those say who asked."""
    named, copies = set(), []
    mark = document_id.encode()
    for key, data in _contents(lake, records, unread):
        if mark in data:
            match key.split("/"):
                case [_, batch, document, _]:
                    named.add((batch, document))
                case _:  # no run ever looks at it
                    copies.append(key)
    return named, copies


def _in_tables(warehouse: Warehouse, document_id: str) -> set[str]:
    with warehouse.read() as connection:
        rows = connection.execute(
            "SELECT DISTINCT image_sha256 FROM ocr.pages WHERE document_id = ? AND image_sha256 IS NOT NULL",
            [document_id],
        ).fetchall()
    return {row[0] for row in rows}


def _transcripts(
    lake: Storage, document_id: str, images: set[str], unread: Unread
) -> tuple[list[tuple[str, str]], set[str]]:
    """The transcripts that the document's pages asked for or used, as (key, image), and the images of those that
    another document asked for too."""
    found: list[tuple[str, str]] = []
    by_others: set[str] = set()
    mark = document_id.encode()
    for key, data in _contents(lake, (info.key for info in lake.list(keys.TRANSCRIPTS)), unread):
        _, sha = keys.parse_transcript(key)
        if mark not in data and sha not in images:
            continue
        found.append((key, sha))
        if any(attempt.document_id != document_id for attempt in transcripts.parse(key, data).attempts):
            by_others.add(sha)
    return found, by_others


def _sharers(
    published: Iterable[_Published], warehouse: Warehouse, document_id: str, images: set[str]
) -> set[tuple[str, str, str]]:
    """Pages of other documents with one of the images, published or in the tables: (batch, document, image).

    A document that used such a transcript and is not published yet has it in its own record already.
    """
    found = {
        (batch.name, document, image)
        for batch in published
        for document, image in batch.pages_with(images)
        if document != document_id
    }
    with warehouse.read() as connection:
        rows = connection.execute(
            "SELECT batch, document_id, image_sha256 FROM ocr.pages"
            " WHERE document_id <> ? AND list_contains(?, image_sha256)",
            [document_id, sorted(images)],
        ).fetchall()
    return found | {(batch, document, image) for batch, document, image in rows}


def _poisoned(lake: Storage, document_id: str, images: set[str], unread: Unread) -> list[str]:
    """Bundles of pages that killed a server: those of its own images, and those that name it."""
    everything = [info.key for info in lake.list(keys.POISONED)]
    about = _contents(lake, (key for key in everything if key.endswith("/request.json")), unread)
    folders = {key.rsplit("/", 1)[0] for key, data in about if document_id.encode() in data}
    return [key for key in everything if key.rsplit("/", 1)[0] in folders or key.split("/")[2] in images]


def _of_the_worker(lake: Storage, upload_key: str, unread: Unread) -> list[str]:
    """The upload Worker's records that name the upload, by its key in the bucket: with the lake's prefix."""
    found = []
    for key, data in _contents(lake, (info.key for info in lake.list(keys.UPLOADERS)), unread):
        try:
            named = json.loads(data).get("key", "")
        except (ValueError, AttributeError):
            continue  # not the Worker's
        if f"/{named}".endswith(f"/{upload_key}"):
            found.append(key)
    return found


def _copies_of_lists(lake: Storage, upload_key: str, unread: Unread) -> list[str]:
    """What file managers and backups leave below batches/ and names the upload; no run ever looks at it."""
    mark = json.dumps(upload_key, ensure_ascii=False).encode()
    return [key for key, data in _contents(lake, batches.others(lake), unread) if mark in data]


def _contents(lake: Storage, wanted: Iterable[str], unread: Unread) -> Iterator[tuple[str, bytes]]:
    """Each object's bytes by its key, many reads at once; one that is gone, or cannot be read, is left out."""

    def work(key: str) -> tuple[str, bytes | None]:
        try:
            return key, lake.read(key)
        except ObjectMissing:
            return key, None
        except ObjectUnreadable as error:
            unread.append(str(error))
            return key, None

    return ((key, data) for key, data in parallel_map(work, wanted) if data is not None)
