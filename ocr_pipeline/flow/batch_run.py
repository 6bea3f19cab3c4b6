"""What the documents of one batch share while it runs: where they are kept, who draws and reads them, what is counted.

Here belong the options of the stream and the state of one run. Not here: what happens to a document
(`document_stream.py`), and the order of documents (`stream.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ocr_pipeline.flow.pages import PageReader, RetryPolicy
from ocr_pipeline.flow.progress import Progress, StreamCounts
from ocr_pipeline.flow.rendering import BatchDrawing
from ocr_pipeline.flow.retries import Retries
from ocr_pipeline.lake import keys
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.pdf.renderer import RenderLimits
from ocr_pipeline.records import Batch, Geometry, PageStatus, Reason, Upload


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What the stream itself needs from the settings."""

    limits: RenderLimits = field(default_factory=RenderLimits)
    render_workers: int = 2
    max_pdf_bytes: int = 1024**3
    text_layer: str = "fallback"  # "prefer", "never"


@dataclass(slots=True, kw_only=True)
class BatchRun:
    """One run over one batch."""

    batch: Batch
    render: bool  # makes `rendered_pages`
    read: bool  # makes `ocr_markdown`
    storage: Storage
    reader: PageReader
    geometry: Geometry
    drawing: BatchDrawing
    options: StreamOptions
    progress: Progress
    retry: RetryPolicy  # which failed pages are asked again
    retries: Retries  # the other batches that read the same uploads
    counts: StreamCounts = field(default_factory=StreamCounts)
    overtaken: dict[Upload, str] = field(default_factory=dict)
    """Uploads that need a follow-up, each with the later batch that lacks something (`repeating.follow_up`)."""

    def count_page(self, upload: Upload, number: int, status: PageStatus, reason: Reason | None) -> None:
        """The page is done."""
        self.counts.pages += 1
        self.counts.by_status[status] = self.counts.by_status.get(status, 0) + 1
        self.progress.page_done(upload.key, number, status, reason)

    def count_asked(self) -> None:
        self.counts.asked += 1

    def raise_if_lake_is_away(self) -> None:
        """Tells one object that cannot be read from a lake that does not answer at all: StorageError for the lake."""
        self.storage.stat(keys.batch(self.batch.name))
