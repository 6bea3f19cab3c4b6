"""From a batch's records in the lake to its rows, a piece of a document at a time.

Memory holds the records of one document and the rows of one piece of it, however many documents a batch has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ocr_pipeline.flow import documents, reading, rendered
from ocr_pipeline.flow.documents import PageRows
from ocr_pipeline.flow.memory import release_free_memory
from ocr_pipeline.flow.reading import Reading
from ocr_pipeline.flow.rendered import RenderedDocument
from ocr_pipeline.lake import keys
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Batch, Document, Page

PIECE = 500
"""Pages. A page's rows with their text are 5 to 30 KB as Python objects, twice that while they become columns."""

_READ_AHEAD = 8
"""How many documents' records are fetched in parallel."""

_LONG = 4_000_000
"""Bytes. Once records of this size are parsed, their memory is given back to the system before anything else is
allocated above it."""


class NotMade(Exception):
    """A hop before this one has not been materialised for the batch."""


def pieces(lake: Storage, batch: Batch) -> Iterator[PageRows | Document]:
    """The rows of the batch, sorted by document id and page: for each document the rows of its pages, at most `PIECE`
    pages at a time, then its own row.

    Raises NotMade.
    """
    for document, transcripts in _records(lake, batch):
        yield from document_pieces(lake, batch, document, transcripts)


def document_pieces(
    lake: Storage, batch: Batch, document: RenderedDocument, transcripts: Reading
) -> Iterator[PageRows | Document]:
    """The rows of one document: those of its pages, at most `PIECE` pages at a time, then its own row."""
    read = {page.number: page for page in transcripts.pages}
    outlines: list[Page] = []
    for start in range(0, len(document.pages), PIECE):
        pages = document.pages[start : start + PIECE]
        piece = documents.page_rows(batch, document, pages, read, transcripts.recipe_id, lake.uri_of)
        outlines += [replace(page, markdown="", detail=None) for page in piece.pages]
        yield piece
    yield documents.document_row(batch, document, outlines, transcripts.recipe_id, lake.uri_of)


def _records(lake: Storage, batch: Batch) -> Iterator[tuple[RenderedDocument, Reading]]:
    """The records of each document, by document id."""
    uploads = sorted(batch.uploads, key=lambda upload: keys.document_id(upload.key))
    for start in range(0, len(uploads), _READ_AHEAD):
        some = uploads[start : start + _READ_AHEAD]
        ids = [keys.document_id(upload.key) for upload in some]
        wanted = [name(batch.name, document_id) for document_id in ids for name in (keys.rendered, keys.reading)]
        found = dict(lake.read_many(wanted))
        for upload, document_id in zip(some, ids, strict=True):
            of_document, of_text = keys.rendered(batch.name, document_id), keys.reading(batch.name, document_id)
            document, text = found.pop(of_document), found.pop(of_text)
            if document is None or text is None:
                hop = "rendered_pages" if document is None else "ocr_markdown"
                raise NotMade(f"batch {batch.name}: {hop} has no record of {upload.key!r}; materialise {hop} first")
            long = len(document) + len(text) > _LONG
            opened = rendered.parse(of_document, document)
            del document  # the raw bytes are as large as what is made of them
            transcripts = reading.parse(of_text, text)
            del text
            if long:
                release_free_memory()
            yield opened, transcripts
