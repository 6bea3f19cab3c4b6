"""One batch as a stream: uploads are fetched, drawn and read page by page, and each page is durable when it is done.

    upload -> (download) -> inspect -> page ranges -> image in the lake -> transcript in the lake
                                                                       \\-> figures, markdown file

Nothing here decides how a page is drawn or read: `pdf` and `ocr` do. What is left of a document when it is done:
`rendered.json`, `reading.json` (see those modules) and its markdown file.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from ocr_pipeline.flow import documents, figures, reading, rendered, repeating, shown
from ocr_pipeline.flow.attempts import with_earlier
from ocr_pipeline.flow.pages import NOT_THE_PAGES_FAULT, PageReader, RetryPolicy, is_final
from ocr_pipeline.flow.progress import Progress, Silent, StreamCounts
from ocr_pipeline.flow.reading import PageReading, Reading, without_raw_attempts
from ocr_pipeline.flow.rendered import RenderedDocument, RenderedPage
from ocr_pipeline.flow.rendering import RenderPool, ranges
from ocr_pipeline.flow.repeating import NOTHING, Kept
from ocr_pipeline.flow.retries import Retries
from ocr_pipeline.lake import batches, keys, transcripts
from ocr_pipeline.lake.storage import ObjectMissing, ObjectTooLarge, Storage, StorageError, parallel_map
from ocr_pipeline.ocr.parsing.parse import parse
from ocr_pipeline.ocr.quality.soundness import sound_layer
from ocr_pipeline.pdf import renderer as pdf
from ocr_pipeline.records import Batch, Geometry, PageImage, PageStatus, Reason, Transcript, Upload

UPLOAD_GONE = frozenset({Reason.MISSING, Reason.REPLACED})
NOT_READ = UPLOAD_GONE | {Reason.UNREADABLE}
"""Nothing was learnt of the upload's content: a markdown file under its key is another upload's."""

LONG_DOCUMENT = 20
"""Pages from which the lake is told how many a document has, for `status`: a shorter one is done before anyone asks."""

LAYER_CHARACTERS = 20_000_000
"""Of a document's text layers that are kept, the first ones: they stand in memory until it is done. 5,000 pages of a
book have 15 million; 300 pages that share one stream of text, in a file of 44 kB, have 60."""


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What the stream itself needs from the settings."""

    limits: pdf.RenderLimits = field(default_factory=pdf.RenderLimits)
    render_workers: int = 2
    max_pdf_bytes: int = 1024**3
    text_layer: str = "fallback"  # "prefer", "never"


