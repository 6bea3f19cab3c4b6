"""One Parquet file per table and batch: how its bytes are laid out, and how they are read again.

Here belong the writer's options and the check of what is read. Not here: keys in the lake and the PUT (the lake's),
rows (`rows.py`), databases (`load.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.schema import FILES, FOLDER_COLUMN, PRIMARY_KEYS, SCHEMA_VERSION, TABLES

_ROW_GROUP: Mapping[str, int] = {"documents": 10_000, "pages": 500, "regions": 5_000, "attempts": 10_000}
"""Rows of a row group: what a writer holds in memory, several times over while it encodes. With 2,000 pages and 20,000
regions the files of 3,000 pages took 23 MB more to write, and were 2 % smaller."""

_DICTIONARY: Mapping[str, tuple[str, ...]] = {
    # Only columns whose values repeat. With a dictionary on the text columns too, files were 13 % larger (20,000 pages,
    # 20.3 against 17.9 MB), since a dictionary page is filled before the writer gives up on it.
    "documents": ("status", "reason", "batch", "recipe_id", "deleted_at"),
    "pages": (
        *("document_id", "page_number", "status", "reason", "engine", "backend", "model", "attempts", "finish_reason"),
        *("prompt_tokens", "width", "height", "rotation", "recipe_id", "batch"),
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

_DATE = FOLDER_COLUMN.encode()


class TableWriter:
    """One table's Parquet file, written piece by piece: memory holds one row group, however long the table.

    Pieces come in the order of the key; the same rows always give the same bytes, however they are cut into pieces.
    `ingest_date` is the name of the file's folder; in the file it stands in the metadata only. `documents`: how many
    distinct document ids to expect, for the bloom filters.
    """

    def __init__(self, table: str, where: Path | pa.BufferOutputStream, ingest_date: date | None, documents: int):
        self.rows = 0
        self._table = table
        self._last_key: tuple[Any, ...] | None = None
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        schema = FILES[table]
        if ingest_date is not None:
            schema = schema.with_metadata({**(schema.metadata or {}), _DATE: ingest_date.isoformat().encode()})
        self._schema = schema
        self._writer = pq.ParquetWriter(
            str(where) if isinstance(where, Path) else where,
            schema,
            compression="zstd",
            compression_level=3,  # 15 costs 25 times the CPU for 3 % of the size
            use_dictionary=list(_DICTIONARY[table]),
            write_statistics=[name for name in schema.names if name not in _LONG_TEXT],
            sorting_columns=[pq.SortingColumn(schema.get_field_index(name)) for name in PRIMARY_KEYS[table]],
            write_page_index=True,
            write_page_checksum=True,
            bloom_filter_options={
                "document_id": {"ndv": max(1, min(documents, _ROW_GROUP[table])), "fpp": 0.01},
            },
        )

    def write(self, rows: pa.Table) -> None:
        """Appends rows with the schema of `TABLES`, sorted, all after those before; raises WarehouseError otherwise."""
        if not rows.schema.equals(TABLES[self._table]):
            raise WarehouseError(f"table {self._table}: these columns are not those of schema version {SCHEMA_VERSION}")
        if not rows.num_rows:
            return
        first, last = self._key(rows, 0), self._key(rows, rows.num_rows - 1)
        if self._last_key is not None and first <= self._last_key:
            raise WarehouseError(f"table {self._table}: the row with the key {first!r} comes after {self._last_key!r}")
        self._last_key = last
        self._waiting.append(rows.select(self._schema.names))
        self._waiting_rows += rows.num_rows
        self.rows += rows.num_rows
        size = _ROW_GROUP[self._table]
        while self._waiting_rows >= size:
            self._flush(size)

    def close(self) -> None:
        """Writes what is left, and the footer. Without it there is no file that can be read."""
        if self._waiting_rows or not self.rows:
            self._flush(self._waiting_rows)
        self._writer.close()

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self._writer.close()

    def _key(self, rows: pa.Table, index: int) -> tuple[Any, ...]:
        return tuple(rows[column][index].as_py() for column in PRIMARY_KEYS[self._table])

    def _flush(self, count: int) -> None:
        rows = pa.concat_tables(self._waiting) if self._waiting else self._schema.empty_table()
        # one array per column: a writer given many small ones writes many small pages
        group = rows.slice(0, count).combine_chunks().replace_schema_metadata(self._schema.metadata)
        self._writer.write_table(group.cast(self._schema), row_group_size=max(1, count))
        rest = rows.slice(count)
        self._waiting = [rest] if rest.num_rows else []
        self._waiting_rows = rest.num_rows


def to_bytes(table_name: str, table: pa.Table) -> bytes:
    """The table as one Parquet file, ready for one PUT; the same rows always give the same bytes.

    `table` must have the schema and the order that `rows.to_table` gives, and rows of one batch; raises WarehouseError
    where it has not.
    """
    if not table.schema.equals(TABLES[table_name]):
        raise WarehouseError(f"table {table_name}: these columns are not those of schema version {SCHEMA_VERSION}")
    sink = pa.BufferOutputStream()
    documents = len(table["document_id"].unique())
    with TableWriter(table_name, sink, _ingest_date(table_name, table), documents) as writer:
        writer.write(table)
    return bytes(sink.getvalue())


def from_bytes(table_name: str, data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of one Parquet file, with today's columns: columns that an older version did not have are NULL.

    `columns`: only these. Raises WarehouseError for a file of another table, of a newer schema version, or that is no
    Parquet at all.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        there = file.schema_arrow
        wanted = [field for field in TABLES[table_name] if columns is None or field.name in columns]
        # no threads: Arrow's give a buffer of Python's back after the answer, and where that falls into the end of the
        # interpreter the process aborts (one `ingest` in 40 ended with signal 6, its work done)
        table = file.read([field.name for field in wanted if field.name in there.names], use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise WarehouseError(f"table {table_name}: not a readable Parquet file ({error})") from error
    metadata = there.metadata or {}
    if metadata.get(b"table") != table_name.encode():
        found = metadata.get(b"table", b"no table of ours").decode("utf-8", "replace")
        raise WarehouseError(f"a Parquet file of {table_name} was expected, this one holds {found}")
    version = metadata.get(b"schema_version", b"")
    if not version.isdigit() or int(version) > SCHEMA_VERSION:
        raise WarehouseError(
            f"table {table_name}: the Parquet file has schema version {version.decode('utf-8', 'replace')!r}, this "
            f"program knows up to {SCHEMA_VERSION}: update ocr-pipeline"
        )
    arrays = []
    for field in wanted:
        if field.name in there.names:
            arrays.append(table[field.name].cast(field.type))
        elif field.name == FOLDER_COLUMN and _DATE in metadata:
            day = date.fromisoformat(metadata[_DATE].decode())
            arrays.append(pa.chunked_array([pa.repeat(pa.scalar(day, field.type), table.num_rows)]))
        else:
            arrays.append(pa.chunked_array([pa.nulls(table.num_rows, type=field.type)]))
    return pa.table(arrays, schema=pa.schema(wanted, metadata=TABLES[table_name].metadata))


def _ingest_date(table_name: str, table: pa.Table) -> date | None:
    """The date of the batch's rows, None where no row says it."""
    if FOLDER_COLUMN not in table.schema.names or not table.num_rows:
        return None
    days = table[FOLDER_COLUMN].unique().to_pylist()
    if len(days) != 1 or days[0] is None:
        raise WarehouseError(f"table {table_name}: rows of one batch have the dates {sorted(map(str, days))}")
    found: date = days[0]
    return found
