"""One batch as a stream: uploads are fetched, drawn and read page by page, and each page is durable when it is done.

    upload -> (download) -> inspect -> page ranges -> image in the lake -> transcript in the lake
                                                                       \\-> figures, markdown file

All documents of the batch are on their way at once (`document_stream.py`); what they share is `batch_run.py`. What is
left of a document when it is done: `rendered.json`, `reading.json` (see those modules) and its markdown file.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from ocr_pipeline.flow import repeating
from ocr_pipeline.flow.batch_run import BatchRun
from ocr_pipeline.flow.document_stream import DocumentStream
from ocr_pipeline.flow.progress import StreamCounts


async def run_batch(run: BatchRun) -> StreamCounts:
    """Makes `rendered_pages`, `ocr_markdown`, or both as one stream, as the run says.

    A bad document or page becomes a record with its reason. Raises StorageError when the lake does not answer.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ocr_pipeline-") as folder:
        async with asyncio.TaskGroup() as group:
            for order, upload in enumerate(run.batch.uploads):
                group.create_task(DocumentStream(run, order, upload, Path(folder)).process())
    await asyncio.to_thread(repeating.follow_up, run.storage, run.overtaken, datetime.now(UTC))
    run.counts.render_seconds = run.drawing.seconds
    run.counts.seconds = time.monotonic() - started
    return run.counts
