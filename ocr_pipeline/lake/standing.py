"""What stands under many keys now: asked side by side, and one key that the store refuses stays alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ocr_pipeline.lake import keys
from ocr_pipeline.lake.storage import ObjectInfo, Storage, StorageError, side_by_side

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
