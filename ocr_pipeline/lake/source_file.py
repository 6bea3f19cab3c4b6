"""A local file that is copied into a store: errors of the file are told apart from errors of the store.

Both are OSErrors in the middle of one copy. If a file cannot be read only that file fails; if the store cannot be
written nothing works.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


class SourceFault(Exception):
    """Carries the file's OSError past the code that takes an OSError for the store's."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class SourceFile:
    """What a copy needs of a file that is open. Raises SourceFault."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            raise SourceFault(error) from error

    def rewind(self) -> None:
        self._file.seek(0)


@contextmanager
def open_source(path: Path) -> Iterator[SourceFile]:
    """The file, open for the copy within. Its OSErrors leave here as they are."""
    with open(path, "rb") as file:
        try:
            yield SourceFile(file)
        except SourceFault as fault:
            raise fault.error from None
