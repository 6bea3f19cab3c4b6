"""What a fault of the local file system means, in words that say what to do. Pure, as `s3_faults.py` is."""

from __future__ import annotations

import errno
import os

from ocr_pipeline.lake.storage import KeyRefused, ObjectForbidden, ObjectUnreadable, StorageError

MENDS = {
    errno.EACCES: "give this user the right to read and write there",
    errno.EPERM: "give this user the right to read and write there",
    errno.EROFS: "the file system is read-only: set OCR_LAKE to a folder that can be written",
    errno.ENOSPC: "the disk is full: make room and run again, what is done is kept",
    errno.EDQUOT: "the disk quota is used up: make room and run again, what is done is kept",
    errno.ENAMETOOLONG: "the path is too long: use a shorter folder for OCR_LAKE or a shorter name",
    errno.ENOTDIR: "a part of the path is a file where a folder is needed: rename one of them",
    errno.EISDIR: "there is a folder of this name: rename one of them",
    errno.EIO: "the disk fails there: put the file back from a copy",
    errno.ELOOP: "it is a link in a circle: replace it by the file itself",
    errno.EMFILE: "too many open files: raise the limit (ulimit -n)",
}

OF_ONE = frozenset({errno.EACCES, errno.EPERM, errno.EIO, errno.ELOOP, errno.ENAMETOOLONG})
"""Errors at opening a file or folder that say nothing of the others."""


def kind_of(error: OSError) -> type[StorageError]:
    """What an error at opening one file or folder is."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return ObjectForbidden
    return ObjectUnreadable if error.errno in OF_ONE else StorageError


def in_words(error: OSError, path: str, kind: type[StorageError] = StorageError) -> StorageError:
    """The error in words, with the mend. A path that is too long is a key refused, whatever `kind` says."""
    mend = MENDS.get(error.errno or 0, "check the disk and the folder")
    kind = KeyRefused if error.errno == errno.ENAMETOOLONG else kind
    return kind(f"{path}: {os.strerror(error.errno) if error.errno else error}; {mend}")
