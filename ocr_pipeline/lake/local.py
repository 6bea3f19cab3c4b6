"""A local folder as object storage: atomic writes, create-only writes, and no way out of the folder.

Here belongs what the local file system needs for that. Not here: what keys mean.

fsspec's LocalFileSystem is handed out (`filesystem`) to those who read through fsspec, as DuckDB and pyarrow do. Our
own reads and writes do not go through it: it follows links out of the folder, expands "~", opens FIFOs, and its
writes are neither atomic nor create-only.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from ocr_pipeline.lake.local_faults import OF_ONE, in_words, kind_of
from ocr_pipeline.lake.source_file import open_source
from ocr_pipeline.lake.storage import (
    KeyBlocked,
    KeyRefused,
    ObjectInfo,
    ObjectMissing,
    ObjectTooLarge,
    ObjectUnreadable,
    Storage,
    StorageError,
    Tell,
    is_hidden,
)

log = logging.getLogger(__name__)

NAME_BYTES = 255
"""The longest name of one file on ext4, XFS, APFS and NTFS (there in UTF-16 units)."""

COPY_BYTES = 1 << 20
CHANGED_RETRIES = 3
TEMPORARY = ".tmp-"
_OURS = re.compile(rf"{re.escape(TEMPORARY)}[0-9a-f]{{32}}")
"""Names that this module gives: people may have files that begin alike."""


class LocalStorage(Storage):
    """The objects are the files below `root`; a key is the path below it. See `Storage` for the methods.

    Not allowed as keys, since they could not be files below `root` or could not be told from our own temporary files:
    empty, ".", ".." or hidden parts, NUL, text that is not UTF-8, a part longer than 255 bytes.
    Links: a link to a file is followed when the file is inside `root`; a link to a folder is not listed (no loops),
    and nothing is read or written through a link that leaves `root`.
    """

    is_local = True

    def __init__(self, root: Path) -> None:
        # The root itself may be a link. Not created here: opening a store changes nothing.
        self.root = os.path.realpath(root.expanduser())
        self.uri = f"file://{self.root}"
        self._warned: set[str] = set()

    @property
    def filesystem(self) -> Any:
        """The fsspec file system on which `uri_of` is a path."""
        from fsspec.implementations.local import LocalFileSystem

        return LocalFileSystem()

    def uri_of(self, key: str) -> str:
        return os.path.join(self.root, key)

    def read(self, key: str) -> bytes:
        with self._open(key) as file:
            return self._read(key, file)

    def download(self, key: str, path: Path, max_bytes: int | None = None) -> ObjectInfo:
        for _ in range(CHANGED_RETRIES):
            with self._open(key) as source:
                before = os.fstat(source.fileno())
                if max_bytes is not None and before.st_size > max_bytes:
                    raise ObjectTooLarge(self.uri_of(key), before.st_size, max_bytes)
                try:
                    with open(path, "wb") as target:
                        copied = self._copy(key, source, target, before.st_size)
                except BaseException:
                    path.unlink(missing_ok=True)
                    raise
                after = os.fstat(source.fileno())
            if copied == before.st_size and _etag(before) == _etag(after):
                return _info(key, before)
        path.unlink(missing_ok=True)
        raise StorageError(f"{self.uri_of(key)} changed while it was read: something still writes to it; try later")

    def write(self, key: str, data: bytes) -> None:
        self._put(key, lambda file: _write_all(file, data), os.replace)

    def create(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        try:
            if not os.path.lexists(path):
                self._put(key, lambda file: _write_all(file, data), _link)
                return True
        except FileExistsError:
            pass
        if os.path.isdir(path):
            raise self._write_error(IsADirectoryError(errno.EISDIR, ""), path)
        return False

    def upload(self, key: str, path: Path) -> None:
        with open_source(path) as source:
            self._put(key, lambda file: shutil.copyfileobj(source, file, COPY_BYTES), os.replace)

    def stat(self, key: str) -> ObjectInfo | None:
        try:
            with self._open(key) as file:
                return _info(key, os.fstat(file.fileno()))
        except ObjectMissing:
            return None

    def list(self, prefix: str, start_after: str | None = None, tell: Tell | None = None) -> Iterator[ObjectInfo]:
        folder = prefix.rpartition("/")[0]
        if is_hidden(prefix):
            return
        if folder:
            self._path(folder + "/x")
        after = None if start_after is None else os.fsencode(start_after)
        yield from self._walk(os.fsencode(folder + "/" if folder else ""), os.fsencode(prefix), after, tell)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            path = self._path(key)
            try:
                os.unlink(path)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                continue
            except OSError as error:
                raise in_words(error, path) from error
            self._remove_empty_folders(key)

    def remove_leftovers(self, prefix: str, before: datetime) -> int:
        """Remove temporary files that a killed process left below `prefix` before that time; how many there were."""
        removed = 0
        for folder, _, names in os.walk(self._path(prefix + "x").rpartition("/")[0]):
            for name in names:
                path = os.path.join(folder, name)
                if not _OURS.fullmatch(name):
                    continue
                try:
                    if os.lstat(path).st_mtime < before.timestamp():
                        os.unlink(path)
                        removed += 1
                except FileNotFoundError:  # a write that is at its end this moment
                    pass
                except OSError as error:
                    self._warn(os.fsencode(path), f"cannot be removed: {error.strerror}")
        return removed

    # ------------------------------------------------------------------------------------------------- keys to files

    def _path(self, key: str) -> str:
        """The file behind the key, checked: the one place where a key becomes a path."""
        parts = key.split("/")
        if not key or "" in parts:
            raise KeyRefused(f"the key {key!r} has an empty part: a local lake cannot hold it")
        if ".." in parts or "." in parts:
            raise KeyRefused(f"the key {key!r} leaves the lake {self.uri}")
        if is_hidden(key):
            raise KeyRefused(f"the key {key!r} has a hidden part (it starts with a dot): rename it")
        if "\0" in key:
            raise KeyRefused(f"the key {key!r} holds a NUL character: a local lake cannot hold it")
        try:
            longest = max(len(part.encode()) for part in parts)
        except UnicodeEncodeError:
            raise KeyRefused(f"the key {key!r} is not valid Unicode: rename it") from None
        if longest > NAME_BYTES:
            raise KeyRefused(f"a part of the key {key!r} has {longest} bytes; files take {NAME_BYTES}: shorten it")
        path = os.path.join(self.root, key)
        folder = os.path.dirname(path)
        if not self._inside(os.path.realpath(folder)):
            raise KeyBlocked(
                f"{folder} is or lies behind a link that leaves the lake {self.uri}: "
                "move the files in, or bind-mount the folder"
            )
        return path

    def _inside(self, real_path: str) -> bool:
        return real_path == self.root or real_path.startswith(self.root.rstrip("/") + "/")

    def _open(self, key: str) -> BinaryIO:
        path = self._path(key)
        if os.path.islink(path) and not self._inside(os.path.realpath(path)):
            raise KeyBlocked(f"{path} is a link that leaves the lake {self.uri}: replace it by the file itself")
        try:
            # Without O_NONBLOCK, a FIFO in the inbox would hang the pipeline.
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise ObjectMissing(self.uri_of(key)) from None
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.EISDIR):
                raise ObjectMissing(self.uri_of(key)) from None
            raise in_words(error, path, kind_of(error)) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise ObjectMissing(self.uri_of(key))
        return os.fdopen(fd, "rb")

    def _copy(self, key: str, source: BinaryIO, target: BinaryIO, size: int) -> int:
        """Copy at most `size` bytes, so that a file that grows without end cannot fill the disk."""
        copied = 0
        while copied < size:
            piece = self._read(key, source, min(COPY_BYTES, size - copied))
            if not piece:
                break
            target.write(piece)
            copied += len(piece)
        return copied

    def _read(self, key: str, file: BinaryIO, size: int = -1) -> bytes:
        try:
            return file.read(size)
        except OSError as error:
            raise in_words(error, self.uri_of(key), ObjectUnreadable) from error

    # ---------------------------------------------------------------------------------------------------- writing

    def _put(self, key: str, fill: Callable[[BinaryIO], object], publish: Callable[[str, str], object]) -> None:
        """Fill a hidden file in the same folder, then give it its name in one step.

        Both the file and its folder are synced (0.3 ms on ext4 with an SSD, measured): after a power cut a name
        without its bytes would pass for a page that is done, and a lost batch list for a cursor that may move.
        """
        path = self._path(key)
        folder = os.path.dirname(path)
        temporary = os.path.join(folder, TEMPORARY + uuid.uuid4().hex)
        try:
            file = _create_file(folder, temporary)
            try:
                with file:
                    fill(file)
                    file.flush()
                    os.fsync(file.fileno())
                publish(temporary, path)
            finally:
                _unlink_if_there(temporary)
            _sync_folder(folder)
        except FileExistsError:
            raise  # the race of `create`, lost
        except OSError as error:
            raise self._write_error(error, path) from error

    def _write_error(self, error: OSError, path: str) -> StorageError:
        blocked = error.errno in (errno.ENOTDIR, errno.EISDIR) and os.path.isdir(self.root)  # else the lake is
        return in_words(error, path, KeyBlocked if blocked else StorageError)

    def _remove_empty_folders(self, key: str) -> None:
        """Folders are no objects: those that a deletion leaves empty go too, but never the first one (inbox/, …)."""
        parts = key.split("/")[:-1]
        while len(parts) > 1:
            try:
                os.rmdir(os.path.join(self.root, *parts))
            except OSError:
                return
            parts.pop()

    # ---------------------------------------------------------------------------------------------------- listing

    def _walk(
        self, folder: bytes, prefix: bytes, after: bytes | None, tell: Tell | None, moved: int = 0
    ) -> Iterator[ObjectInfo]:
        """Files below `folder` ("" or "a/b/"), in the order of their keys; one folder's names a level in memory.

        `moved`: when a folder above was moved to its place, in nanoseconds; 0 where none is known to have been.
        """
        root = os.fsencode(self.root)
        try:
            # its "." needs the right to look up what is in it, without which every file would seem to be gone
            moved = max(moved, _moved(os.stat(os.path.join(root, folder, b"."))))
            with os.scandir(os.path.join(root, folder)) as entries:
                # A folder sorts as "name/": "a.pdf" comes before "a/b.pdf", as a bucket sorts them.
                names = [
                    entry.name + b"/" if entry.is_dir(follow_symlinks=False) else entry.name
                    for entry in entries
                    if not entry.name.startswith(b".")
                ]
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            failure = in_words(error, os.path.join(self.root, os.fsdecode(folder)), kind_of(error))
            if tell is None or prefix.startswith(folder) or error.errno not in OF_ONE:
                raise failure from error
            tell(str(failure))
            return
        names.sort()
        for name in names:
            key = folder + name
            if name.endswith(b"/"):
                wanted = key.startswith(prefix) or prefix.startswith(key)
                if wanted and (after is None or after < key or after.startswith(key)):
                    yield from self._walk(key, prefix, after, tell, moved)
            elif key.startswith(prefix) and (after is None or key > after):
                info = self._listed(key, moved)
                if info is not None:
                    yield info

    def _listed(self, key: bytes, moved: int) -> ObjectInfo | None:
        path = os.path.join(os.fsencode(self.root), key)
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                if not self._inside(os.path.realpath(os.fsdecode(path))):
                    self._warn(path, "is a link that leaves the lake and is left alone: replace it by the file itself")
                    return None
                status = os.stat(path)
                if stat.S_ISDIR(status.st_mode):
                    self._warn(path, "is a link to a folder and is left alone: move or bind-mount the folder")
                    return None
        except OSError:
            return None  # gone since, or a link to nothing
        if not stat.S_ISREG(status.st_mode):
            return None
        try:
            info = _info(key.decode(), status)
            return replace(info, moved=_time(moved)) if moved > status.st_ctime_ns else info
        except UnicodeDecodeError:
            self._warn(path, "has a name that is not UTF-8 and is left alone: rename it")
            return None

    def _warn(self, path: bytes, what: str) -> None:
        """Say it once a process: the sensor lists every few seconds."""
        shown = ascii(os.fsdecode(path))
        if shown not in self._warned and len(self._warned) < 1000:
            self._warned.add(shown)
            log.warning("%s %s", shown, what)


def _create_file(folder: str, temporary: str) -> BinaryIO:
    for attempt in range(5):
        try:
            os.makedirs(folder, exist_ok=True)
            return open(temporary, "xb")
        except FileNotFoundError:
            # A deletion beside us has just removed the empty folder.
            if attempt == 4:
                raise
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, "") from None
    raise AssertionError("unreachable")


def _link(temporary: str, path: str) -> None:
    """Give the file its name unless the name is taken: link() is the one call that does both in one step."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK):
            raise StorageError(
                f"the file system of {path} has no hard links, which create-only writes need: "
                "put the lake on a native file system (ext4, XFS, Btrfs, APFS, NTFS)"
            ) from error
        raise


