"""The plain types that pass between the rooms (lake, pdf, ocr, warehouse, flow), and the closed lists of codes.

Here belong frozen records, their enums, and their JSON form. Not here: anything that decides, reads or writes.
All times are UTC with a time zone. All boxes are fractions of the page, origin top left.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum


class PageStatus(StrEnum):
    """How a page ended. Exactly one for each page of each document that was not rejected."""

    OK = "ok"
    BLANK = "blank"  # nothing on it; no engine was asked
    FALLBACK = "fallback"  # the engine failed, the text is the PDF's own text layer
    FAILED = "failed"
    SKIPPED = "skipped"  # over a limit; counts as failed in exit codes

    @property
    def is_bad(self) -> bool:
        """Whether the page's text is missing: failed or skipped."""
        return self in (PageStatus.FAILED, PageStatus.SKIPPED)


class DocumentStatus(StrEnum):
    OK = "ok"  # every page ok, blank or fallback
    PARTIAL = "partial"  # some pages failed or were skipped
    FAILED = "failed"  # every page failed or was skipped
    REJECTED = "rejected"  # not one page could be taken from the file: see the reason


class Reason(StrEnum):
    """Why a page or a document is not `ok`. The closed list; `REASONS` tells each in words."""

    # the document
    NOT_A_PDF = "not_a_pdf"
    EMPTY_FILE = "empty_file"
    ENCRYPTED = "encrypted"
    DAMAGED = "damaged"
    NO_PAGES = "no_pages"
    TOO_LARGE = "too_large"
    TOO_MANY_PAGES = "too_many_pages"
    INSPECT_TIMEOUT = "inspect_timeout"
    MISSING = "missing"
    REPLACED = "replaced"
    UNREADABLE = "unreadable"
    # rendering a page
    PAGE_TOO_LARGE = "page_too_large"
    RENDER_FAILED = "render_failed"
    RENDER_TIMEOUT = "render_timeout"
    IMAGE_GONE = "image_gone"
    # the engine
    BACKEND_UNAVAILABLE = "backend_unavailable"
    MISCONFIGURED = "misconfigured"
    REFUSED = "refused"
    POISONED = "poisoned"
    ENGINE_FAILED = "engine_failed"
    # in the command's list of failures alone, never in a table
    BAD_NAME = "bad_name"
    NAME_TAKEN = "name_taken"
    RUN_FAILED = "run_failed"
    # the text
    REPETITION = "repetition"
    TRUNCATED = "truncated"
    EMPTY_TEXT = "empty_text"
    GARBAGE = "garbage"


REASONS: dict[Reason, str] = {
    Reason.NOT_A_PDF: "no %PDF- in the first kilobyte of the file",
    Reason.EMPTY_FILE: "the file has no bytes",
    Reason.ENCRYPTED: "a password is needed to open the PDF: upload it without one",
    Reason.DAMAGED: "neither poppler nor PDFium could open the PDF",
    Reason.NO_PAGES: "the PDF opens and has no pages",
    Reason.TOO_LARGE: "the file is larger than OCR_MAX_PDF_BYTES",
    Reason.TOO_MANY_PAGES: "the PDF has more pages than OCR_MAX_PAGES",
    Reason.INSPECT_TIMEOUT: "opening the PDF took longer than OCR_RENDER_SECONDS or more than its memory limit",
    Reason.MISSING: "the upload was gone when its batch ran, or the file when it was to be copied",
    Reason.REPLACED: "the upload was replaced by a newer one before its batch ran; the newer one has its own row",
    Reason.UNREADABLE: "this one upload, file or folder cannot be read, while others can: look at its rights",
    Reason.BAD_NAME: "the lake can hold no object of the file's name: too long, not UTF-8, or hidden; rename it",
    Reason.NAME_TAKEN: "in the lake's folder a folder has the file's name, a file has its folder's, or a link leads "
    "out; the message names it: rename one of them",
    Reason.RUN_FAILED: "the run of the document's batch failed as a whole: see the error, and run the command again",
    Reason.PAGE_TOO_LARGE: "a side of the page is longer than OCR_MAX_PAGE_INCHES",
    Reason.RENDER_FAILED: "neither poppler nor PDFium could draw the page",
    Reason.RENDER_TIMEOUT: "drawing the page took longer than OCR_RENDER_SECONDS",
    Reason.IMAGE_GONE: "the page image is no longer in the lake: materialise rendered_pages too",
    Reason.BACKEND_UNAVAILABLE: "no OCR backend answered in time; the page is asked again by the next run",
    Reason.MISCONFIGURED: "every backend refused the request for its own set-up: run `ocr-pipeline doctor`",
    Reason.REFUSED: "the server refused this page image",
    Reason.POISONED: "a server died with the page in flight, and again with it alone there; not sent again unasked",
    Reason.ENGINE_FAILED: "the OCR engine raised an error on this page",
    Reason.REPETITION: "the model repeated itself",
    Reason.TRUNCATED: "the model's answer was cut off at its length limit",
    Reason.EMPTY_TEXT: "no text came back for a page with ink on it",
    Reason.GARBAGE: "what came back is not text",
}
"""One sentence a reason, for people."""


@dataclass(frozen=True, slots=True, order=True)
class Upload:
    """An object under the inbox. All four fields are its identity."""

    key: str  # lake key, e.g. "inbox/reports/a.pdf"; any bytes a store allows, never a local path unchecked
    etag: str
    size: int  # bytes
    last_modified: datetime


