"""A local copy of what the batch lists say: which uploads are in a list, and which keys were seen to be deleted.

The copy is made from the lists alone and may be deleted at any time. Without it every tick would have to read again all
lists that may matter (600 a tick for the last 75 minutes of a busy inbox, every list for a comparison with the whole
inbox), and hold in memory what it compares. A list changes only when a purge rewrites it, which its etag shows.

A list that cannot be read does not stop the others. Its uploads then count as being in no list: those that are in the
inbox are cut into a new batch. Nothing is lost by that; their pages are drawn again, and no OCR is repeated.

Keys are kept in the order in which stores list them, so that an inbox of any size can be compared with the index in one
pass over both.
"""

# ruff: noqa: S608  conditions and the names of tables put into SQL here are ours; values are parameters

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from ocr_pipeline.lake import batches, deletions, planner
from ocr_pipeline.lake.storage import ObjectInfo, ObjectUnreadable, Storage, StorageError
from ocr_pipeline.records import Batch, Deletion, Upload

T = TypeVar("T")

LISTS_AT_ONCE = 64  # read and written down together; what a kill or the end of the time costs
KEYS_AT_ONCE = 1000
MOST_UNREADABLE = 10
"""Lists that are left out. More are no accident of single objects but a store that gives something else: then nothing
is cut, or a whole inbox might be drawn once more."""

SCHEMA_VERSION = 1  # an index of another version is made anew
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_TABLES = {
    "lists": "(id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, etag TEXT NOT NULL)",
    "uploads": "(key TEXT, list INTEGER, etag TEXT, size INTEGER, modified INTEGER, PRIMARY KEY (key, list))"
    " WITHOUT ROWID",
    "marks": "(key TEXT, list INTEGER, at INTEGER, up_to INTEGER, etags TEXT, PRIMARY KEY (key, list)) WITHOUT ROWID",
    "notes": "(name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID",
}


@dataclass(frozen=True, slots=True)
class Known:
    """What the batch lists say of one key."""

    key: str
    uploads: frozenset[Upload]
    mark: Deletion | None  # the last one
    lists: tuple[str, ...]  # every batch that names the key

    @property
    def there(self) -> bool:
        """Whether, by the lists, there is an upload of this key that is not marked deleted."""
        return any(not deletions.hides(self.mark, upload) for upload in self.uploads)

    def taken(self, upload: Upload) -> bool:
        """Whether the upload is in a batch list, and not marked deleted since."""
        return upload in self.uploads and not deletions.hides(self.mark, upload)

    @property
    def newest(self) -> tuple[Upload, ...]:
        """The uploads with the latest date: in a bucket, several may have one second."""
        last = max((upload.last_modified for upload in self.uploads), default=None)
        return tuple(sorted(upload for upload in self.uploads if upload.last_modified == last))


def index_file(storage: Storage, folder: Path) -> Path:
    """The index file of this lake. Two lakes in one file would each take the other's uploads for deleted ones."""
    return folder / f"{hashlib.sha256(storage.uri.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}.sqlite"


