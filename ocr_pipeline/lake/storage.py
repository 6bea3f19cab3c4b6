"""The interface to object storage: what every store can do, and how it fails.

Here belong the `Storage` protocol, and the records and errors that go with it. Not here: which store is behind a URL
(`opening.py`), how a store does its work (`local.py`, `s3.py`), what keys are called (`keys.py`), how new uploads are
found (`listing.py`).

A key is a plain string such as "inbox/reports/a b.pdf": no leading slash, any character a store allows. Keys arrive
and leave unchanged; nothing here quotes or normalises them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

from ocr_pipeline.records import Upload

Tell = Callable[[str], None]
"""Gets what is wrong with one thing of many, and what to do, where the others are gone on with."""

In = TypeVar("In")
Out = TypeVar("Out")

PARALLEL = 16
"""Requests in flight of one bulk call: more did not help on two cores (s3fs costs 2 to 4 ms CPU a request)."""


class StorageError(Exception):
    """Storage did not do what was asked; the message says what was wrong, where, and what to do."""


class ObjectMissing(StorageError):
    """There is no object under this key (or no longer)."""

    def __init__(self, uri: str) -> None:
        super().__init__(f"there is no object {uri}")
        self.uri = uri


class KeyRefused(StorageError):
    """No object of this store can have the key, whatever the state of the store."""


class KeyBlocked(StorageError):
    """Something that is no object stands in the key's place, in a local folder: a folder of its name, a file where one
    of its folders should be, or a link that leaves the lake. Other keys are not affected."""


class ObjectTooLarge(StorageError):
    """The object has more bytes than the caller takes; nothing was kept."""

    def __init__(self, uri: str, size: int, max_bytes: int) -> None:
        super().__init__(f"{uri} has {size} bytes, more than the limit of {max_bytes}")
        self.size = size


class ObjectUnreadable(StorageError):
    """The object is there and cannot be read: its bytes are not what was written, or the disk fails at them. Others may
    well be sound."""


class ObjectForbidden(ObjectUnreadable):
    """This user lacks the right to read the object. Its bytes may be sound: nothing is to be made in its place."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One version of an object."""

    key: str
    etag: str  # without quotes; local: made of size and modification time
    size: int  # bytes
    last_modified: datetime
    """When this version came to be under this key, UTC. On a local folder the inode's change time."""
    moved: datetime | None = field(default=None, compare=False)
    """When a folder that it lies in was moved there with all its files, which keep their times; only in listings of a
    local folder. It is no part of the upload's identity."""

    @property
    def arrived(self) -> datetime:
        """When it came to be found where it is: what a watermark is to be compared with."""
        return self.last_modified if self.moved is None else max(self.last_modified, self.moved)

    def as_upload(self) -> Upload:
        return Upload(self.key, self.etag, self.size, self.last_modified)


@dataclass(frozen=True, slots=True)
class S3Options:
    """How to reach R2 or another S3 store. Keys are never shown, not even by repr.

    Without `endpoint_url` the endpoint is R2's, made from `account_id` and `jurisdiction` ("eu", "fedramp"): a
    jurisdiction's endpoint sees only its own buckets.
    """

    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    endpoint_url: str | None = None
    account_id: str | None = None
    jurisdiction: str | None = None
    region: str = "auto"


class Storage(Protocol):
    """Object storage below one root. Safe to use from many threads at once; not across a fork.

    Every method raises `StorageError` when the store cannot be reached or refuses, `KeyRefused` for a key that it does
    not allow, and `KeyBlocked` for one whose place something else holds. Stores inherit from it: the calls for many
    objects are made of those for one.
    """

    uri: str
    """The root as a URI, without a slash at the end: "file:///data/lake", "s3://bucket/prefix"."""
    is_local: bool
    """Whether objects are files of this machine: then `uri_of` is a path that other programs can open."""

    def uri_of(self, key: str) -> str:
        """Where the object is, for people and for DuckDB: a plain absolute path, or "s3://bucket/prefix/key".

        The key stands in it unchanged, without percent-encoding.
        """
        ...

    def read(self, key: str) -> bytes:
        """The object's bytes. Raises `ObjectMissing`."""
        ...

    def download(self, key: str, path: Path, max_bytes: int | None = None) -> ObjectInfo:
        """Stream the object into the local file `path`, and say which version was really read.

        Raises `ObjectMissing`, and `ObjectTooLarge` before more than `max_bytes` are fetched. After an error `path`
        is gone.
        """
        ...

    def write(self, key: str, data: bytes) -> None:
        """Put the object there whole or not at all, also under kill -9; an older one is replaced."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Put the object there if there is none; False when there is one already. A lost race is an answer."""
        ...

    def upload(self, key: str, path: Path) -> None:
        """`write` from a local file of any size, without holding it in memory.

        Raises the OSError of a file that cannot be read as it is.
        """
        ...

    def stat(self, key: str) -> ObjectInfo | None:
        """The object as it stands now; None when there is none."""
        ...

    def list(self, prefix: str, start_after: str | None = None, tell: Tell | None = None) -> Iterator[ObjectInfo]:
        """All objects whose key starts with `prefix`, sorted by the key's UTF-8 bytes, as a stream.

        Only keys after `start_after` where it is given. Keys with a part that starts with a dot are left out: hidden
        files are not ours, and "." and ".." are no names.

        A folder of a local lake that cannot be read raises ObjectUnreadable; with `tell`, which gets what is wrong with
        it, its objects are left out: they may be there all the same. Never the folder that `prefix` itself names.
        """
        ...

    def remove_leftovers(self, prefix: str, before: datetime) -> int:
        """Remove what a killed process left half-written below `prefix` before that time; how many there were."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Remove the objects; one that is not there is no error."""
        ...

    def read_many(self, keys: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        """Read side by side, at most `PARALLEL` at once; in the order of `keys`, None for one that is missing."""

        def work(key: str) -> tuple[str, bytes | None]:
            try:
                return key, self.read(key)
            except ObjectMissing:
                return key, None

        return parallel_map(work, keys)

    def write_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Write side by side, at most `PARALLEL` at once; returns when all are there, raises the first error."""
        for _ in parallel_map(lambda item: self.write(*item), items):
            pass


def is_hidden(key: str) -> bool:
    """Whether a part of the key starts with a dot: the name of a hidden file, or "." or ".."."""
    return key.startswith(".") or "/." in key


def climbs(key: str) -> bool:
    """Whether a part of the key is "." or "..". No file has such a key, and on the way to an S3 store the URL is often
    shortened, so that the request would hit another object (Cloudflare's simulator does it)."""
    return "/./" in (path := f"/{key}/") or "/../" in path


def parallel_map(work: Callable[[In], Out], items: Iterable[In], parallel: int = PARALLEL) -> Iterator[Out]:
    """The results of `work` in the order of `items`; at most `parallel` at work and as many results waiting.

    Where it ends early (an error, Ctrl-C, a caller who wants no more), it waits for the items at work.
    """
    pool = ThreadPoolExecutor(parallel, thread_name_prefix="lake")
    waiting: list[Future[Out]] = []
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= 2 * parallel:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
