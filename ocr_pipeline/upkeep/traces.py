"""Everything in the lake that knows a document: what a purge removes, and what it looks for again as the proof.

Here belongs the search, which changes nothing. It asks each kind of object and not only today's records of a batch: a
backfill with another recipe writes those anew, and the transcripts of the earlier page images are named nowhere else.
It reads every batch list, every Parquet file's ids and every transcript: some 10 minutes for 100,000 pages on a store
that answers 200 requests a second.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow.compute as pc
from pydantic import TypeAdapter

from ocr_pipeline.flow import rendered
from ocr_pipeline.lake import batches, keys
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Transcript
from ocr_pipeline.upkeep.published import columns, manifests
from ocr_pipeline.warehouse.connection import Warehouse

_TRANSCRIPT = TypeAdapter(Transcript)


@dataclass(frozen=True, slots=True)
class Traces:
    """What knows one document. Lake keys, but for `batches` (names) and `sharers` (batch, document)."""

    upload_key: str
    document_id: str
    batches: frozenset[str] = frozenset()  # whose list, records, Parquet or manifest name it
    own: tuple[str, ...] = ()  # objects that are its alone
    shared: tuple[str, ...] = ()  # transcripts of page images that other documents have too, and that name it
    sharers: tuple[tuple[str, str], ...] = field(default=())  # the documents that have these images

    @property
    def found(self) -> bool:
        return bool(self.batches or self.own or self.shared)


def traces(lake: Storage, warehouse: Warehouse, upload_key: str) -> Traces:
    """Looks everywhere in the lake; the warehouse is asked which page images are the document's, and which others'."""
    document_id = keys.document_id(upload_key)
    named = {
        batch.name
        for batch in batches.load(lake)
        if upload_key in batch.deleted or any(upload.key == upload_key for upload in batch.uploads)
    }
    records = [info.key for info in lake.list(keys.PAGES) if f"/{document_id}/" in info.key]
    named.update(key.split("/")[1] for key in records)
    images = _drawn(lake, records) | _in_tables(warehouse, document_id)
    images.update(image for _, document, image in _published_pages(lake) if document == document_id)
    named.update(_publishing(lake, document_id))

    asked, by_others = _transcripts(lake, document_id, images)
    images.update(sha for _, sha in asked)
    sharers = _sharers(lake, warehouse, document_id, images)
    kept = by_others | {image for _, _, image in sharers}
    return Traces(
        upload_key=upload_key,
        document_id=document_id,
        batches=frozenset(named),
        own=(
            *([upload_key] if lake.stat(upload_key) else []),
            *records,
            *([keys.markdown(upload_key)] if lake.stat(keys.markdown(upload_key)) else []),
            *(info.key for info in lake.list(keys.figure(upload_key, 0, 0).rsplit("/", 1)[0] + "/")),
            *(key for key, sha in asked if sha not in kept),
            *_poisoned(lake, document_id, images - kept),
            *_of_the_worker(lake, upload_key),
        ),
        shared=tuple(key for key, sha in asked if sha in kept),
        sharers=tuple(sorted({(batch, document) for batch, document, image in sharers if image in images})),
    )


def _publishing(lake: Storage, document_id: str) -> Iterator[str]:
    """Names of the batches whose Parquet files or manifest hold the document."""
    for manifest in manifests(lake):
        ids = (columns(lake, manifest, name, "document_id") for name in manifest.tables)
        if document_id in manifest.deleted or any(
            pc.any(pc.equal(found["document_id"], document_id)).as_py() for found in ids if found is not None
        ):
            yield manifest.batch


def _published_pages(lake: Storage) -> Iterator[tuple[str, str, str]]:
    """(batch, document, image_sha256) of every published page that has an image."""
    for manifest in manifests(lake):
        pages = columns(lake, manifest, "pages", "document_id", "image_sha256")
        if pages is not None:
            for document, image in zip(*(pages[name].to_pylist() for name in pages.column_names), strict=True):
                if image is not None:
                    yield manifest.batch, document, image


def _drawn(lake: Storage, records: list[str]) -> set[str]:
    """SHA-256 of the page images that the records of rendering name."""
    found: set[str] = set()
    for _, data in lake.read_many(key for key in records if key.endswith("/rendered.json")):
        document = rendered.from_json(data) if data is not None else None
        found.update(page.image_sha256 for page in (document.pages if document else ()) if page.image_sha256)
    return found


def _in_tables(warehouse: Warehouse, document_id: str) -> set[str]:
    with warehouse.read() as connection:
        rows = connection.execute(
            "SELECT DISTINCT image_sha256 FROM ocr.pages WHERE document_id = ? AND image_sha256 IS NOT NULL",
            [document_id],
        ).fetchall()
    return {row[0] for row in rows}


def _transcripts(lake: Storage, document_id: str, images: set[str]) -> tuple[list[tuple[str, str]], set[str]]:
    """The transcripts that the document's pages asked for or used, as (key, image), and the images of those that
    another document asked for too."""
    found: list[tuple[str, str]] = []
    by_others: set[str] = set()
    mark = document_id.encode()
    for key, data in lake.read_many(info.key for info in lake.list(keys.TRANSCRIPTS)):
        sha = key.rsplit("/", 1)[1].removesuffix(".json")
        if data is None or (mark not in data and sha not in images):
            continue
        found.append((key, sha))
        if any(attempt.document_id != document_id for attempt in _TRANSCRIPT.validate_json(data).attempts):
            by_others.add(sha)
    return found, by_others


def _sharers(lake: Storage, warehouse: Warehouse, document_id: str, images: set[str]) -> set[tuple[str, str, str]]:
    """Pages of other documents with one of the images, published or in the tables: (batch, document, image).

    A document that used such a transcript and is not published yet has it in its own record already.
    """
    found = {
        (batch, document, image)
        for batch, document, image in _published_pages(lake)
        if image in images and document != document_id
    }
    with warehouse.read() as connection:
        rows = connection.execute(
            "SELECT batch, document_id, image_sha256 FROM ocr.pages"
            " WHERE document_id <> ? AND list_contains(?, image_sha256)",
            [document_id, sorted(images)],
        ).fetchall()
    return found | {(batch, document, image) for batch, document, image in rows}


def _poisoned(lake: Storage, document_id: str, images: set[str]) -> list[str]:
    """Bundles of pages that killed a server: those of its own images, and those that name it."""
    everything = [info.key for info in lake.list(keys.POISONED)]
    about = lake.read_many(key for key in everything if key.endswith("/request.json"))
    folders = {key.rsplit("/", 1)[0] for key, data in about if data is not None and document_id.encode() in data}
    return [key for key in everything if key.rsplit("/", 1)[0] in folders or key.split("/")[2] in images]


def _of_the_worker(lake: Storage, upload_key: str) -> list[str]:
    """The upload Worker's records that name the upload, by its key in the bucket: with the lake's prefix."""
    found = []
    for key, data in lake.read_many(info.key for info in lake.list(keys.UPLOADERS)):
        try:
            named = json.loads(data or b"{}").get("key", "")
        except (ValueError, AttributeError):
            continue  # not the Worker's
        if f"/{named}".endswith(f"/{upload_key}"):
            found.append(key)
    return found
