"""The names of everything in the lake. One function per kind of object; no reading or writing here.

Upload keys are hostile: on S3 a key may hold `..`, empty parts, line breaks or 1,024 bytes. What is made from one
here is a safe relative path on a local disk (no part above 255 bytes, none that climbs) and a valid S3 key.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, date

from ocr_pipeline.records import Upload

BATCHES = "batches/"
PAGES = "pages/"
TRANSCRIPTS = "transcripts/"
MARKDOWN = "markdown/"
TABLES = "tables/"
MANIFESTS = "tables/_manifests/"
POISONED = "poisoned/"
SHOWN = "shown/"
UPLOADERS = "uploads-by-sha256/"  # the upload Worker's records, `{"key": …}`: which upload has this content
PROBE = "doctor/probe"  # written, read and deleted again by `doctor`
PROBE_TABLE = "doctor/ingest_date=2026-11-01/pages.parquet"  # the same; as a batch's Parquet lies in its folder

OURS = frozenset({BATCHES, PAGES, TRANSCRIPTS, MARKDOWN, TABLES, POISONED, SHOWN, UPLOADERS, "doctor/"})
"""First parts of the keys of everything that is no upload: the inbox lies in none of them."""

MAX_PART_BYTES = 255  # NAME_MAX of ext4, xfs, apfs
MAX_KEY_BYTES = 1024 - 192  # R2 and S3 take 1,024; the rest is for the lake's prefix and a figure's name

_RENDERED, _READING = "rendered.json", "reading.json"
_TABLE_FILE = re.compile(r"tables/([^/]+)/ingest_date=(\d{4}-\d\d-\d\d)/([^/]+)\.parquet")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _cut(text: str, size: int) -> str:
    """The longest start of `text` that is at most `size` bytes of UTF-8, with no character torn."""
    return text.encode("utf-8", "surrogateescape")[:size].decode("utf-8", "ignore")


def _part(part: str, suffix: str, *, folder: bool) -> str:
    """One part of a path as a file name: cut and marked with a hash wherever it cannot stand as it is."""
    plain = (
        part not in ("", ".", "..")
        and "\0" not in part
        and len(part.encode("utf-8", "surrogateescape")) + len(suffix) <= MAX_PART_BYTES
        # a folder "a.pdf.md/" would collide with the markdown file of "a.pdf"
        and not (folder and part.endswith((".md", ".files")))
    )
    if plain:
        return part + suffix
    mark = "~" + _digest(part)
    stem = _cut(part.replace("\0", "_"), MAX_PART_BYTES - len(mark) - len(suffix)).strip(".") or "_"
    return stem + mark + suffix


def _below(prefix: str, upload_key: str, suffix: str) -> str:
    *folders, name = upload_key.split("/")
    path = "/".join([*(_part(folder, "", folder=True) for folder in folders), _part(name, suffix, folder=False)])
    key = prefix + path
    if len(key.encode("utf-8", "surrogateescape")) > MAX_KEY_BYTES:
        key = f"{prefix}{_cut(folders[0] if folders else '', 64).strip('.') or '_'}/{_digest(upload_key)}{suffix}"
    return key


def document_id(upload_key: str) -> str:
    """24 hex digits made of the upload key alone: a re-upload is the same document."""
    return hashlib.sha256(upload_key.encode("utf-8", "surrogateescape")).hexdigest()[:24]


def batch(name: str) -> str:
    return f"{BATCHES}{name}.json"


def pages_of_batch(batch_name: str) -> str:
    """The prefix of everything that a batch has made of its documents: page images and records."""
    return f"{PAGES}{batch_name}/"


def pages_of_document(batch_name: str, document: str) -> str:
    """The prefix of what a batch has made of one document."""
    return f"{pages_of_batch(batch_name)}{document}/"


def page_image(batch_name: str, document: str, page: int) -> str:
    return f"{pages_of_document(batch_name, document)}{page:04d}.jpg"


def is_page_image(key: str) -> bool:
    return key.startswith(PAGES) and key.endswith(".jpg")


def page_count(batch_name: str, document: str) -> str:
    """How many pages a long document has, for people who ask while it is drawn: a number in digits."""
    return f"{pages_of_document(batch_name, document)}page-count.txt"


def rendered(batch_name: str, document: str) -> str:
    """What rendering made of one document: page count, title, and an entry for each page."""
    return f"{pages_of_document(batch_name, document)}{_RENDERED}"


def is_rendered(key: str) -> bool:
    return key.startswith(PAGES) and key.endswith(f"/{_RENDERED}")


def reading(batch_name: str, document: str) -> str:
    """What OCR made of one document: its pages' transcripts under the recipe of the last run."""
    return f"{pages_of_document(batch_name, document)}{_READING}"


