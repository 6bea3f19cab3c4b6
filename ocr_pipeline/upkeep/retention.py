"""How long page images and the transcripts of old recipes are kept. Off unless set; results are never touched.

Which recipes are in use is decided by the lake alone: transcripts are the one thing that cannot be made again, and the
warehouse may be empty, lost, or not the one that belongs to this lake.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta

from ocr_pipeline.flow import reading
from ocr_pipeline.flow.published import Manifest
from ocr_pipeline.lake import batches, keys
from ocr_pipeline.lake.storage import ObjectInfo, Storage, StorageError, parallel_map
from ocr_pipeline.upkeep.published import columns, of_each

MOST_KEPT = 100
"""Objects that cannot be deleted, until the others are not tried either: then it is the store that refuses."""


def forget_images(lake: Storage, older_than: timedelta, now: datetime) -> int:
    """Deletes page images written before `now - older_than`; their pages keep their text, and are drawn
    again to be read under another recipe."""
    old = (
        info for info in lake.list(keys.PAGES) if keys.is_page_image(info.key) and info.last_modified < now - older_than
    )
    return _delete(lake, old)


def forget_recipes(lake: Storage, older_than: timedelta, now: datetime, in_use: Collection[str]) -> int:
    """Deletes transcripts written before `now - older_than` of every recipe that is not in use; returns how many.

    None where `in_use` is empty: then it is not known, and every transcript would go.
    """
    if not in_use:
        return 0
    kept = tuple(map(keys.transcripts, in_use))
    old = (
        info
        for info in lake.list(keys.TRANSCRIPTS)
        if not info.key.startswith(kept) and info.last_modified < now - older_than
    )
    return _delete(lake, old)


def recipes_in_use(lake: Storage) -> set[str]:
    """The recipes of the texts that are published (Parquet), and of those that were read and are not published yet."""
    found: set[str] = set()
    published = set()
    for name, recipes in of_each(lake, lambda manifest: (manifest.batch, _recipes(lake, manifest))):
        published.add(name)
        found.update(recipes)
    waiting = (
        info.key
        for name in batches.names(lake)
        if name not in published
        for info in lake.list(keys.pages_of_batch(name))
        if keys.is_reading(info.key)
    )
    for key, data in lake.read_many(waiting):
        if data is not None:
            found.add(reading.parse(key, data).recipe_id)
    return found


def _recipes(lake: Storage, manifest: Manifest) -> Sequence[str]:
    pages = columns(lake, manifest, "pages", "recipe_id")
    return pages["recipe_id"].unique().to_pylist() if pages is not None else []


def _delete(lake: Storage, objects: Iterable[ObjectInfo]) -> int:
    """Deletes them, and returns how many. One that cannot be deleted keeps no other: StorageError comes at the end."""

    def work(key: str) -> StorageError | None:
        try:
            lake.delete([key])
        except StorageError as error:
            return error
        return None

    doomed = [info.key for info in objects]
    errors = list[StorageError]()
    for error in parallel_map(work, doomed):
        errors += [error] if error else []
        if len(errors) > MOST_KEPT:
            break
    if errors:
        raise StorageError(f"{len(errors)} of {len(doomed)} objects could not be deleted, first: {errors[0]}")
    return len(doomed)