class BatchIndex:
    """The index of one lake, in a file of its own in `folder`. For one thread; processes may share the file.

    A context manager. Raises StorageError, also where the file cannot be made or used.
    """

    def __init__(self, storage: Storage, folder: Path) -> None:
        self._storage = storage
        self._path = index_file(storage, folder)
        with self._file_errors():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._open()
            except sqlite3.OperationalError:  # locked, full, not allowed: no fault of what is in it
                raise
            except sqlite3.DatabaseError:
                self._db.close()
                self._path.unlink()  # a power cut has torn it, or it is something else
                self._open()
        self.listed: dict[str, ObjectInfo] = {}
        """The batch lists that the last `refresh` saw, by name, sorted."""
        self.unreadable: dict[str, str] = {}
        """Those of them that it could not read, by name: what is wrong, and what to do."""

    def _open(self) -> None:
        self._db = sqlite3.connect(self._path, timeout=60, isolation_level=None)
        self._db.execute("PRAGMA secure_delete = ON")  # a purge means the name of the file too
        with self._transaction():  # of two that open it at once, one makes it anew, and the other finds it made
            if self._scalar("PRAGMA user_version") != SCHEMA_VERSION:
                for table, columns in _TABLES.items():
                    self._db.execute(f"DROP TABLE IF EXISTS {table}")
                    self._db.execute(f"CREATE TABLE {table} {columns}")
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def __enter__(self) -> BatchIndex:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._db.close()

    def refresh(self, since: datetime | None = None, out_of_time: Callable[[], bool] = lambda: False) -> bool:
        """Reads the lists that are not known yet: all, or those that may hold an upload at `since` or later.

        One listing, and a read for each list that is new. False when time ran out before the last one: what was read
        is kept, and the next call goes on. `LISTS_AT_ONCE` are read also when there is no time at all: whoever comes
        late each time gets through in the end. Raises ObjectUnreadable where more than
        `MOST_UNREADABLE` cannot be read.
        """
        floor = "" if since is None else planner.name_floor(since)
        with self._file_errors():
            # before the listing: what another process reads of lists that are written meanwhile is not gone
            known = dict(self._db.execute("SELECT name, etag FROM lists WHERE name > ?", [floor]).fetchall())
        self.listed = dict(batches.objects(self._storage, since))
        with self._file_errors():
            changed = {n for n, etag in known.items() if n not in self.listed or self.listed[n].etag != etag}
        if changed:
            self.forget(changed)
        self.unreadable = {}
        unread = [name for name in self.listed if name not in known or name in changed]
        for number, names in enumerate(_groups(unread, LISTS_AT_ONCE)):
            if number and out_of_time():
                return False
            self._add(self._read_lists(names))
        return True

    def forget(self, names: Iterable[str]) -> None:
        """What these lists said is known no more; the next refresh reads again those that are there."""
        with self._file_errors(), self._transaction():
            self._forget(names)

    def _read_lists(self, names: Iterable[str]) -> list[tuple[str, Batch]]:
        read = list[tuple[str, Batch]]()
        for name, found in batches.read_each(self._storage, names):
            if isinstance(found, Batch):
                read.append((name, found))
            else:
                self.unreadable[name] = str(found)
        if len(self.unreadable) > MOST_UNREADABLE:
            first = next(iter(self.unreadable.values()))
            raise ObjectUnreadable(
                f"{len(self.unreadable)} batch lists or more cannot be read: does {self._storage.uri} give what was "
                f"written there? The first one: {first}"
            )
        return read

    def known(self, wanted: Iterable[str]) -> dict[str, Known]:
        """What the lists say of these keys; those that none names are left out."""
        found = {}
        with self._file_errors():
            for some in _groups(sorted(set(wanted)), KEYS_AT_ONCE):
                found.update({known.key: known for known in self._read(f"key IN ({_placeholders(some)})", list(some))})
        return found

    def in_order(self, prefix: str, after: str | None = None) -> Iterator[Known]:
        """What the lists say of every key below `prefix` and behind `after`, in the order in which stores list keys."""
        last = max(prefix, after or "", key=str.encode)
        while True:
            with self._file_errors():
                end = self._scalar(
                    "SELECT key FROM uploads WHERE key > ? ORDER BY key LIMIT 1 OFFSET ?", last, KEYS_AT_ONCE
                )
                if end is None:
                    found = self._read("key > ?", [last])
                else:
                    found = self._read("key > ? AND key <= ?", [last, end])
            for known in found:
                if not known.key.startswith(prefix):
                    return
                yield known
            if end is None:
                return
            last = end

    def uploads_of(self, names: Iterable[str]) -> dict[str, list[Upload]]:
        """The uploads in each of these batch lists.

        Lists of deletions alone, and lists that are not read yet, are left out. A pass over all uploads for each
        `KEYS_AT_ONCE` names (there is no index by list: it would be as large as the table).
        """
        found: dict[str, list[Upload]] = {}
        for some in _groups(sorted(set(names)), KEYS_AT_ONCE):
            with self._file_errors():
                by_number = dict(
                    self._db.execute(
                        f"SELECT id, name FROM lists WHERE name IN ({_placeholders(some)})", some
                    ).fetchall()
                )
                rows = self._db.execute(
                    f"SELECT list, key, etag, size, modified FROM uploads WHERE list IN ({_placeholders(by_number)})",
                    list(by_number),
                ).fetchall()
            for number, key, etag, size, modified in rows:
                found.setdefault(by_number[number], []).append(Upload(key, etag, size, _time(modified)))
        return found

    def set_note(self, name: str, value: str | None) -> None:
        """Stores a value in the index file; it is lost when the index is."""
        with self._file_errors():
            self._db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", [name, value])

    def get_note(self, name: str) -> str | None:
        with self._file_errors():
            found: str | None = self._scalar("SELECT value FROM notes WHERE name = ?", name)
            return found

    # ------------------------------------------------------------------------------------------------------ the tables

    def _add(self, lists: Collection[tuple[str, Batch]]) -> None:
        with self._file_errors(), self._transaction():
            self._forget(name for name, _ in lists)  # another process may have read them meanwhile
            for name, batch in lists:
                number = self._db.execute(
                    "INSERT INTO lists (name, etag) VALUES (?, ?)", [name, self.listed[name].etag]
                ).lastrowid
                self._db.executemany(
                    "INSERT OR REPLACE INTO uploads VALUES (?, ?, ?, ?, ?)",
                    ((u.key, number, u.etag, u.size, _microseconds(u.last_modified)) for u in batch.uploads),
                )
                self._db.executemany(
                    "INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?, ?)",
                    (
                        (
                            key,
                            number,
                            _microseconds(m.deleted_at),
                            _microseconds(m.up_to),
                            m.etags and json.dumps(m.etags),
                        )
                        for key, m in deletions.marks(batch).items()
                    ),
                )

    def _forget(self, names: Iterable[str]) -> None:
        """One pass over the tables, however many lists: all of them have other etags once a lake was restored."""
        self._db.execute("CREATE TEMP TABLE IF NOT EXISTS forgotten (id INTEGER PRIMARY KEY)")
        self._db.execute("DELETE FROM forgotten")
        self._db.executemany("INSERT INTO forgotten SELECT id FROM lists WHERE name = ?", ([name] for name in names))
        if self._scalar("SELECT count(*) FROM forgotten"):
            for table, column in (("uploads", "list"), ("marks", "list"), ("lists", "id")):
                self._db.execute(f"DELETE FROM {table} WHERE {column} IN (SELECT id FROM forgotten)")

    def _read(self, condition: str, values: list[Any]) -> list[Known]:
        uploads = self._db.execute(
            "SELECT key, name, uploads.etag, size, modified FROM uploads JOIN lists ON id = list "
            f"WHERE {condition} ORDER BY key",
            values,
        ).fetchall()
        marks: dict[str, list[tuple[str, Deletion]]] = {}
        for key, name, at, up_to, etags in self._db.execute(
            f"SELECT key, name, at, up_to, etags FROM marks JOIN lists ON id = list WHERE {condition}", values
        ):
            mark = Deletion(_time(at), None if up_to is None else _time(up_to), etags and tuple(json.loads(etags)))
            marks.setdefault(key, []).append((name, mark))
        found = []
        for key, rows in groupby(uploads, key=lambda row: str(row[0])):
            marked = marks.get(key, [])
            versions = list(rows)
            found.append(
                Known(
                    key,
                    frozenset(Upload(key, etag, size, _time(modified)) for _, _, etag, size, modified in versions),
                    max((mark for _, mark in marked), key=lambda mark: mark.deleted_at, default=None),
                    tuple(sorted({name for _, name, *_ in versions} | {name for name, _ in marked})),
                )
            )
        return found

    def _scalar(self, statement: str, *values: Any) -> Any:
        with closing(self._db.execute(statement, values)) as rows:
            row = rows.fetchone()
        return None if row is None else row[0]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextmanager
    def _file_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"{self._path}: {error}; it is a copy of the batch lists: "
                "make room on the disk, or delete the file, and it is made anew"
            ) from error


def _groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    remaining = iter(items)
    while group := list(islice(remaining, size)):
        yield group


def _placeholders(values: Collection[Any]) -> str:
    return ",".join("?" * len(values))


def _microseconds(time: datetime | None) -> int | None:
    """Microseconds: a whole number, so that a time comes back as it went in."""
    return None if time is None else (time - EPOCH) // timedelta(microseconds=1)


def _time(number: int) -> datetime:
    return EPOCH + timedelta(microseconds=number)
