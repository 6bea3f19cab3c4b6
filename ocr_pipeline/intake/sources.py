"""Which local files `ingest` takes, and which key of the inbox each goes to. Looks, and writes nothing.

No file is passed over in silence: what is taken, what cannot be taken and why, and how much was left alone of each
kind. Not here: the copying (`inbox.py`).
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ocr_pipeline.lake.storage import KeyBlocked, KeyRefused, StorageError
from ocr_pipeline.records import Reason

PDF_MAGIC = b"%PDF-"


class SourceError(Exception):
    """The paths given cannot be ingested as they are; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Source:
    """A local file and the inbox key it goes to."""

    path: Path
    key: str


@dataclass(frozen=True, slots=True)
class NotTaken:
    """A file or folder that should have been taken and could not be."""

    path: str  # for people: bytes that are no UTF-8 are shown as \\xff
    reason: Reason


@dataclass(slots=True)
class Found:
    sources: list[Source] = field(default_factory=list)
    not_taken: list[NotTaken] = field(default_factory=list)
    left_alone: Counter[str] = field(default_factory=Counter)  # by kind, in words: "hidden files and folders"


@dataclass(frozen=True, slots=True)
class Places:
    """The pipeline's own folders, which are no sources. `lake` is None where the lake is no folder of this machine."""

    inbox: str  # key prefix, "inbox/"
    lake: Path | None = None
    data: Path | None = None

    def own_key(self, path: Path) -> str | None:
        """The key of a path that lies in the inbox already ("inbox/" for the inbox itself)."""
        inside = self._inside_lake(path)
        return f"{inside}/" if inside == self.inbox.rstrip("/") else inside if self._in_inbox(inside) else None

    def is_ours(self, path: Path) -> bool:
        """Whether the path lies in the lake, and not in the inbox."""
        inside = self._inside_lake(path)
        return inside is not None and self.own_key(path) is None

    def is_pruned(self, folder: Path) -> bool:
        """Whether a walk that began outside goes past this folder."""
        return self._inside_lake(folder) is not None or (self.data and self.data.resolve()) == folder.resolve()

    def _in_inbox(self, inside: str | None) -> bool:
        return inside is not None and inside.startswith(self.inbox)

    def _inside_lake(self, path: Path) -> str | None:
        """The path below the lake's root, "." for the root itself; None outside of it."""
        if self.lake is None:
            return None
        real, root = path.resolve(), self.lake.resolve()
        return real.relative_to(root).as_posix() if real.is_relative_to(root) else None


def find(paths: Iterable[Path], places: Places) -> Found:
    """The files to ingest with their keys, and everything else that was met.

    A folder's files go to `inbox/<folder's name>/<path below it>`, a single file to `inbox/<name>`, and what lies in
    the inbox already keeps its key. In a folder, a file is taken when it ends in .pdf or begins like a PDF; hidden
    files and folders are not looked at, nor the pipeline's own. A file that is named itself is always taken. Links are
    followed, to each folder once. Raises SourceError for a path that is not there, is neither file nor folder, or lies
    among the pipeline's own files, and for two sources of one key.
    """
    found = Found()
    by_key: dict[str, Source] = {}
    for path in paths:
        for source in _of(path, places, found):
            other = by_key.setdefault(source.key, source)
            if other.path.resolve() != source.path.resolve():
                raise SourceError(
                    f"{printable_path(other.path)!r} and {printable_path(source.path)!r} would both become "
                    f"{source.key!r}: ingest them one by one, or rename a folder"
                )
    found.sources = list(by_key.values())
    return found


def _of(path: Path, places: Places, found: Found) -> Iterator[Source]:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        problem = "there is no file or folder" if isinstance(error, FileNotFoundError) else f"{error.strerror}:"
        raise SourceError(f"{problem} {printable_path(path)!r}") from error
    if places.is_ours(path):
        raise SourceError(
            f"{printable_path(path)!r} lies in the lake, among the pipeline's own files: give the folder with your "
            f"PDFs, or {places.lake}/{places.inbox} for what is in the inbox"
        )
    own = places.own_key(path)
    if stat.S_ISDIR(mode):
        below = own.rstrip("/") if own else places.inbox + path.resolve().name
        for file, parts in _files(path, None if own else places, found):
            yield from _taken(file, "/".join([below, *parts]), found)
    elif stat.S_ISREG(mode):
        name = path.resolve().name if path.name in ("", "..") else path.name
        yield from _taken(path, own or places.inbox + name, found)
    else:
        raise SourceError(f"{printable_path(path)!r} is a pipe, a socket or a device: give a file or a folder")


def _taken(file: Path, key: str, found: Found) -> Iterator[Source]:
    try:
        key.encode()
    except UnicodeEncodeError:
        found.not_taken.append(NotTaken(printable_path(file), Reason.BAD_NAME))
    else:
        yield Source(file, key)


def _files(top: Path, places: Places | None, found: Found) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """The files below `top` that are PDFs, with the parts of their path; folders behind links after all others.

    `places` is None within the inbox: there no folder behind a link belongs to the lake.
    """
    seen: set[tuple[int, int]] = set()
    waiting: list[tuple[Path, tuple[str, ...]]] = [(top, ())]
    linked: list[tuple[Path, tuple[str, ...]]] = []
    while waiting or linked:
        folder, below = waiting.pop() if waiting else linked.pop(0)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            status = folder.stat()
        except OSError as error:
            found.not_taken.append(_cannot(folder, error))
            continue
        if (status.st_dev, status.st_ino) in seen:
            found.left_alone["links to folders that are looked at anyway"] += 1
            continue
        seen.add((status.st_dev, status.st_ino))
        folders: list[tuple[Path, tuple[str, ...]]] = []
        for entry in entries:
            file, parts = folder / entry.name, (*below, entry.name)
            if entry.name.startswith("."):
                found.left_alone["hidden files and folders"] += 1
            elif not os.path.isdir(file):  # unlike the entry's own, no error for a link in a circle
                if _is_pdf(file, found):
                    yield file, parts
            elif places is None and entry.is_symlink():
                found.left_alone["links to folders"] += 1
            elif places is not None and places.is_pruned(file):
                found.left_alone["folders of the pipeline itself"] += 1
            else:
                (linked if entry.is_symlink() else folders).append((file, parts))
        waiting += reversed(folders)


def _is_pdf(file: Path, found: Found) -> bool:
    """By its ending, or by its first kilobyte; where not, it is noted why not."""
    named = file.suffix.lower() == ".pdf"
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # opening a pipe would wait for ever
            found.left_alone["pipes, sockets and devices"] += 1
            return False
        if named:
            return True
        with file.open("rb") as opened:
            if PDF_MAGIC in opened.read(1024):
                return True
    except OSError as error:
        if named or not isinstance(error, FileNotFoundError):
            found.not_taken.append(_cannot(file, error))
        else:
            found.left_alone["links to nothing"] += 1
        return False
    found.left_alone["files that are not PDFs"] += 1
    return False


def _cannot(path: Path, error: OSError) -> NotTaken:
    return NotTaken(printable_path(path), reason_for(error))


def reason_for(error: OSError | StorageError) -> Reason:
    """Why a file could not be taken."""
    if isinstance(error, KeyRefused):
        return Reason.BAD_NAME
    if isinstance(error, KeyBlocked):
        return Reason.NAME_TAKEN
    return Reason.MISSING if isinstance(error, FileNotFoundError) else Reason.UNREADABLE


def printable_path(path: Path) -> str:
    """The path in characters that any output takes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