class BatchStream:
    """Runs the hops from upload to transcript for one batch. Made anew for each run of a batch."""

    def __init__(
        self,
        storage: Storage,
        reader: PageReader,
        geometry: Geometry,
        pool: RenderPool,
        options: StreamOptions,
        progress: Progress | None = None,
    ) -> None:
        self._storage = storage
        self._reader = reader
        self._geometry = geometry
        self._options = options
        self._progress = progress or Silent()
        self._pool = pool
        self._drawing = pool.batch()
        self.counts = StreamCounts()

    async def run(self, batch: Batch, *, render: bool = True, read: bool = True) -> StreamCounts:
        """Makes `rendered_pages` (render), `ocr_markdown` (read), or both as one stream.

        A bad document or page becomes a record with its reason. Raises StorageError when the lake does not answer.
        """
        started = time.monotonic()
        self._batch = batch
        self._retry = RetryPolicy(frozenset(batch.retry_reasons), batch.created_at)
        self._retries = Retries(self._storage, batch)
        self._overtaken: dict[Upload, str] = {}
        with tempfile.TemporaryDirectory(prefix="ocr_pipeline-") as folder:
            async with asyncio.TaskGroup() as group:
                for order, upload in enumerate(batch.uploads):
                    group.create_task(self._document(order, upload, Path(folder), render, read))
        await asyncio.to_thread(repeating.follow_up, self._storage, self._overtaken, datetime.now(UTC))
        self.counts.render_seconds = self._drawing.seconds
        self.counts.seconds = time.monotonic() - started
        return self.counts

    async def _document(self, order: int, upload: Upload, folder: Path, render: bool, read: bool) -> None:
        document_id = keys.document_id(upload.key)
        before = await asyncio.to_thread(rendered.read, self._storage, self._batch.name, document_id)
        kept = await asyncio.to_thread(
            repeating.kept, self._storage, self._batch, self._retries, upload, before, self._reader.recipe_id
        )
        if render or before is None:
            drawn, readings = await self._draw(order, upload, document_id, folder, read, kept)
            standing = _standing(drawn, before, kept)
            if standing is not None:
                drawn = repeating.with_pages(standing, kept.pages)
                readings = await self._read_again(drawn, kept) if read else []
            drawn = rendered.keep_time(drawn, before)
        else:
            drawn = repeating.with_pages(before, kept.pages)
            readings = await self._read_again(drawn, kept)
        if render or drawn != before:
            await asyncio.to_thread(rendered.write, self._storage, self._batch.name, drawn)
        self.counts.documents += 1
        self.counts.rejected += drawn.reason is not None
        if drawn.reason:
            self._progress.document_rejected(upload.key, drawn.reason)
        if read:
            result = Reading(
                document_id=document_id, recipe_id=self._reader.recipe_id, pages=tuple(readings), anew=kept.anew
            )
            await asyncio.to_thread(self._finish, drawn, result, again=before is not None)
        self._progress.document_done(upload.key)

    def _finish(self, drawn: RenderedDocument, result: Reading, *, again: bool) -> None:
        etag = self._etag_now(drawn)
        if etag is None and self._purged(drawn.upload):
            images = [page.image_key for page in drawn.pages if page.image_key]
            self._storage.delete([*images, keys.rendered(self._batch.name, drawn.document_id)])
            return
        if again:  # the earlier run may have died before its requests became rows
            result = with_earlier(result, reading.read_sound(self._storage, self._batch.name, drawn.document_id))
        reading.write(self._storage, self._batch.name, result)
        is_alone = not again and not self._batch.repeats  # nobody has read the upload before
        overtaken, lacking = False, None
        if not is_alone:
            settled = repeating.settle(self._storage, self._batch, self._retries, drawn, result)
            drawn, result, overtaken, lacking = settled.drawn, settled.read, settled.overtaken, settled.lacking
        if drawn.reason in NOT_READ or etag not in (None, drawn.upload.etag):
            return  # an older batch, run again: the markdown file is the newer upload's
        if not overtaken and shown.write(self._storage, self._batch, drawn, result) and not is_alone:
            later = shown.later(self._storage, self._batch, drawn.upload)
            if later is not None:
                self._overtaken[later.upload] = later.batch  # it wrote meanwhile: its file once more
        if lacking is not None:
            self._overtaken[drawn.upload] = lacking

    def _etag_now(self, drawn: RenderedDocument) -> str | None:
        """Of what stands under the upload's key now, None where nothing does. One that can no longer be looked at has
        not been replaced."""
        if drawn.reason in NOT_READ:
            return None if drawn.reason is Reason.MISSING else drawn.upload.etag
        try:
            now = self._storage.stat(drawn.upload.key)
        except StorageError:
            self._raise_when_the_lake_is_away()
            return drawn.upload.etag
        return now.etag if now is not None else None

    def _purged(self, upload: Upload) -> bool:
        """Whether the document was purged while this batch was at work: its list, read again, names it no more."""
        try:
            return upload not in batches.read(self._storage, self._batch.name).uploads
        except ObjectMissing:
            return False

    def _raise_when_the_lake_is_away(self) -> None:
        """This object alone, or the lake? Raises StorageError where the lake itself does not answer."""
        self._storage.stat(keys.batch(self._batch.name))

    # --- drawing -----------------------------------------------------------------------------------------------

    async def _draw(
        self, order: int, upload: Upload, document_id: str, folder: Path, read: bool, kept: Kept
    ) -> tuple[RenderedDocument, list[PageReading]]:
        head = RenderedDocument(upload=upload, document_id=document_id, rendered_at=datetime.now(UTC))
        path = folder / f"{order}.pdf"
        readings: list[PageReading] = []
        async with asyncio.TaskGroup() as pages, self._pool.open_documents:
            try:
                head = await asyncio.to_thread(self._fetch, head, path)
                if head.reason:
                    return head, []
                info = await self._drawing.inspect(order, path)
                head = replace(head, page_count=info.page_count, title=info.title)
                self._progress.document_opened(upload.key, info.page_count)
                if kept.document is None or kept.document.page_count != info.page_count:
                    kept = NOTHING
                if kept is NOTHING and info.page_count >= LONG_DOCUMENT:
                    counted = keys.page_count(self._batch.name, document_id)
                    await asyncio.to_thread(self._storage.write, counted, str(info.page_count).encode())
                self._keep(head, kept, readings, read)
                tasks = await self._draw_pages(order, head, path, pages, readings, read, kept)
            except pdf.PdfError as error:
                return replace(head, reason=error.reason, detail=error.detail), []
            finally:
                path.unlink(missing_ok=True)
        drawn = sorted(
            [*(task.result() for task in tasks), *(page.drawn for page in kept.pages.values())],
            key=lambda page: page.number,
        )
        return replace(head, pages=tuple(drawn)), sorted(readings, key=lambda page: page.number)

    def _fetch(self, head: RenderedDocument, path: Path) -> RenderedDocument:
        """Brings the upload to local disk; the reason is set when it is not the one the batch list names."""
        upload = head.upload
        try:
            now = self._storage.stat(upload.key)
            if now is None:
                return replace(head, reason=Reason.MISSING)
            if now.etag != upload.etag:
                return replace(head, reason=Reason.REPLACED, detail=f"uploaded again {now.last_modified.isoformat()}")
            if upload.size > self._options.max_pdf_bytes:
                detail = f"{upload.size} bytes, the limit is {self._options.max_pdf_bytes}"
                return replace(head, reason=Reason.TOO_LARGE, detail=detail)
            read = self._storage.download(upload.key, path, self._options.max_pdf_bytes)
        except ObjectMissing:
            return replace(head, reason=Reason.MISSING)
        except ObjectTooLarge as error:
            return replace(head, reason=Reason.TOO_LARGE, detail=str(error))
        except StorageError as error:
            self._raise_when_the_lake_is_away()
            return replace(head, reason=Reason.UNREADABLE, detail=str(error))
        if read.etag != upload.etag:
            return replace(head, reason=Reason.REPLACED, detail=f"uploaded again {read.last_modified.isoformat()}")
        with path.open("rb") as file:
            return replace(head, content_sha256=hashlib.file_digest(file, "sha256").hexdigest())

    async def _draw_pages(
        self,
        order: int,
        head: RenderedDocument,
        path: Path,
        group: asyncio.TaskGroup,
        readings: list[PageReading],
        read: bool,
        kept: Kept,
    ) -> list[asyncio.Task[RenderedPage]]:
        tasks: list[asyncio.Task[RenderedPage]] = []
        layers_left = LAYER_CHARACTERS
        jobs = deque(
            self._drawing.render(order, path, first, last, self._geometry)
            for first, last in ranges(head.page_count, in_haste=self._pool.idle)
            if not all(number in kept.pages for number in range(first, last + 1))
        )
        try:
            while jobs:
                drawn, layers_left = _with_layers(await jobs[0], layers_left)
                jobs.popleft()  # a finished job holds its images
                for page in drawn:
                    if page.number in kept.pages:
                        self._pool.budget.give_back(1)
                        continue
                    task = group.create_task(self._page(head, page, readings, read))
                    # a task cancelled before its first step never runs its `finally`
                    task.add_done_callback(lambda _: self._pool.budget.give_back(1))
                    tasks.append(task)
        finally:
            for job in jobs:
                if not job.cancel() and not job.cancelled() and job.exception() is None:
                    self._pool.budget.give_back(len(job.result()))  # drawn, and nobody is left to take it
        return tasks

    async def _page(
        self, head: RenderedDocument, page: pdf.RenderedPage | pdf.PageFault, readings: list[PageReading], read: bool
    ) -> RenderedPage:
        """Keeps one drawn page, and has it read; the page's place in the budget is free when this is over."""
        if isinstance(page, pdf.PageFault):
            self._count(head, page.number, page.status, page.reason)
            return RenderedPage(
                number=page.number,
                rotation=page.rotation,
                status=page.status,
                reason=page.reason,
                detail=page.detail,
            )
        drawn = RenderedPage(
            number=page.number,
            rotation=page.rotation,
            status=PageStatus.BLANK if page.ink < pdf.BLANK_INK else None,
            image_key=keys.page_image(self._batch.name, head.document_id, page.number),
            image_sha256=page.sha256,
            width=page.width,
            height=page.height,
            ink=page.ink,
            text_layer=page.text_layer,
        )
        async with asyncio.TaskGroup() as both:
            both.create_task(asyncio.to_thread(self._storage.write, drawn.image_key or "", page.jpeg))
            if drawn.status is None and read:
                both.create_task(self._read(head, drawn, page.jpeg, readings))
        if drawn.status is not None or not read:
            self._count(head, page.number, drawn.status or PageStatus.OK, None)
        return drawn

    # --- reading -----------------------------------------------------------------------------------------------

    async def _read(self, head: RenderedDocument, page: RenderedPage, jpeg: bytes, readings: list[PageReading]) -> None:
        self._add(head, await self._outcome(head, page, jpeg), readings)

    def _add(self, head: RenderedDocument, outcome: PageReading, readings: list[PageReading]) -> None:
        readings.append(outcome)
        transcript = outcome.transcript
        if outcome.layer is not None:
            self._count(head, outcome.number, PageStatus.FALLBACK if transcript else PageStatus.OK, None)
        elif transcript is not None:
            self._count(head, outcome.number, transcript.status, transcript.reason)
        else:
            self._count(head, outcome.number, PageStatus.FAILED, outcome.reason)

    async def _outcome(self, head: RenderedDocument, page: RenderedPage, jpeg: bytes) -> PageReading:
        layer = page.text_layer.strip()
        if self._options.text_layer == "prefer" and sound_layer(layer, page.ink):
            return PageReading(number=page.number, layer=layer)
        image = PageImage(
            document_id=head.document_id,
            page_number=page.number,
            pages_in_document=head.page_count,
            urgent=self._batch.urgent,
            jpeg=jpeg,
            sha256=page.image_sha256 or "",
            width=page.width or 0,
            height=page.height or 0,
            ink=page.ink,
            text_layer=page.text_layer,
        )
        transcript = await self._reader.read(image, self._retry, self._count_asked)
        if transcript.status is PageStatus.OK and figures.boxes(parse(transcript).regions, image.width, image.height):
            try:
                await asyncio.to_thread(figures.check, jpeg)
            except figures.UndecodableImage as error:
                transcript = replace(
                    transcript, status=PageStatus.FAILED, reason=Reason.RENDER_FAILED, detail=str(error)
                )
        return self._taken(page, transcript)

    def _taken(self, page: RenderedPage, transcript: Transcript) -> PageReading:
        """The page with this transcript, or with its text layer where that has failed."""
        layer = page.text_layer.strip()
        failed_for_good = transcript.status is PageStatus.FAILED and transcript.reason not in NOT_THE_PAGES_FAULT
        # the one line that a scanner stamps is not the page: the fallback must hold all of it, too
        fallback = failed_for_good and self._options.text_layer != "never" and sound_layer(layer, page.ink)
        return PageReading(
            number=page.number,
            transcript=without_raw_attempts(transcript),
            layer=layer if fallback else None,
        )

    def _keep(self, head: RenderedDocument, kept: Kept, readings: list[PageReading], read: bool) -> None:
        """Takes over the pages that a retry does not ask for."""
        for number, page in kept.pages.items():
            self._count(head, number, page.status, page.reason)
            if read and page.read is not None:
                readings.append(page.read)

    async def _read_again(self, document: RenderedDocument, kept: Kept) -> list[PageReading]:
        """Reads the page images that are in the lake: `ocr_markdown` without `rendered_pages`."""
        self._progress.document_opened(document.upload.key, document.page_count)
        readings: list[PageReading] = []
        missing: dict[int, str | None] = {}

        async def one(page: RenderedPage) -> None:
            jpeg, why = await asyncio.to_thread(rendered.image, self._storage, page)
            if jpeg is not None:
                await self._read(document, page, jpeg, readings)
            else:
                missing[page.number] = why

        self._keep(document, kept, readings, read=True)
        async with asyncio.TaskGroup() as group:
            for page in document.pages:
                if page.number in kept.pages:
                    continue
                if page.status is not None:
                    self._count(document, page.number, page.status, page.reason)
                    continue
                await self._pool.budget.take(1)
                group.create_task(one(page)).add_done_callback(lambda _: self._pool.budget.give_back(1))
        if missing:
            for outcome in await asyncio.to_thread(self._without_images, document, missing, kept):
                self._add(document, outcome, readings)
        return sorted(readings, key=lambda page: page.number)

    def _without_images(
        self, document: RenderedDocument, missing: Mapping[int, str | None], kept: Kept
    ) -> list[PageReading]:
        """What stands of pages whose images are gone (`missing`: by number, why). What was read of an image is known by
        its hash; under another recipe the text stays that the page has."""
        own = reading.read_sound(self._storage, self._batch.name, document.document_id)
        standing = {page.number: page for page in (own.pages if own else ())} | kept.readings

        def one(page: RenderedPage) -> PageReading:
            known = transcripts.read(self._storage, self._reader.recipe_id, page.image_sha256 or "")
            if known is not None and is_final(known, self._retry):
                return self._taken(page, known)
            stands = standing.get(page.number)
            if stands is not None and documents.page_outcome(page, stands)[1] is not Reason.IMAGE_GONE:
                return stands
            return PageReading(number=page.number, reason=Reason.IMAGE_GONE, detail=missing[page.number])

        return list(parallel_map(one, (page for page in document.pages if page.number in missing)))

    def _count_asked(self) -> None:
        self.counts.asked += 1

    def _count(self, head: RenderedDocument, number: int, status: PageStatus, reason: Reason | None) -> None:
        self.counts.pages += 1
        self.counts.by_status[status] = self.counts.by_status.get(status, 0) + 1
        self._progress.page_done(head.upload.key, number, status, reason)


def _with_layers(
    pages: list[pdf.RenderedPage | pdf.PageFault], left: int
) -> tuple[list[pdf.RenderedPage | pdf.PageFault], int]:
    """The pages with the text layers that are worth keeping, and how many characters of others may follow."""
    kept: list[pdf.RenderedPage | pdf.PageFault] = []
    for page in pages:
        if isinstance(page, pdf.RenderedPage) and page.text_layer:
            if page.ink < pdf.BLANK_INK or len(page.text_layer) > left:
                page = replace(page, text_layer="")
            left -= len(page.text_layer)
        kept.append(page)
    return kept, left


def _standing(drawn: RenderedDocument, before: RenderedDocument | None, kept: Kept) -> RenderedDocument | None:
    """What stands instead where the upload could not be read this time: its earlier pages are still there.

    A retry was asked for the sake of some pages: whatever is wrong with the upload now, the good ones are not lost.
    """
    if drawn.reason is None:
        return None
    earlier = before if before is not None and before.reason is None else kept.document
    if earlier is None or (drawn.reason not in NOT_READ and (kept is NOTHING or earlier.reason is not None)):
        return None
    return earlier
