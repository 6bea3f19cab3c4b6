"""The history of attempts: what becomes of the rows of an earlier run of the batch.

Here belongs the rule which of two rows with one key stays, for files; `load.py` says the same in SQL, for tables.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from ocr_pipeline.warehouse.schema import PRIMARY_KEYS, TABLES

_KEY = PRIMARY_KEYS["attempts"]
_VALUES = ("started_at", *(name for name in TABLES["attempts"].names if name not in (*_KEY, "started_at")))

Row = dict[str, Any]


def merged_attempts(
    rows: pa.Table, before: pa.Table, up_to: tuple[str, int] | None = None
) -> tuple[pa.Table, pa.Table]:
    """New rows together with earlier ones, and the earlier ones that are not used yet; all sorted by key.

    Rows come in pieces: of `before` only what is of pages up to `up_to` (document id, page) is taken, None: all. Where
    both have a key, the later `started_at` stays, and of two equal ones the greater row.
    """
    if not before.num_rows:
        return rows, before
    count = before.num_rows
    if up_to is not None:
        places = zip(before["document_id"].to_pylist(), before["page_number"].to_pylist(), strict=True)
        count = sum(place <= up_to for place in places)
    if not count:
        return rows, before
    kept = {_key(row): row for row in before.slice(0, count).to_pylist()}
    for row in rows.to_pylist():
        there = kept.get(_key(row))
        if there is None or _worth(row) > _worth(there):
            kept[_key(row)] = row
    merged = pa.Table.from_pylist([kept[key] for key in sorted(kept)], schema=rows.schema)
    return merged, before.slice(count)


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in _KEY)


def _worth(row: Row) -> tuple[tuple[bool, Any], ...]:
    """In the order of DuckDB's rows: NULL is greater than any value."""
    return tuple((row[name] is None, row[name]) for name in _VALUES)
