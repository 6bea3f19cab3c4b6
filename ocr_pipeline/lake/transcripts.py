"""Transcripts in the lake: one object a page image and recipe. The cache, the checkpoint and the proof in one."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from pydantic import TypeAdapter

from ocr_pipeline.lake import json_objects, keys
from ocr_pipeline.lake.storage import ObjectForbidden, ObjectMissing, ObjectUnreadable, Storage, Tell, parallel_map
from ocr_pipeline.records import Transcript

log = logging.getLogger(__name__)

_TRANSCRIPT = TypeAdapter(Transcript)


def read(storage: Storage, recipe_id: str, image_sha256: str) -> Transcript | None:
    """The transcript of that image under that recipe, or None. Raises ObjectUnreadable."""
    key = keys.transcript(recipe_id, image_sha256)
    try:
        return parse(key, storage.read(key))
    except ObjectMissing:
        return None


def read_sound(storage: Storage, recipe_id: str, image_sha256: str) -> Transcript | None:
    """The transcript, None where there is none or it is broken: for a run that reads the page and writes it anew.

    Raises ObjectForbidden: it may be sound.
    """
    try:
        return read(storage, recipe_id, image_sha256)
    except ObjectForbidden:
        raise
    except ObjectUnreadable as error:
        log.warning("a page is read again: %s", error)
        return None


def parse(key: str, data: bytes) -> Transcript:
    """The transcript of that key, which has these bytes. Raises ObjectUnreadable."""
    return json_objects.parse(_TRANSCRIPT, key, data, "delete it, and its page is read again when its batch runs")


def write(storage: Storage, transcript: Transcript) -> None:
    """Makes a page's result durable. Replaces an earlier one, which the caller has carried over in `attempts`."""
    storage.write(keys.transcript(transcript.recipe_id, transcript.image_sha256), _TRANSCRIPT.dump_json(transcript))


def load(storage: Storage, recipe_id: str, tell: Tell | None = None) -> Iterator[Transcript]:
    """Every transcript of one recipe, many reads at once.

    Raises ObjectUnreadable; with `tell`, which gets what is wrong with it, one that cannot be read is left out.
    """

    def work(key: str) -> Transcript | None:
        try:
            return parse(key, storage.read(key))
        except ObjectMissing:
            return None
        except ObjectUnreadable as error:
            if tell is None:
                raise
            tell(str(error))
            return None

    found = parallel_map(work, (info.key for info in storage.list(keys.transcripts(recipe_id))))
    return (transcript for transcript in found if transcript is not None)