def is_reading(key: str) -> bool:
    return key.startswith(PAGES) and key.endswith(f"/{_READING}")


def retries_done(first_batch: str, document: str) -> str:
    """Where retries of the document leave their marks: beside the records of the batch that read the upload first."""
    return f"{pages_of_document(first_batch, document)}retries/"


def retry_done(first_batch: str, document: str, retry: str) -> str:
    """Says that this retry has read the document."""
    return retries_done(first_batch, document) + retry


def repeated_by(batch_name: str, document: str) -> str:
    """Holds the name of the last retry of the document of that batch. Older releases wrote it; it is only read."""
    return f"{pages_of_document(batch_name, document)}repeated.txt"


def transcripts(recipe_id: str) -> str:
    """The prefix of all transcripts of one recipe."""
    return f"{TRANSCRIPTS}{recipe_id}/"


def transcript(recipe_id: str, image_sha256: str) -> str:
    return f"{transcripts(recipe_id)}{image_sha256}.json"


def parse_transcript(key: str) -> tuple[str, str]:
    """Recipe and image (its SHA-256) of the transcript that has this key."""
    parts = key.removeprefix(TRANSCRIPTS).split("/")
    return parts[0], parts[-1].removesuffix(".json")


def markdown(upload_key: str) -> str:
    return _below(MARKDOWN, upload_key, ".md")


def figures(upload_key: str) -> str:
    """The prefix of the figures that were cut out of a document's pages."""
    return _below(MARKDOWN, upload_key, ".files") + "/"


def figure(upload_key: str, page: int, region: int) -> str:
    return f"{figures(upload_key)}{page:04d}-{region}.jpg"


def shown_by(upload_key: str) -> str:
    """Where batches leave their marks before they write the document's markdown file and figures."""
    return f"{SHOWN}{document_id(upload_key)}/"


def shown(upload: Upload, batch_name: str) -> str:
    """Says that this batch, which read this upload, writes them. Marks sort as the rows of the batches do: the last
    one's are in the tables."""
    time = upload.last_modified.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    return f"{shown_by(upload.key)}{time}-{batch_name}"


def batch_of_shown(key: str) -> str:
    """The name of the batch whose mark has this key."""
    return key.rsplit("/", 1)[1].partition("-")[2]


def table(name: str, ingest_date: date, batch_name: str) -> str:
    return f"{TABLES}{name}/ingest_date={ingest_date.isoformat()}/{batch_name}.parquet"


def parse_table(key: str) -> tuple[str, date, str] | None:
    """Table, date and batch of the Parquet file that has this key; None where it is the key of none."""
    found = _TABLE_FILE.fullmatch(key)
    try:
        return (found[1], date.fromisoformat(found[2]), found[3]) if found else None
    except ValueError:  # there is no such day
        return None


def manifest(batch_name: str) -> str:
    """The list of a batch's Parquet files: written last, so that a batch is published whole or not at all."""
    return f"{MANIFESTS}{batch_name}.json"


def batch_of_manifest(key: str) -> str:
    """The name of the batch whose manifest has this key."""
    return key.removeprefix(MANIFESTS).removesuffix(".json")


def poisoned(recipe_id: str, image_sha256: str, name: str) -> str:
    return f"{POISONED}{recipe_id}/{image_sha256}/{name}"
