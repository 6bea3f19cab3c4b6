"""What is left of a document when it has been drawn and read: its record of reading, its markdown file and its figures.

Other batches may have read the same upload meanwhile, the upload may have been replaced, and the document purged. Here
belongs what follows from that. Not here: which pages are taken from other batches (`repeating.py`), and which batch's
files are shown (`shown.py`).
"""

from __future__ import annotations

from ocr_pipeline.flow import reading, repeating, shown
from ocr_pipeline.flow.attempts import with_earlier
from ocr_pipeline.flow.batch_run import BatchRun
from ocr_pipeline.flow.reading import Reading
from ocr_pipeline.flow.rendered import RenderedDocument
from ocr_pipeline.lake import batches, keys
from ocr_pipeline.lake.storage import ObjectMissing, StorageError
from ocr_pipeline.records import Reason, Upload

UPLOAD_NOT_READ = frozenset({Reason.MISSING, Reason.REPLACED, Reason.UNREADABLE})
"""Nothing was learnt of the upload's content: a markdown file under its key is another upload's."""


def finish(run: BatchRun, drawn: RenderedDocument, result: Reading, *, again: bool) -> None:
    """Writes what the run has made of one document. `again`: an earlier run of this batch had drawn it."""
    storage, batch = run.storage, run.batch
    etag = _etag_now(run, drawn)
    if etag is None and _is_purged(run, drawn.upload):
        images = [page.image_key for page in drawn.pages if page.image_key]
        storage.delete([*images, keys.rendered(batch.name, drawn.document_id)])
        return
    if again:  # the earlier run may have died before its requests became rows
        result = with_earlier(result, reading.read_sound(storage, batch.name, drawn.document_id))
    reading.write(storage, batch.name, result)
    is_alone = not again and not batch.repeats  # no other run and no other batch has read this upload
    overtaken, lacking = False, None
    if not is_alone:
        settled = repeating.settle(storage, batch, run.retries, drawn, result)
        drawn, result, overtaken, lacking = settled.drawn, settled.read, settled.overtaken, settled.lacking
    if drawn.reason in UPLOAD_NOT_READ or etag not in (None, drawn.upload.etag):
        return  # an older batch, run again: the markdown file is the newer upload's
    if not overtaken and shown.write(storage, batch, drawn, result) and not is_alone:
        later = shown.later(storage, batch, drawn.upload)
        if later is not None:
            run.overtaken[later.upload] = later.batch  # it wrote meanwhile: a follow-up writes its file once more
    if lacking is not None:
        run.overtaken[drawn.upload] = lacking


def _etag_now(run: BatchRun, drawn: RenderedDocument) -> str | None:
    """The etag of what is under the upload's key now, None where nothing is.

    An upload that can no longer be looked at counts as unchanged.
    """
    if drawn.reason in UPLOAD_NOT_READ:
        return None if drawn.reason is Reason.MISSING else drawn.upload.etag
    try:
        now = run.storage.stat(drawn.upload.key)
    except StorageError:
        run.raise_if_lake_is_away()
        return drawn.upload.etag
    return now.etag if now is not None else None


def _is_purged(run: BatchRun, upload: Upload) -> bool:
    """Whether the document was purged while this batch was at work: its list, read again, no longer names it."""
    try:
        return upload not in batches.read(run.storage, run.batch.name).uploads
    except ObjectMissing:
        return False
