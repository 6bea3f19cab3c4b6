"""What OCR made of one document, as it stands in the lake (`pages/<batch>/<document>/reading.json`).

It repeats the transcripts of the document's pages so that the tables are made from one object per document instead
of one per page (a GET costs the client 5 to 8 ms of CPU through s3fs). The raw answers of attempts that were not taken
stay in the transcripts alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pydantic import TypeAdapter

from ocr_pipeline.lake import json_objects, keys
from ocr_pipeline.lake.storage import ObjectForbidden, ObjectMissing, ObjectUnreadable, Storage
from ocr_pipeline.records import PageAttempt, Reason, Transcript


@dataclass(frozen=True, slots=True, kw_only=True)
class PageReading:
    """One page that was to be read: its transcript, or the text layer that was taken instead of asking an engine."""

    number: int
    transcript: Transcript | None = None
    layer: str | None = None  # OCR_TEXT_LAYER=prefer and sound, or fallback after a failed transcript
    reason: Reason | None = None  # why there is neither
    detail: str | None = None
    replaced: tuple[PageAttempt, ...] = ()  # requests of the readings whose place this one has taken (`attempts.py`)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All pages of one document that were read, by one recipe."""

    document_id: str
    recipe_id: str
    pages: tuple[PageReading, ...] = ()
    anew: bool = False  # a retry run again with a new recipe, which keeps no page of the old one; or a retry of such


_READING = TypeAdapter(Reading)


def write(storage: Storage, batch: str, reading: Reading) -> None:
    storage.write(keys.reading(batch, reading.document_id), _READING.dump_json(reading))


def read(storage: Storage, batch: str, document_id: str) -> Reading | None:
    """The record, None where there is none. Raises ObjectUnreadable."""
    key = keys.reading(batch, document_id)
    try:
        return parse(key, storage.read(key))
    except ObjectMissing:
        return None


def read_sound(storage: Storage, batch: str, document_id: str) -> Reading | None:
    """The record, None where there is none or it is broken: for a run that writes it anew."""
    try:
        return read(storage, batch, document_id)
    except ObjectForbidden:  # it may be sound
        raise
    except ObjectUnreadable:
        return None


def without_raw_attempts(transcript: Transcript) -> Transcript:
    return replace(transcript, attempts=tuple(replace(attempt, text=None) for attempt in transcript.attempts))


def parse(key: str, data: bytes) -> Reading:
    """The record of that key, which has these bytes. Raises ObjectUnreadable."""
    return json_objects.parse(_READING, key, data, "delete it, and materialise the batch again")
