"""What people see of a document in the lake: its markdown file, and the figures that the file shows.

There is one such file for each upload key, however many batches read the document (newer uploads, retries, a file that
was deleted and came back). It must come from the batch whose rows are in the tables: the latest batch of the latest
upload. Before a batch writes the file it leaves a mark (`keys.shown`); a batch that finds the mark of a later one
writes nothing. If two batches write at the same time, the earlier one finds the other's mark afterwards and asks for a
follow-up, which writes the file once more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ocr_pipeline.flow import figures, rendered
from ocr_pipeline.flow.documents import PageRows, page_markdown
from ocr_pipeline.flow.reading import Reading
from ocr_pipeline.flow.rendered import RenderedDocument, RenderedPage
from ocr_pipeline.flow.results import document_pieces
from ocr_pipeline.lake import batches, keys
from ocr_pipeline.lake.storage import ObjectMissing, ObjectUnreadable, Storage, parallel_map
from ocr_pipeline.records import Batch, PageRegion, Region, Upload

_IMAGES_AT_ONCE = 4
"""Page images that are decoded side by side: a few MB each."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The batch that a document's files are from, and the upload that it read."""

    batch: str
    upload: Upload


def later(storage: Storage, batch: Batch, upload: Upload) -> Shown | None:
    """The latest batch that has written the document's files, if its rows win over those of `batch`; else None."""
    marks = [mark for mark in _marks(storage, upload.key) if mark > _mark(batch, upload)]
    with contextlib.suppress(ObjectUnreadable):  # a follow-up could not name the upload
        return _latest(storage, upload.key, marks)
    return None


def write(storage: Storage, batch: Batch, drawn: RenderedDocument, read: Reading) -> bool:
    """Writes the figures and the markdown file (a rejected document has none). False if a later batch has written them
    already."""
    upload = drawn.upload
    mine, marks = _mark(batch, upload), _marks(storage, upload.key)
    try:
        if _latest(storage, upload.key, [mark for mark in marks if mark > mine]) is not None:
            return False
    except ObjectUnreadable:  # the later batch's list is broken; the files may well be its
        return False
    storage.write(mine, batch.name.encode())
    storage.delete([mark for mark in marks if mark < mine])
    if drawn.reason is not None:
        storage.delete([keys.markdown(upload.key)])  # of an earlier upload that could be read
        return True
    pages = {page.number: page for page in drawn.pages}
    texts: list[str] = []
    # in pieces: the rows of a long document are several times its text
    for part in document_pieces(storage, batch, drawn, read):
        if isinstance(part, PageRows):
            texts += map(page_markdown, part.pages)
            _cut_figures(storage, upload.key, pages, part.regions)
    storage.write(keys.markdown(upload.key), ("\n\n".join(texts) + "\n").encode())
    return True


def _mark(batch: Batch, upload: Upload) -> str:
    return keys.shown(upload, batch.name)


def _marks(storage: Storage, upload_key: str) -> list[str]:
    return [info.key for info in storage.list(keys.shown_by(upload_key))]


def _latest(storage: Storage, upload_key: str, marks: Sequence[str]) -> Shown | None:
    """The batch that left the last mark. A batch whose list is gone, or no longer names the document, does not count.

    Raises ObjectUnreadable.
    """
    for mark in reversed(marks):
        name = keys.batch_of_shown(mark)
        with contextlib.suppress(ObjectMissing):
            for upload in batches.read(storage, name).uploads:
                if upload.key == upload_key:
                    return Shown(name, upload)
    return None


def _cut_figures(
    storage: Storage, upload_key: str, pages: Mapping[int, RenderedPage], rows: Sequence[PageRegion]
) -> None:
    """Writes the figures in these regions. If a page's image is gone, the figures cut out of it earlier are kept."""
    regions: dict[int, list[Region]] = {}
    for row in rows:
        regions.setdefault(row.page_number, []).append(row.region)

    def cut(number: int) -> None:
        page = pages[number]
        boxes = figures.boxes(regions[number], page.width or 0, page.height or 0)
        jpeg = rendered.image(storage, page)[0] if boxes else None
        if jpeg is None:
            return
        with contextlib.suppress(figures.UndecodableImage):  # a page read before these regions were seen in its text
            for index, figure in figures.crop(jpeg, boxes):
                storage.write(keys.figure(upload_key, number, index), figure)

    for _ in parallel_map(cut, regions, _IMAGES_AT_ONCE):
        pass
