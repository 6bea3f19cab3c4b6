"""Results of a batch to Arrow tables and back: one table per kind of row, sorted by key.

Here belongs the step between records and columns, and what is done with values a column cannot hold. Not here: files
(`parquet.py`) and databases (`load.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from itertools import pairwise
from operator import attrgetter
from typing import Any

import pyarrow as pa

from ocr_pipeline.records import Document, DocumentResult, DocumentStatus, Page, PageStatus, Reason
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.schema import PRIMARY_KEYS, TABLES

_PATHS: Mapping[str, Mapping[str, str]] = {
    # where a column of the table is found in the record, when it is not an attribute of the same name
    "regions": {name: f"region.{name}" for name in ("label", "x0", "y0", "x1", "y1", "text")},
    "attempts": {name: f"attempt.{name}" for name in TABLES["attempts"].names if name != "recipe_id"},
}

_PAGE_FIELDS = tuple(field.name for field in fields(Page))


def to_table(name: str, records: list[Any]) -> pa.Table:
    """The rows of one table with its schema of `TABLES`, made of records of its kind and sorted by its key; `records`
    are sorted in place.

    The input is hostile text: lone surrogates become U+FFFD, since no UTF-8 column can hold them, and a number that a
    nullable column cannot hold becomes NULL (a server may say it used 10**30 tokens).
    Raises WarehouseError where a key comes twice, a required value is None, or a time has no time zone: those are
    faults of ours, not of a document.
    """
    paths = _PATHS.get(name, {})
    getters = {column: attrgetter(paths.get(column, column)) for column in TABLES[name].names}

    def key_of(record: Any) -> tuple[Any, ...]:
        return tuple(getters[column](record) for column in PRIMARY_KEYS[name])

    records.sort(key=key_of)
    for before, after in pairwise(records):
        if key_of(before) == key_of(after):
            raise WarehouseError(f"table {name}: two rows of one batch have the key {key_of(after)!r}")
    arrays = []
    for column in TABLES[name]:
        values = [getters[column.name](record) for record in records]
        if not column.nullable and None in values:
            key = key_of(records[values.index(None)])
            raise WarehouseError(f"table {name}: {column.name} is missing in the row with the key {key!r}")
        arrays.append(_array(name, column, values))
    return pa.table(arrays, schema=TABLES[name])


def to_outcomes(documents: pa.Table, pages: pa.Table) -> list[DocumentResult]:
    """What became of each document and page, by document id: the rows again as records, without regions and attempts.

    Columns that the tables do not have (a reader that leaves out the text) are None, and the text is "".
    """
    of_document: dict[str, list[Page]] = {}
    for row in pages.to_pylist():
        kept = dict.fromkeys(_PAGE_FIELDS) | {"markdown": ""} | row
        kept |= {"status": PageStatus(kept["status"]), "reason": _reason(kept["reason"])}
        of_document.setdefault(kept["document_id"], []).append(Page(**kept))
    found = []
    for row in documents.to_pylist():
        kept = row | {"status": DocumentStatus(row["status"]), "reason": _reason(row["reason"])}
        found.append(DocumentResult(Document(**kept), tuple(of_document.get(row["document_id"], ()))))
    return found


def _reason(code: str | None) -> Reason | None:
    return Reason(code) if code else None


def _array(table: str, column: pa.Field, values: Sequence[Any]) -> pa.Array | pa.ChunkedArray:
    if pa.types.is_timestamp(column.type) and any(value is not None and value.tzinfo is None for value in values):
        raise WarehouseError(f"table {table}: a time in {column.name} has no time zone; times are UTC, with a zone")
    try:
        return pa.array(values, type=column.type)
    except (pa.ArrowException, OverflowError, UnicodeError):
        return pa.array([_storable(table, column, value) for value in values], type=column.type)


def _storable(table: str, column: pa.Field, value: Any) -> Any:
    """The value itself where the column can hold it, else the nearest that it can."""
    try:
        pa.scalar(value, type=column.type)
        return value
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        if isinstance(value, str):
            # by way of UTF-16, where the two halves of a pair find together again
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        if column.nullable and not isinstance(value, datetime):
            return None
        raise WarehouseError(f"table {table}: {column.name} cannot hold {value!r} ({error})") from error
