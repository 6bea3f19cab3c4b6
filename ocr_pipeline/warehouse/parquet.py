"""One Parquet file a table and batch: how its bytes are laid out, and how they are read again.

Here belong the writer's options and the check of what is read. Not here: keys in the lake and the PUT (the lake's),
rows (`rows.py`), databases (`load.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.rows import to_tables
from ocr_pipeline.warehouse.schema import PRIMARY_KEYS, SCHEMA_VERSION, TABLES

__all__ = ["from_bytes", "to_bytes", "to_tables"]

_ROW_GROUP = 10_000
"""Rows. Pages are fat (1 KB and more each), and DuckDB reads row groups in parallel: 5,000 to 20,000 is the range."""

_DICTIONARY: Mapping[str, tuple[str, ...]] = {
    # Only columns whose values repeat. With a dictionary on the text columns too, files were 13 % larger (20,000 pages,
    # 20.3 against 17.9 MB), since a dictionary page is filled before the writer gives up on it.
    "documents": ("status", "reason", "batch", "ingest_date", "recipe_id", "deleted_at"),
    "pages": (
        *("document_id", "page_number", "status", "reason", "engine", "backend", "model", "attempts", "finish_reason"),
        *("prompt_tokens", "width", "height", "rotation", "recipe_id", "batch", "ingest_date"),
    ),
    # models give boxes as whole thousandths: a thousand values a column
    "regions": ("document_id", "page_number", "region_index", "label", "x0", "y0", "x1", "y1"),
    "attempts": (
        *("document_id", "page_number", "recipe_id", "attempt", "backend", "model", "choice", "prompt_tokens"),
        *("finish_reason", "outcome"),
    ),
}

_LONG_TEXT = frozenset({"detail", "markdown", "text", "title"})
"""Columns without minimum and maximum: nobody looks for a range of them, and each would stand in the footer."""


def to_bytes(table_name: str, table: pa.Table) -> bytes:
    """The table as one Parquet file, ready for one PUT; the same rows always give the same bytes.

    `table` must have the schema and the order that `to_tables` gives; raises WarehouseError where it has not.
    """
    schema = TABLES[table_name]
    if not table.schema.equals(schema):
        raise WarehouseError(f"table {table_name}: these columns are not those of schema version {SCHEMA_VERSION}")
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=3,  # 15 costs 25 times the CPU for 3 % of the size
        row_group_size=_ROW_GROUP,
        use_dictionary=list(_DICTIONARY[table_name]),
        write_statistics=[name for name in schema.names if name not in _LONG_TEXT],
        sorting_columns=[pq.SortingColumn(schema.get_field_index(name)) for name in PRIMARY_KEYS[table_name]],
        write_page_index=True,
        write_page_checksum=True,
        bloom_filter_options={"document_id": {"ndv": _documents_in_a_row_group(table), "fpp": 0.01}},
    )
    return bytes(sink.getvalue())


def from_bytes(table_name: str, data: bytes) -> pa.Table:
    """The rows of one Parquet file, with today's columns: columns that an older version did not have are NULL.

    Raises WarehouseError for a file of another table, of a newer schema version, or that is no Parquet at all.
    """
    schema = TABLES[table_name]
    try:
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise WarehouseError(f"table {table_name}: not a readable Parquet file ({error})") from error
    metadata = table.schema.metadata or {}
    if metadata.get(b"table") != table_name.encode():
        found = metadata.get(b"table", b"no table of ours").decode("utf-8", "replace")
        raise WarehouseError(f"a Parquet file of {table_name} was expected, this one holds {found}")
    version = metadata.get(b"schema_version", b"")
    if not version.isdigit() or int(version) > SCHEMA_VERSION:
        raise WarehouseError(
            f"table {table_name}: the Parquet file has schema version {version.decode('utf-8', 'replace')!r}, this "
            f"program knows up to {SCHEMA_VERSION}: update ocr-pipeline"
        )
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.schema.names
        else pa.nulls(table.num_rows, type=field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _documents_in_a_row_group(table: pa.Table) -> int:
    """Distinct document ids that the bloom filter of a row group must hold, never 0."""
    distinct = len(table["document_id"].unique())
    return max(1, min(distinct, _ROW_GROUP))
