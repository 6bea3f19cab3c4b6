"""What stands under many keys now: asked side by side, and one key that the store refuses stays alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ocr_pipeline.lake import keys
from ocr_pipeline.lake.storage import ObjectInfo, Storage, StorageError, side_by_side
from ocr_pipeline.records import Upload

PROBE = keys.batch("does-the-lake-answer")


@dataclass(slots=True)
class Standing:
    """The answers, by key."""

    there: dict[str, ObjectInfo] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    refused: dict[str, StorageError] = field(default_factory=dict)  # encrypted with a customer's key, no right, …


def standing(storage: Storage, wanted: Iterable[str]) -> Standing:
    """Raises StorageError when the store answers nothing at all: then it is no fault of a key."""

    def work(key: str) -> tuple[str, ObjectInfo | StorageError | None]:
        try:
            return key, storage.stat(key)
        except StorageError as error:
            return key, error

    found = Standing()
    for key, answer in side_by_side(work, wanted):
        if isinstance(answer, StorageError):
            if not found.refused:
                storage.stat(PROBE)
            found.refused[key] = answer
        elif answer is None:
            found.gone.append(key)
        else:
            found.there[key] = answer
    return found


def stands(storage: Storage, upload: Upload) -> bool:
    """Whether the upload is still what its key holds; False where the store does not give that one object."""
    try:
        there = storage.stat(upload.key)
    except StorageError:
        return False
    return there is not None and there.etag == upload.etag


def any_stands(storage: Storage, uploads: Iterable[Upload]) -> bool:
    """Whether one of the uploads `stands`: asked side by side, up to the first that does."""
    return any(side_by_side(lambda upload: stands(storage, upload), uploads))
