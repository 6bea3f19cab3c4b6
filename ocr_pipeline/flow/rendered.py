"""What rendering made of one document, as it stands in the lake (`pages/<batch>/<document>/rendered.json`)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import TypeAdapter

from ocr_pipeline.lake import json_objects, keys
from ocr_pipeline.lake.storage import ObjectMissing, Storage
from ocr_pipeline.records import PageStatus, Reason, Upload


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedPage:
    """One page, drawn or not. `status` is None for a page that an engine is to read."""

    number: int
    rotation: int
    status: PageStatus | None = None  # BLANK, FAILED or SKIPPED; None: to be read
    reason: Reason | None = None
    detail: str | None = None
    image_key: str | None = None
    image_sha256: str | None = None
    width: int | None = None
    height: int | None = None
    ink: float = 0.0
    text_layer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedDocument:
    """One upload, opened and drawn, or rejected with a reason."""

    upload: Upload
    document_id: str
    rendered_at: datetime  # of the first rendering with this content: a second one keeps it
    content_sha256: str | None = None
    page_count: int = 0
    title: str | None = None
    reason: Reason | None = None  # set: rejected
    detail: str | None = None
    pages: tuple[RenderedPage, ...] = ()


_RENDERED = TypeAdapter(RenderedDocument)


def read(storage: Storage, batch: str, document_id: str) -> RenderedDocument | None:
    """The record, None where there is none. Raises ObjectUnreadable."""
    key = keys.rendered(batch, document_id)
    try:
        return parse(key, storage.read(key))
    except ObjectMissing:
        return None


def page_count(data: bytes | None) -> int | None:
    """How many pages a document that is being drawn has, as the object at `keys.page_count` says; None where it does
    not."""
    return int(data) if data is not None and data.isdigit() else None


def write(storage: Storage, batch: str, document: RenderedDocument) -> None:
    storage.write(keys.rendered(batch, document.document_id), _RENDERED.dump_json(document))


def parse(key: str, data: bytes) -> RenderedDocument:
    """The record of that key, which has these bytes. Raises ObjectUnreadable."""
    return json_objects.parse(_RENDERED, key, data, "delete it, and materialise the batch again")


def keep_time(drawn: RenderedDocument, before: RenderedDocument | None) -> RenderedDocument:
    """A second rendering with the same outcome keeps the first one's time: the same rows, whenever it ran."""
    if before is None:
        return drawn
    same = replace(drawn, rendered_at=before.rendered_at)
    return same if same == before else drawn


def image(storage: Storage, page: RenderedPage) -> tuple[bytes | None, str | None]:
    """The page's image as it was drawn, or None and why not.

    Images are written before the record that holds their hashes, so a run that is killed while it draws the document
    again leaves images that do not match the record. Their text would become the transcript of an image that is gone.
    """
    try:
        jpeg = storage.read(page.image_key or "")
    except ObjectMissing:
        return None, None
    if hashlib.sha256(jpeg).hexdigest() != page.image_sha256:
        return None, f"{page.image_key} is not the image that was rendered"
    return jpeg, None