def _unlink_if_there(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _sync_folder(folder: str) -> None:
    try:
        fd = os.open(folder, os.O_RDONLY)
    except OSError:  # gone again by a deletion beside us, or a system that opens no folders
        return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES, errno.EBADF):  # some network mounts
            raise
    finally:
        os.close(fd)


def _write_all(file: BinaryIO, data: bytes) -> None:
    file.write(data)


def _moved(status: os.stat_result) -> int:
    """When this folder was moved to its place, in nanoseconds; 0 where nothing says so.

    A rename dates the folder's inode and nothing in it. A new entry dates inode and content alike: were that taken for
    a move, each file put into a folder of 100,000 would have all of them looked up in the batch lists.
    """
    return status.st_ctime_ns if status.st_ctime_ns > status.st_mtime_ns else 0


def _etag(status: os.stat_result) -> str:
    return f"{status.st_size:x}-{status.st_mtime_ns:x}"


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(
        key=key,
        etag=_etag(status),
        size=status.st_size,
        # not the modification time: a file that was moved or copied with its date (`mv`, `cp -p`, rsync) has one of
        # years ago, and an older date must not make the newer upload of a key lose
        last_modified=_time(status.st_ctime_ns),
    )


def _time(nanoseconds: int) -> datetime:
    seconds, rest = divmod(nanoseconds, 10**9)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
