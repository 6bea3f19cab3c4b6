"""A lake and a warehouse with documents as the pipeline would have left them, made from a few words each.

Rows go in through `load_batch`, grounded pages through the real parser, images are real JPEGs.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from PIL import Image, ImageDraw

from ocr_pipeline.flow.documents import _figure_links, status_of
from ocr_pipeline.flow.figures import boxes, crop
from ocr_pipeline.flow.rendered import RenderedPage
from ocr_pipeline.lake import keys, transcripts
from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.ocr.parsing.parse import parse_text
from ocr_pipeline.records import (
    Attempt,
    Document,
    DocumentResult,
    DocumentStatus,
    Page,
    PageAttempt,
    PageRegion,
    PageStatus,
    ParsedPage,
    Reason,
    Region,
    Transcript,
)
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.load import load_batch
from ocr_pipeline_tests.warehouse.sample_rows import to_tables

NOON = datetime(2026, 11, 3, 12, 0, tzinfo=UTC)
WIDTH, HEIGHT = 620, 877  # pixels of a page image
RECIPE = "recipe-1"
BATCH = "20261103T120000Z-1a2b3c4d5e6f"


@dataclass(frozen=True, slots=True, kw_only=True)
class PageMade:
    """One page. `raw` is parsed by `format` as the pipeline does; `markdown` and `regions` go in as they are."""

    raw: str | None = None
    format: str = "grounding"
    markdown: str = ""
    regions: tuple[Region, ...] = ()
    status: PageStatus = PageStatus.OK
    reason: Reason | None = None
    detail: str | None = None
    backend: str = "rtx4090"
    seconds: float = 2.5
    agreement: float | None = 0.97
    quality: float = 0.93
    image: bytes | None = None  # None: one is drawn
    attempts: tuple[str, ...] = ("ok",)  # outcomes
    transcript: bool = True  # whether the lake holds it
    days: int = 0  # read that many days after NOON


@dataclass(slots=True)
class Library:
    lake: Storage
    warehouse: Warehouse
    results: list[DocumentResult] = field(default_factory=list)

    def add(
        self,
        key: str,
        pages: Sequence[PageMade] = (),
        *,
        title: str | None = None,
        rejected: Reason | None = None,
        detail: str | None = None,
        minutes: float = 0.0,
    ) -> str:
        """Puts one document there; returns its id. `key` is below inbox/. Nothing is loaded before `load`."""
        upload = f"inbox/{key}"
        document = keys.document_id(upload)
        rows: list[Page] = []
        regions: list[PageRegion] = []
        attempts: list[PageAttempt] = []
        for number, made in enumerate(pages, 1):
            page, found, tried = self._page(upload, document, number, made)
            rows.append(page)
            regions += found
            attempts += tried
        uploaded = NOON + timedelta(minutes=minutes)
        bad = next((page.reason for page in rows if page.reason), None)
        row = Document(
            document_id=document,
            source_uri=self.lake.uri_of(upload),
            etag="e1",
            uploaded_at=uploaded,
            size_bytes=120_000 + len(key),
            content_sha256=None if rejected else sha256(key.encode("utf-8", "surrogateescape")).hexdigest(),
            page_count=len(rows),
            title=title,
            status=DocumentStatus.REJECTED if rejected else status_of(rows),
            reason=rejected or bad,
            detail=detail,
            batch=BATCH,
            ingest_date=NOON.date(),
            markdown_uri=None if rejected else self.lake.uri_of(keys.markdown(upload)),
            recipe_id=RECIPE,
            deleted_at=None,
            processed_at=uploaded + timedelta(minutes=1),
        )
        self.results.append(DocumentResult(row, tuple(rows), tuple(regions), tuple(attempts)))
        return document

    def load(self) -> Library:
        load_batch(self.warehouse, BATCH, to_tables(self.results))
        return self

    def _page(
        self, upload: str, document: str, number: int, made: PageMade
    ) -> tuple[Page, list[PageRegion], list[PageAttempt]]:
        parsed = parse_text(made.raw, made.format, WIDTH, HEIGHT) if made.raw is not None else None
        parsed = parsed or ParsedPage(made.markdown, made.regions)
        image = made.image if made.image is not None else picture(f"{upload}\npage {number}", parsed.regions)
        digest = sha256(image + f"{upload} {number}".encode("utf-8", "replace")).hexdigest()
        key = keys.page_image(BATCH, document, number)
        drawn = RenderedPage(number=number, rotation=0, width=WIDTH, height=HEIGHT)
        if image:
            self.lake.write(key, image)
            for index, figure in crop(image, boxes(parsed.regions, WIDTH, HEIGHT)) if made.raw else ():
                self.lake.write(keys.figure(upload, number, index), figure)
        failed = made.status.is_bad
        tried = tuple(
            Attempt(
                document_id=document,
                page_number=number,
                attempt=place,
                backend=made.backend,
                model="deepseek-ai/DeepSeek-OCR",
                choice="shortest wait",
                started_at=NOON + timedelta(days=made.days, seconds=10 * number + place),
                seconds=made.seconds,
                outcome=outcome,
                finish_reason="stop" if outcome == "ok" else None,
                prompt_tokens=913,
                completion_tokens=640 if outcome == "ok" else None,
                text=(made.raw or made.markdown) if outcome == "ok" else f"loop loop loop {place}",
            )
            for place, outcome in enumerate(made.attempts, 1)
        )
        if made.transcript and made.status is not PageStatus.BLANK:
            transcripts.write(
                self.lake,
                Transcript(
                    recipe_id=RECIPE,
                    image_sha256=digest,
                    status=PageStatus.FAILED if failed else PageStatus.OK,
                    text="" if failed else made.raw or made.markdown,
                    format=made.format,
                    engine="vllm",
                    backend=made.backend,
                    model="deepseek-ai/DeepSeek-OCR",
                    width=WIDTH,
                    height=HEIGHT,
                    finished_at=NOON,
                    attempts=tried,
                ),
            )
        blank = made.status is PageStatus.BLANK
        page = Page(
            document_id=document,
            page_number=number,
            status=made.status,
            reason=made.reason,
            detail=made.detail,
            markdown="" if failed or blank else _figure_links(upload, drawn, parsed),
            engine=None if blank else "vllm",
            backend=None if blank else made.backend,
            model=None if blank else "deepseek-ai/DeepSeek-OCR",
            attempts=0 if blank else len(tried),
            prompt_tokens=None if blank else 913,
            completion_tokens=None if blank or failed else 640,
            seconds=None if blank else made.seconds,
            finish_reason=None if blank else "stop",
            quality=None if blank or failed else made.quality,
            agreement=None if blank or failed else made.agreement,
            width=WIDTH,
            height=HEIGHT,
            rotation=0,
            image_uri=self.lake.uri_of(key),
            image_sha256=digest,
            recipe_id=RECIPE,
            batch=BATCH,
            ingest_date=NOON.date(),
            processed_at=NOON + timedelta(days=made.days, seconds=number),
        )
        regions = [PageRegion(document, number, index, region) for index, region in enumerate(parsed.regions)]
        attempts = [] if blank else [PageAttempt(RECIPE, attempt) for attempt in tried]
        return page, ([] if failed else regions), attempts


def library(folder: Path) -> Library:
    """An empty one."""
    return Library(open_storage(str(folder / "lake")), Warehouse(str(folder / "warehouse.duckdb"), wait_seconds=10))


def picture(text: str, regions: Sequence[Region] = ()) -> bytes:
    """A JPEG of a page: the text at its top, grey lines where there are regions."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    draw.text((20, 12), text.encode("ascii", "replace").decode(), fill="#888888")
    for region in regions[:200]:
        x0, y0, x1, y1 = region.x0 * WIDTH, region.y0 * HEIGHT, region.x1 * WIDTH, region.y1 * HEIGHT
        if region.label in ("image", "figure"):
            draw.rectangle((x0, y0, x1, y1), fill="#cfe0f0")
            draw.ellipse((x0 + (x1 - x0) * 0.3, y0 + 8, x0 + (x1 - x0) * 0.7, max(y0 + 9, y1 - 8)), fill="#e0a030")
            continue
        words = " ".join(region.text.split())
        for line, top in enumerate(range(int(y0) + 3, int(y1) - 6, 13)):
            draw.text((x0 + 3, top), words[line * 90 : line * 90 + int((x1 - x0) / 6.2)], fill="#222222")
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return data.getvalue()


GROUNDED = r"""<|ref|>title<|/ref|><|det|>[[80, 60, 900, 100]]<|/det|>
# Heat in thin wires

<|ref|>text<|/ref|><|det|>[[80, 120, 900, 230]]<|/det|>
We measure the current \(I\) through a wire of radius \(r\). The temperature rises with the square of the current.

<|ref|>equation<|/ref|><|det|>[[200, 250, 780, 310]]<|/det|>
\[ \Delta T = \frac{\rho I^2}{2 \pi^2 r^3 h} \]

<|ref|>table<|/ref|><|det|>[[80, 340, 900, 520]]<|/det|>
<table><tr><td>Radius</td><td>Current</td><td>Rise</td></tr>
<tr><td>0.1 mm</td><td>1.0 A</td><td>\(12\,K\)</td></tr>
<tr><td>0.2 mm</td><td>2.0 A</td><td>6 K</td></tr></table>

<|ref|>image<|/ref|><|det|>[[120, 550, 860, 800]]<|/det|>

<|ref|>image_caption<|/ref|><|det|>[[120, 810, 860, 850]]<|/det|>
Figure 1. The rise over the current.
"""
