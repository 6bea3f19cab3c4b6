"""Transcripts in the lake: one object a page image and recipe. The cache, the checkpoint and the proof in one."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import TypeAdapter

from ocr_pipeline.lake import keys
from ocr_pipeline.lake.storage import ObjectMissing, Storage
from ocr_pipeline.records import Transcript

_TRANSCRIPT = TypeAdapter(Transcript)


def read(storage: Storage, recipe_id: str, image_sha256: str) -> Transcript | None:
    """The transcript of that image under that recipe, or None."""
    try:
        return parse(storage.read(keys.transcript(recipe_id, image_sha256)))
    except ObjectMissing:
        return None


def parse(data: bytes) -> Transcript:
    """The transcript in these bytes."""
    return _TRANSCRIPT.validate_json(data)


def write(storage: Storage, transcript: Transcript) -> None:
    """Makes a page's result durable. Replaces an earlier one, which the caller has carried over in `attempts`."""
    storage.write(keys.transcript(transcript.recipe_id, transcript.image_sha256), _TRANSCRIPT.dump_json(transcript))


def load(storage: Storage, recipe_id: str) -> Iterator[Transcript]:
    """Every transcript of one recipe, many reads at once."""
    found = (info.key for info in storage.list(f"{keys.TRANSCRIPTS}{recipe_id}/"))
    for _, data in storage.read_many(found):
        if data is not None:
            yield parse(data)
