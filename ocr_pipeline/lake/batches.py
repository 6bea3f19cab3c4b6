"""Batch lists in the lake: written create-only, read back, and searched for what they hold.

The lists are the truth about what was seen; the sensor's cursor only says from where to look again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from pydantic import TypeAdapter

from ocr_pipeline.lake import json_objects, keys, planner
from ocr_pipeline.lake.storage import ObjectInfo, ObjectMissing, ObjectUnreadable, Storage, Tell, parallel_map
from ocr_pipeline.records import Batch

MEND = (
    "put it back from your copy of batches/, or delete it where there is none: what of its uploads is in the inbox is "
    "then cut into a batch anew, and a retry has to be asked for again"
)

FIRST_YEAR = 1969  # 1970 began in it, west of Greenwich

_BATCH = TypeAdapter(Batch)


def write(storage: Storage, batch: Batch) -> bool:
    """Writes a batch list; False when it is there already, which is the same list since its name is its content: so one
    that is there and cannot be read is mended by this one."""
    if storage.create(keys.batch(batch.name), dump(batch)):
        return True
    try:
        read(storage, batch.name)
    except ObjectUnreadable:
        storage.write(keys.batch(batch.name), dump(batch))
        return True
    return False


def read(storage: Storage, name: str) -> Batch:
    """The batch list `name`. Raises ObjectMissing, ObjectUnreadable."""
    return parse(name, storage.read(keys.batch(name)))


def dump(batch: Batch) -> bytes:
    """The batch list as it is written."""
    return _BATCH.dump_json(batch, indent=1)


def parse(name: str, data: bytes) -> Batch:
    """The batch list `name`, which has these bytes. Raises ObjectUnreadable."""
    batch = json_objects.parse(_BATCH, keys.batch(name), data, MEND)
    if (fault := _fault(batch, name)) is not None:
        raise ObjectUnreadable(f"{keys.batch(name)} {fault}: {MEND}")
    return batch


def _fault(batch: Batch, name: str) -> str | None:
    """Why these cannot be the bytes that were written for `name`, though they are a list: people restore by hand."""
    if batch.name != name:
        return f"is the list of batch {batch.name}, not its own"
    uploads = (*batch.uploads, *batch.gone)
    times = [upload.last_modified for upload in uploads] + ([batch.created_at] if batch.created_at else [])
    if any(time.tzinfo is None or time.year < FIRST_YEAR for time in times):
        return "has a time without a time zone, or before 1970"
    if any(not 0 <= upload.size < 2**63 for upload in uploads):
        return "has an upload of an impossible size"
    return None


def objects(storage: Storage, since: datetime | None = None) -> Iterator[tuple[str, ObjectInfo]]:
    """All batch lists by name, or those that may hold an upload at `since` or later; sorted.

    What else lies there is left alone: copies under other names (`<batch> (1).json`), as file managers, backups and
    file synchronisers make them, would be batches that nobody can run.
    """
    for info in storage.list(keys.BATCHES, start_after=keys.BATCHES + planner.name_floor(since) if since else None):
        if (name := _name(info.key)) is not None:
            yield name, info


def others(storage: Storage) -> Iterator[str]:
    """Keys of what lies below batches/ and is no batch list: a purge looks there too."""
    return (info.key for info in storage.list(keys.BATCHES) if _name(info.key) is None)


def _name(key: str) -> str | None:
    """The name of the batch whose list has this key."""
    name = key.removeprefix(keys.BATCHES).removesuffix(".json")
    return name if key == keys.batch(name) and planner.NAME.fullmatch(name) else None


def names(storage: Storage, since: datetime | None = None) -> Iterator[str]:
    """Names of all batch lists, or of those that may hold an upload at `since` or later; sorted."""
    return (name for name, _ in objects(storage, since))


def load(storage: Storage, since: datetime | None = None, tell: Tell | None = None) -> Iterator[Batch]:
    """The batch lists themselves, many reads at once; `tell` as in `read_many`."""
    return read_many(storage, names(storage, since), tell)


def read_many(storage: Storage, wanted: Iterable[str], tell: Tell | None = None) -> Iterator[Batch]:
    """The batch lists of these names, many reads at once, in their order; one that is not there is left out.

    So is one that cannot be read, and `tell` gets what is wrong with it; without `tell` that raises ObjectUnreadable.
    """
    for _, found in read_each(storage, wanted):
        if isinstance(found, Batch):
            yield found
        elif tell is None:
            raise found
        else:
            tell(str(found))


def read_each(storage: Storage, wanted: Iterable[str]) -> Iterator[tuple[str, Batch | ObjectUnreadable]]:
    """Each of these lists by its name, or what is wrong with it; many reads at once, in their order. One that is not
    there is left out."""

    def work(name: str) -> tuple[str, Batch | ObjectUnreadable | None]:
        try:
            return name, read(storage, name)
        except ObjectMissing:
            return name, None
        except ObjectUnreadable as error:
            return name, error

    return ((name, found) for name, found in parallel_map(work, wanted) if found is not None)


def write_many(storage: Storage, wanted: Iterable[Batch]) -> None:
    """`write` for many at once."""
    for _ in parallel_map(lambda batch: write(storage, batch), wanted):
        pass


def documents_since(storage: Storage, since: datetime, enough: int) -> int:
    """How many keys were uploaded at `since` or later, by the batch lists; no exact number from `enough` on.

    Reads fewer than `enough` lists: as a rule each has a document at least.
    """
    recent = list(names(storage, since))
    if len(recent) >= enough:
        return len(recent)
    read = read_many(storage, recent, tell=lambda error: None)
    return len({u.key for batch in read for u in batch.uploads if u.last_modified >= since})
