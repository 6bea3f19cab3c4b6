"""The columns of the four tables, once: for Parquet, for DuckDB and for MotherDuck.

Here belong column names, types, descriptions, keys and the version of all that. Not here: SQL, files, rows.
Changing anything here is a new `SCHEMA_VERSION`, and where tables change a new step in `migrations.py`. New columns go
to the end and are nullable, so that files of older versions still load.

Times are instants (`TIMESTAMPTZ`, in Parquet microseconds adjusted to UTC) and not naive `TIMESTAMP`s: a cast between
the two follows the session's time zone, so a naive column would be wrong by hours, silently, for whoever loads or
groups on a machine that is not set to UTC. All boxes are fractions of the page, origin top left.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

SCHEMA_VERSION = 2
"""Version of the columns below and of how they stand in files. In each Parquet file's metadata.

1: `ingest_date` was a column of the files too. 2: it is the name of their folder, `ingest_date=2026-11-01`, alone.
"""

FOLDER_COLUMN = "ingest_date"
"""The column that a file's folder holds and the file does not, as Hive, Spark and pandas write it.

With a date in the file as well, `pyarrow.parquet.read_table(folder)` and `pandas.read_parquet(folder)` fail: pyarrow
makes a dictionary of strings of the folder's name. With just that type in the file, `pyarrow.dataset` fails, which
makes a string of it, and polars gives no dates. Without it in the file all four readers take the folder as it is.
"""

_STRING = pa.string()
_INT = pa.int32()
_LONG = pa.int64()
_REAL = pa.float64()
_TIME = pa.timestamp("us", tz="UTC")
_DATE = pa.date32()

_Column = tuple[str, pa.DataType, str]  # a name that ends in "?" may be NULL

_DOCUMENTS: tuple[_Column, ...] = (
    ("document_id", _STRING, "key; made from the upload's key, so a re-upload is the same document"),
    ("source_uri", _STRING, "where the uploaded PDF is"),
    ("etag", _STRING, "the upload's etag"),
    ("uploaded_at", _TIME, "the upload's last modification; the newest upload of a key wins"),
    ("size_bytes", _LONG, "size of the PDF"),
    ("content_sha256?", _STRING, "SHA-256 of the PDF's bytes, hex; NULL where they could not be read"),
    ("page_count", _INT, "pages in the PDF; 0 when rejected"),
    ("title?", _STRING, "title from the PDF's own metadata, untrusted"),
    ("status", _STRING, "ok, partial, failed, rejected"),
    ("reason?", _STRING, "why it is not ok: a code of the closed list"),
    ("detail?", _STRING, "the same in the words of what raised it"),
    ("batch", _STRING, "the batch that made this row"),
    ("ingest_date", _DATE, "UTC date of the batch's newest upload"),
    ("markdown_uri?", _STRING, "the document's .md file"),
    ("recipe_id", _STRING, "hash of what the engine was asked for"),
    ("deleted_at?", _TIME, "when the upload was seen to be deleted; NULL while it is there"),
    ("processed_at", _TIME, "when this result was made"),
)

_PAGES: tuple[_Column, ...] = (
    ("document_id", _STRING, "key, with page_number"),
    ("page_number", _INT, "key, with document_id; from 1"),
    ("status", _STRING, "ok, blank, fallback (text layer), failed, skipped (over a limit)"),
    ("reason?", _STRING, "why it is not ok: a code of the closed list"),
    ("detail?", _STRING, "the same in the words of what raised it"),
    ("markdown", _STRING, "the page's text; empty where there is none"),
    ("engine?", _STRING, "what read it: vllm, rapidocr, tesseract, text_layer"),
    ("backend?", _STRING, "the server that answered"),
    ("model?", _STRING, "the model that answered"),
    ("attempts", _INT, "requests that the transcript took"),
    ("prompt_tokens?", _INT, "of the attempt that was taken"),
    ("completion_tokens?", _INT, "of the attempt that was taken"),
    ("seconds?", _REAL, "of the attempt that was taken"),
    ("finish_reason?", _STRING, "of the attempt that was taken: stop, length"),
    ("quality?", _REAL, "of the text, 0 to 1"),
    ("agreement?", _REAL, "with the PDF's own text layer, 0 to 1; NULL where the page has none"),
    ("width?", _INT, "of the page image, pixels"),
    ("height?", _INT, "of the page image, pixels"),
    ("rotation", _INT, "degrees the PDF asks the viewer to turn the page, honoured in the image"),
    ("image_uri?", _STRING, "the stored page image"),
    ("image_sha256?", _STRING, "SHA-256 of the exact bytes stored and sent, hex"),
    ("recipe_id", _STRING, "hash of what the engine was asked for"),
    ("batch", _STRING, "the batch that made this row"),
    ("ingest_date", _DATE, "UTC date of the batch's newest upload"),
    ("processed_at", _TIME, "when this result was made"),
)

_REGIONS: tuple[_Column, ...] = (
    ("document_id", _STRING, "key, with page_number and region_index"),
    ("page_number", _INT, "key, with document_id and region_index; from 1"),
    ("region_index", _INT, "key, with document_id and page_number; from 0, in reading order"),
    ("label", _STRING, "what the model calls it: title, text, table, image"),
    ("x0", _REAL, "left, fraction of the page's width"),
    ("y0", _REAL, "top, fraction of the page's height"),
    ("x1", _REAL, "right, fraction of the page's width"),
    ("y1", _REAL, "bottom, fraction of the page's height"),
    ("text", _STRING, "the text in it"),
)

_ATTEMPTS: tuple[_Column, ...] = (
    ("document_id", _STRING, "key, with page_number, recipe_id and attempt: the page that asked"),
    ("page_number", _INT, "key, with document_id, recipe_id and attempt; from 1"),
    ("recipe_id", _STRING, "key, with document_id, page_number and attempt: hash of what was asked for"),
    ("attempt", _INT, "key, with document_id, page_number and recipe_id; from 1"),
    ("backend", _STRING, "the server that was asked"),
    ("model", _STRING, "the model that was asked"),
    ("choice", _STRING, "why this backend"),
    ("started_at", _TIME, "when the request was sent"),
    ("seconds", _REAL, "from sending to the last byte, or to giving up"),
    ("prompt_tokens?", _INT, "as the server counted"),
    ("completion_tokens?", _INT, "as the server counted"),
    ("finish_reason?", _STRING, "as the server said: stop, length"),
    ("outcome", _STRING, "ok, a reason code, or a transport fault: http_503, timeout, connection_lost"),
)


def _schema(table: str, columns: tuple[_Column, ...]) -> pa.Schema:
    fields = [
        pa.field(name.rstrip("?"), kind, nullable=name.endswith("?"), metadata={"description": description})
        for name, kind, description in columns
    ]
    return pa.schema(fields, metadata={"table": table, "schema_version": str(SCHEMA_VERSION)})


TABLES: Mapping[str, pa.Schema] = {
    "documents": _schema("documents", _DOCUMENTS),
    "pages": _schema("pages", _PAGES),
    "regions": _schema("regions", _REGIONS),
    "attempts": _schema("attempts", _ATTEMPTS),
}
"""Arrow schema of each table, columns in the order of the contract, descriptions in the fields' metadata."""

PRIMARY_KEYS: Mapping[str, tuple[str, ...]] = {
    "documents": ("document_id",),
    "pages": ("document_id", "page_number"),
    "regions": ("document_id", "page_number", "region_index"),
    "attempts": ("document_id", "page_number", "recipe_id", "attempt"),
}
"""Key of each table; always its first columns. Rows in a Parquet file are sorted by it."""

FILES: Mapping[str, pa.Schema] = {
    name: pa.schema([field for field in schema if field.name != FOLDER_COLUMN], metadata=schema.metadata)
    for name, schema in TABLES.items()
}
"""What stands in the Parquet files of a table: all of its columns but `FOLDER_COLUMN`."""
