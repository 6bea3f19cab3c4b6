"""One document of a batch on its way from upload to transcripts: fetched, drawn page by page, each page read at once.

Each page image and each transcript is in the lake when it is done. Nothing here decides how a page is drawn or read:
`pdf` and `ocr` do. What is left of the document at the end is written by `finishing.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Container, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from ocr_pipeline.flow import documents, figures, reading, rendered, repeating
from ocr_pipeline.flow.batch_run import BatchRun
from ocr_pipeline.flow.finishing import UPLOAD_NOT_READ, finish
from ocr_pipeline.flow.pages import NOT_THE_PAGES_FAULT, is_final
from ocr_pipeline.flow.reading import PageReading, Reading, without_raw_attempts
from ocr_pipeline.flow.rendered import RenderedDocument, RenderedPage
from ocr_pipeline.flow.rendering import ranges
from ocr_pipeline.flow.repeating import NOTHING, Kept
from ocr_pipeline.lake import keys, transcripts
from ocr_pipeline.lake.storage import (
    ObjectForbidden,
    ObjectMissing,
    ObjectTooLarge,
    ObjectUnreadable,
    StorageError,
    parallel_map,
)
from ocr_pipeline.ocr.parsing.parse import parse
from ocr_pipeline.ocr.quality.soundness import sound_layer
from ocr_pipeline.pdf import renderer as pdf
from ocr_pipeline.records import PageImage, PageStatus, Reason, Transcript, Upload

LONG_DOCUMENT = 20
"""Pages from which on a document's page count is written to the lake as soon as it is known, for the command `status`:
a shorter document is done before anyone asks."""

LAYER_CHARACTERS = 20_000_000
"""How much of a document's text layers is kept, counted from its first page: they are in memory until it is done. 5,000
pages of a book have 15 million characters; 300 pages that share one stream of text, in a file of 44 kB, have 60."""


class DocumentStream:
    """One upload in one run of its batch. Use it once."""

    def __init__(self, run: BatchRun, order: int, upload: Upload, folder: Path) -> None:
        """`order`: the document's place among those of the batch, which are drawn in this order. `folder`: local, for
        the PDF while it is drawn."""
        self._run = run
        self._order = order
        self._upload = upload
        self._document_id = keys.document_id(upload.key)
        self._path = folder / f"{order}.pdf"
        self._page_count = 0  # of the PDF, once it is known
        self._kept = NOTHING  # what a retry takes from the other batches
        self._readings: list[PageReading] = []  # in the order in which pages are done

    async def process(self) -> None:
        """Takes the document all the way. A bad document or page becomes a record with its reason.

        Raises StorageError when the lake does not answer, and where the document's record is broken and its upload
        cannot be drawn again.
        """
        run, name = self._run, self._run.batch.name
        before, broken = await asyncio.to_thread(_drawn_before, run, self._document_id)
        self._kept = await asyncio.to_thread(
            repeating.kept, run.storage, run.batch, run.retries, self._upload, before, run.reader.recipe_id
        )
        if run.render or before is None:
            drawn = await self._draw()
            if broken is not None and drawn.reason in UPLOAD_NOT_READ:
                raise broken  # it may tell of pages with a text, which a rejected document would take the place of
            standing = _standing(drawn, before, self._kept)
            if standing is not None:
                drawn = repeating.with_pages(standing, self._kept.pages)
                if run.read:
                    await self._read_again(drawn)
            drawn = rendered.keep_time(drawn, before)
        else:
            drawn = repeating.with_pages(before, self._kept.pages)
            await self._read_again(drawn)
        if run.render or drawn != before:
            await asyncio.to_thread(rendered.write, run.storage, name, drawn)
        run.counts.documents += 1
        run.counts.rejected += drawn.reason is not None
        if drawn.reason:
            run.progress.document_rejected(self._upload.key, drawn.reason)
        if run.read:
            result = Reading(
                document_id=self._document_id,
                recipe_id=run.reader.recipe_id,
                pages=tuple(sorted(self._readings, key=lambda page: page.number)),
                anew=self._kept.anew,
            )
            await asyncio.to_thread(finish, run, drawn, result, again=before is not None or broken is not None)
        run.progress.document_done(self._upload.key)

    # --- drawing -----------------------------------------------------------------------------------------------

    async def _draw(self) -> RenderedDocument:
        """Draws the pages, and has each read as soon as it is drawn."""
        run, kept = self._run, self._kept
        head = RenderedDocument(upload=self._upload, document_id=self._document_id, rendered_at=datetime.now(UTC))
        async with asyncio.TaskGroup() as pages, run.drawing.pool.open_documents:
            try:
                head = await asyncio.to_thread(self._fetch, head)
                if head.reason:
                    return head
                info = await run.drawing.inspect(self._order, self._path)
                self._page_count = info.page_count
                head = replace(head, page_count=info.page_count, title=info.title)
                run.progress.document_opened(self._upload.key, info.page_count)
                if kept.document is None or kept.document.page_count != info.page_count:
                    kept = NOTHING
                if kept is NOTHING and info.page_count >= LONG_DOCUMENT:
                    counted = keys.page_count(run.batch.name, self._document_id)
                    await asyncio.to_thread(run.storage.write, counted, str(info.page_count).encode())
                self._keep(kept)
                tasks = await self._draw_pages(pages, kept.pages)
            except pdf.PdfError as error:
                return replace(head, reason=error.reason, detail=error.detail)
            finally:
                self._path.unlink(missing_ok=True)
        drawn = [*(task.result() for task in tasks), *(page.drawn for page in kept.pages.values())]
        return replace(head, pages=tuple(sorted(drawn, key=lambda page: page.number)))

    def _fetch(self, head: RenderedDocument) -> RenderedDocument:
        """Brings the upload to local disk; the reason is set when it is not the one the batch list names."""
        upload, storage, max_bytes = self._upload, self._run.storage, self._run.options.max_pdf_bytes
        try:
            now = storage.stat(upload.key)
            if now is None:
                return replace(head, reason=Reason.MISSING)
            if now.etag != upload.etag:
                return replace(head, reason=Reason.REPLACED, detail=f"uploaded again {now.last_modified.isoformat()}")
            if upload.size > max_bytes:
                detail = f"{upload.size} bytes, the limit is {max_bytes}"
                return replace(head, reason=Reason.TOO_LARGE, detail=detail)
            read = storage.download(upload.key, self._path, max_bytes)
        except ObjectMissing:
            return replace(head, reason=Reason.MISSING)
        except ObjectTooLarge as error:
            return replace(head, reason=Reason.TOO_LARGE, detail=str(error))
        except StorageError as error:
            self._run.raise_if_lake_is_away()
            return replace(head, reason=Reason.UNREADABLE, detail=str(error))
        if read.etag != upload.etag:
            return replace(head, reason=Reason.REPLACED, detail=f"uploaded again {read.last_modified.isoformat()}")
        with self._path.open("rb") as file:
            return replace(head, content_sha256=hashlib.file_digest(file, "sha256").hexdigest())

    async def _draw_pages(self, group: asyncio.TaskGroup, kept: Container[int]) -> list[asyncio.Task[RenderedPage]]:
        """One task in `group` for each page that is not in `kept`; each page drawn has its place in the page budget."""
        drawing = self._run.drawing
        budget = drawing.pool.budget
        tasks: list[asyncio.Task[RenderedPage]] = []
        layers_left = LAYER_CHARACTERS
        jobs = deque(
            drawing.render(self._order, self._path, first, last, self._run.geometry)
            for first, last in ranges(self._page_count, in_haste=drawing.pool.idle)
            if not all(number in kept for number in range(first, last + 1))
        )
        try:
            while jobs:
                drawn, layers_left = _with_layers(await jobs[0], layers_left)
                jobs.popleft()  # a finished job holds its images
                for page in drawn:
                    if page.number in kept:
                        budget.give_back(1)
                        continue
                    task = group.create_task(self._page(page))
                    # a task cancelled before its first step never runs its `finally`
                    task.add_done_callback(lambda _: budget.give_back(1))
                    tasks.append(task)
        finally:
            for job in jobs:
                if not job.cancel() and not job.cancelled() and job.exception() is None:
                    budget.give_back(len(job.result()))  # drawn, and nobody is left to take it
        return tasks

    async def _page(self, page: pdf.RenderedPage | pdf.PageFault) -> RenderedPage:
        """Stores one drawn page, and has it read."""
        run = self._run
        if isinstance(page, pdf.PageFault):
            run.count_page(self._upload, page.number, page.status, page.reason)
            return RenderedPage(
                number=page.number,
                rotation=page.rotation,
                status=page.status,
                reason=page.reason,
                detail=page.detail,
            )
        image_key = keys.page_image(run.batch.name, self._document_id, page.number)
        drawn = RenderedPage(
            number=page.number,
            rotation=page.rotation,
            status=PageStatus.BLANK if page.ink < pdf.BLANK_INK else None,
            image_key=image_key,
            image_sha256=page.sha256,
            width=page.width,
            height=page.height,
            ink=page.ink,
            text_layer=page.text_layer,
        )
        async with asyncio.TaskGroup() as both:
            both.create_task(asyncio.to_thread(run.storage.write, image_key, page.jpeg))
            if drawn.status is None and run.read:
                both.create_task(self._read(drawn, page.jpeg))
        if drawn.status is not None or not run.read:
            run.count_page(self._upload, page.number, drawn.status or PageStatus.OK, None)
        return drawn

    # --- reading -----------------------------------------------------------------------------------------------

    async def _read(self, page: RenderedPage, jpeg: bytes) -> None:
        self._add(await self._outcome(page, jpeg))

    def _add(self, outcome: PageReading) -> None:
        self._readings.append(outcome)
        transcript = outcome.transcript
        if outcome.layer is not None:
            status, reason = PageStatus.FALLBACK if transcript else PageStatus.OK, None
        elif transcript is not None:
            status, reason = transcript.status, transcript.reason
        else:
            status, reason = PageStatus.FAILED, outcome.reason
        self._run.count_page(self._upload, outcome.number, status, reason)

    async def _outcome(self, page: RenderedPage, jpeg: bytes) -> PageReading:
        run, layer = self._run, page.text_layer.strip()
        if run.options.text_layer == "prefer" and sound_layer(layer, page.ink):
            return PageReading(number=page.number, layer=layer)
        image = PageImage(
            document_id=self._document_id,
            page_number=page.number,
            pages_in_document=self._page_count,
            urgent=run.batch.urgent,
            jpeg=jpeg,
            sha256=page.image_sha256 or "",
            width=page.width or 0,
            height=page.height or 0,
            ink=page.ink,
            text_layer=page.text_layer,
        )
        transcript = await run.reader.read(image, run.retry, run.count_asked)
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
        # the one line that a scanner stamps is not the page: the fallback, too, must hold all of it
        fallback = failed_for_good and self._run.options.text_layer != "never" and sound_layer(layer, page.ink)
        return PageReading(
            number=page.number,
            transcript=without_raw_attempts(transcript),
            layer=layer if fallback else None,
        )

    def _keep(self, kept: Kept) -> None:
        """Takes over the pages that a retry does not ask for."""
        for number, page in kept.pages.items():
            self._run.count_page(self._upload, number, page.status, page.reason)
            if self._run.read and page.read is not None:
                self._readings.append(page.read)

    async def _read_again(self, document: RenderedDocument) -> None:
        """Reads the page images that are in the lake: `ocr_markdown` without `rendered_pages`."""
        run, budget = self._run, self._run.drawing.pool.budget
        self._page_count = document.page_count
        run.progress.document_opened(self._upload.key, document.page_count)
        missing: dict[int, str | None] = {}

        async def one(page: RenderedPage) -> None:
            jpeg, why = await asyncio.to_thread(rendered.image, run.storage, page)
            if jpeg is not None:
                await self._read(page, jpeg)
            else:
                missing[page.number] = why

        self._keep(self._kept)
        async with asyncio.TaskGroup() as group:
            for page in document.pages:
                if page.number in self._kept.pages:
                    continue
                if page.status is not None:
                    run.count_page(self._upload, page.number, page.status, page.reason)
                    continue
                await budget.take(1)
                group.create_task(one(page)).add_done_callback(lambda _: budget.give_back(1))
        if missing:
            for outcome in await asyncio.to_thread(self._without_images, document, missing):
                self._add(outcome)

    def _without_images(self, document: RenderedDocument, missing: Mapping[int, str | None]) -> list[PageReading]:
        """What is known of pages whose images are gone; `missing`: why, by page number.

        What was read of an image is found by the image's hash. Under another recipe the page keeps the text it has.
        """
        run = self._run
        own = reading.read_sound(run.storage, run.batch.name, self._document_id)
        standing = {page.number: page for page in (own.pages if own else ())} | self._kept.readings

        def one(page: RenderedPage) -> PageReading:
            known = transcripts.read_sound(run.storage, run.reader.recipe_id, page.image_sha256 or "")
            if known is not None and is_final(known, run.retry):
                return self._taken(page, known)
            stands = standing.get(page.number)
            if stands is not None and documents.page_outcome(page, stands)[1] is not Reason.IMAGE_GONE:
                return stands
            return PageReading(number=page.number, reason=Reason.IMAGE_GONE, detail=missing[page.number])

        return list(parallel_map(one, (page for page in document.pages if page.number in missing)))


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


def _drawn_before(run: BatchRun, document_id: str) -> tuple[RenderedDocument | None, ObjectUnreadable | None]:
    """What an earlier run of the batch has drawn; or why nobody can tell, though one has."""
    try:
        return rendered.read(run.storage, run.batch.name, document_id), None
    except ObjectForbidden:  # it may be sound
        raise
    except ObjectUnreadable as error:
        return None, error


def _standing(drawn: RenderedDocument, before: RenderedDocument | None, kept: Kept) -> RenderedDocument | None:
    """What stands instead where the upload could not be read this time: its earlier pages are still there.

    A retry was asked for the sake of some pages: whatever is wrong with the upload now, the good ones are not lost.
    """
    if drawn.reason is None:
        return None
    earlier = before if before is not None and before.reason is None else kept.document
    if earlier is None or (drawn.reason not in UPLOAD_NOT_READ and (kept is NOTHING or earlier.reason is not None)):
        return None
    return earlier
