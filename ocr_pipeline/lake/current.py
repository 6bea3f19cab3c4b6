"""What is under many keys of the store now. Asked in parallel; if the store refuses one key, only that key fails."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ocr_pipeline.lake import keys
from ocr_pipeline.lake.storage import ObjectInfo, Storage, StorageError, parallel_map
from ocr_pipeline.records import Upload

PROBE = keys.batch("does-the-lake-answer")


@dataclass(slots=True)
class StatResults:
    """The answers, by key."""

    found: dict[str, ObjectInfo] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    refused: dict[str, StorageError] = field(default_factory=dict)  # encrypted with a customer's key, no right, …


def stat_many(storage: Storage, wanted: Iterable[str]) -> StatResults:
    """Looks at each key. Raises StorageError only if the store does not answer at all."""

    def work(key: str) -> tuple[str, ObjectInfo | StorageError | None]:
        try:
            return key, storage.stat(key)
        except StorageError as error:
            return key, error

    results = StatResults()
    for key, answer in parallel_map(work, wanted):
        if isinstance(answer, StorageError):
            if not results.refused:
                storage.stat(PROBE)
            results.refused[key] = answer
        elif answer is None:
            results.missing.append(key)
        else:
            results.found[key] = answer
    return results


def is_current(storage: Storage, upload: Upload) -> bool:
    """Whether the upload is still the object under its key; False if the store refuses that one object."""
    try:
        there = storage.stat(upload.key)
    except StorageError:
        return False
    return there is not None and there.etag == upload.etag


def current(storage: Storage, uploads: Iterable[Upload]) -> set[Upload]:
    """Those of the uploads that are current: asked in parallel."""
    asked = list(uploads)
    answers = parallel_map(lambda upload: is_current(storage, upload), asked)
    return {upload for upload, answer in zip(asked, answers, strict=True) if answer}


def any_current(storage: Storage, uploads: Iterable[Upload]) -> bool:
    """Whether one of the uploads `is_current`: asked in parallel, up to the first that is."""
    return any(parallel_map(lambda upload: is_current(storage, upload), uploads))
