"""What a batch list says about deletions, and which uploads a deletion hides. Pure; `warehouse/load.py` has the same
rule in SQL."""

from __future__ import annotations

from ocr_pipeline.records import Batch, Deletion, Upload


def marks(batch: Batch) -> dict[str, Deletion]:
    """By upload key. Empty for a batch of uploads and nothing else.

    A deletion hides the uploads that were known when it was noticed. Lists of older versions do not name them; such a
    deletion hides every upload up to its own time. A file that came back takes the mark away.
    """
    if batch.created_at is None:
        return {}
    found = {key: Deletion(batch.created_at, batch.created_at) for key in batch.deleted}
    versions: dict[str, list[Upload]] = {}
    for upload in batch.gone:
        versions.setdefault(upload.key, []).append(upload)
    for key, known in versions.items():
        newest = max(upload.last_modified for upload in known)
        etags = tuple(sorted({upload.etag for upload in known if upload.last_modified == newest}))
        found[key] = Deletion(batch.created_at, newest, etags)
    if batch.returned:
        found |= {upload.key: Deletion(batch.created_at, None) for upload in batch.uploads}
    return found


def hides(mark: Deletion | None, upload: Upload) -> bool:
    """Whether the upload is one of those that were known when its key was seen to be deleted."""
    if mark is None or mark.up_to is None:
        return False
    if upload.last_modified != mark.up_to:
        return upload.last_modified < mark.up_to
    return mark.etags is None or upload.etag in mark.etags