@dataclass(frozen=True, slots=True)
class Batch:
    """A frozen list of uploads: the unit of work and the Dagster partition."""

    name: str
    uploads: tuple[Upload, ...]
    urgent: bool = False
    retry_reasons: tuple[Reason, ...] = ()  # a retry: pages that failed for these reasons are asked again
    repeats: tuple[str, ...] = ()  # a retry: for each upload, the batch that it repeats; old lists have none
    deleted: tuple[str, ...] = ()  # upload keys that were seen to be deleted
    gone: tuple[Upload, ...] = ()  # the newest uploads that were known of those keys; old lists have none
    returned: bool = False  # the uploads were marked deleted and have come back: their marks are taken away
    created_at: datetime | None = None  # retries, deletions and returns: time of the request

    def repeated(self, upload: Upload) -> str | None:
        """The batch that this one repeats for `upload`, or None."""
        return dict(zip(self.uploads, self.repeats, strict=True)).get(upload) if self.repeats else None


@dataclass(frozen=True, slots=True)
class Deletion:
    """That a document's file was deleted, or that it came back. Of two, the one with the later `deleted_at` counts.

    A deletion hides the uploads that were known when it was noticed and none that came later, whatever the clocks say:
    uploads dated before `up_to`, and those dated exactly at `up_to` (a bucket's times are whole seconds) that have one
    of the `etags`.
    """

    deleted_at: datetime  # by our clock: for people, and for the order of deletions and returns
    up_to: datetime | None  # `last_modified` of the newest upload known; None: the file came back, nothing is hidden
    etags: tuple[str, ...] | None = None  # of the uploads dated at `up_to`; None: all of them


@dataclass(frozen=True, slots=True)
class Geometry:
    """How page images are made: part of the recipe."""

    dpi: int
    max_long_side: int  # pixels
    max_short_side: int  # pixels
    jpeg_quality: int = 85


@dataclass(frozen=True, slots=True, kw_only=True)
class PageImage:
    """One page as it goes to an engine."""

    document_id: str
    page_number: int  # from 1
    pages_in_document: int
    urgent: bool
    jpeg: bytes  # the exact bytes that are stored and sent
    sha256: str  # of those bytes, hex
    width: int  # pixels
    height: int
    ink: float  # share of pixels that are not background, 0 to 1
    text_layer: str  # the PDF's own text of this page, "" where it has none


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request that was sent to an engine, answered or not."""

    document_id: str  # the page that asked
    page_number: int
    attempt: int  # from 1, over the life of the transcript
    backend: str
    model: str
    choice: str  # why this backend
    started_at: datetime
    seconds: float
    outcome: str  # "ok", a Reason, or a transport fault: "http_503", "timeout", "connection_lost", …
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    score: float | None = None  # quality of the text, 0 to 1
    text: str | None = None  # raw answer where there was one


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """The raw model output for one page image under one recipe, with every attempt: the durable page result."""

    recipe_id: str
    image_sha256: str
    status: PageStatus  # ok or failed
    text: str  # raw, unparsed, of the best attempt; "" when failed
    format: str  # how `text` is to be parsed: "grounding", "markdown", "lines", "json_layout"
    engine: str  # "vllm", "rapidocr", "tesseract", "text_layer"
    backend: str
    model: str
    width: int  # pixels of the image that was read; boxes in `text` may be in them
    height: int
    reason: Reason | None = None
    detail: str | None = None
    finish_reason: str | None = None
    quality: float | None = None  # 0 to 1
    agreement: float | None = None  # with the text layer, 0 to 1; None where the page has none
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seconds: float = 0.0  # of the attempt that was taken
    finished_at: datetime  # rows carry this time, so that a second run writes the same rows
    attempts: tuple[Attempt, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Region:
    """A labelled box of a page and the text in it."""

    label: str
    x0: float
    y0: float
    x1: float
    y1: float
    text: str


@dataclass(frozen=True, slots=True)
class ParsedPage:
    """A transcript's text as people read it."""

    markdown: str
    regions: tuple[Region, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A row of the table `documents`."""

    document_id: str
    source_uri: str
    etag: str
    uploaded_at: datetime
    size_bytes: int
    content_sha256: str | None
    page_count: int  # 0 when rejected
    title: str | None
    status: DocumentStatus
    reason: Reason | None
    detail: str | None
    batch: str
    ingest_date: date
    markdown_uri: str | None
    recipe_id: str
    deleted_at: datetime | None
    processed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A row of the table `pages`."""

    document_id: str
    page_number: int
    status: PageStatus
    reason: Reason | None
    detail: str | None
    markdown: str
    engine: str | None
    backend: str | None
    model: str | None
    attempts: int
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float | None
    finish_reason: str | None
    quality: float | None
    agreement: float | None
    width: int | None  # pixels
    height: int | None
    rotation: int  # degrees the PDF asks the viewer to turn the page, honoured in the image
    image_uri: str | None
    image_sha256: str | None
    recipe_id: str
    batch: str
    ingest_date: date
    processed_at: datetime


@dataclass(frozen=True, slots=True)
class PageRegion:
    """A row of the table `regions`."""

    document_id: str
    page_number: int
    region_index: int  # from 0, in reading order
    region: Region


@dataclass(frozen=True, slots=True)
class PageAttempt:
    """A row of the table `attempts`: an `Attempt` with the recipe it was made for."""

    recipe_id: str
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class DocumentResult:
    """Everything the tables say of one document of one batch."""

    document: Document
    pages: tuple[Page, ...] = ()
    regions: tuple[PageRegion, ...] = ()
    attempts: tuple[PageAttempt, ...] = ()
