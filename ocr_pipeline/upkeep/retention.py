"""What is kept for how long: page images and transcripts of old recipes. Off unless set; results are never touched."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from ocr_pipeline.lake import keys
from ocr_pipeline.lake.storage import ObjectInfo, Storage
from ocr_pipeline.warehouse.connection import Warehouse


def forget_images(lake: Storage, older_than: timedelta, now: datetime) -> int:
    """Deletes page images written before `now - older_than`; `ocr_markdown` alone can then not be made again."""
    old = (
        info for info in lake.list(keys.PAGES) if info.key.endswith(".jpg") and info.last_modified < now - older_than
    )
    return _delete(lake, old)


def forget_recipes(lake: Storage, older_than: timedelta, now: datetime, in_use: Iterable[str]) -> int:
    """Deletes transcripts written before `now - older_than` of every recipe that is not in use."""
    kept = tuple(f"{keys.TRANSCRIPTS}{recipe}/" for recipe in in_use)
    old = (
        info
        for info in lake.list(keys.TRANSCRIPTS)
        if not info.key.startswith(kept) and info.last_modified < now - older_than
    )
    return _delete(lake, old)


def recipes_in_use(warehouse: Warehouse) -> set[str]:
    """The recipes of the texts that the tables show."""
    with warehouse.read() as connection:
        return {row[0] for row in connection.execute("SELECT DISTINCT recipe_id FROM ocr.pages").fetchall()}


def _delete(lake: Storage, objects: Iterable[ObjectInfo]) -> int:
    doomed = [info.key for info in objects]
    lake.delete(doomed)
    return len(doomed)
