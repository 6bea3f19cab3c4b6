"""The attempts of a batch's Parquet file: the new ones merged with those that the file had before.

Here belongs which rows the file gets and how they are numbered; `load.py` has the same rule in SQL, for the tables.
"""

from __future__ import annotations

from collections import Counter
from itertools import groupby

import pyarrow as pa

from ocr_pipeline.warehouse.schema import TABLES

_PAGE = ("document_id", "page_number", "recipe_id")
_SENT = (*_PAGE, "started_at", *(n for n in TABLES["attempts"].names if n not in (*_PAGE, "started_at", "attempt")))
"""What tells one request from another, in the order by which they are numbered."""

_Request = tuple[tuple[bool, object], ...]


def merged_attempts(
    rows: pa.Table, before: pa.Table, up_to: tuple[str, int] | None = None
) -> tuple[pa.Table, pa.Table]:
    """New rows merged with earlier ones, and the earlier ones that are left; all sorted by key.

    Rows come in pieces: of `before` only those of pages up to `up_to` (document id, page) are used, or all if that is
    None. A request that both have becomes one row. The requests of a page are numbered by the time they were sent.
    """
    if not before.num_rows:
        return rows, before
    count = before.num_rows
    if up_to is not None:
        places = zip(before["document_id"].to_pylist(), before["page_number"].to_pylist(), strict=True)
        count = sum(place <= up_to for place in places)
    if not count:
        return rows, before
    # of equal rows as many as the one side or the other has
    requests = sorted((_requests(before.slice(0, count)) | _requests(rows)).elements())
    merged = [
        {**{name: value for name, (_, value) in zip(_SENT, request, strict=True)}, "attempt": number}
        for _, of_page in groupby(requests, key=lambda request: request[: len(_PAGE)])
        for number, request in enumerate(of_page, 1)
    ]
    return pa.Table.from_pylist(merged, schema=rows.schema), before.slice(count)


def _requests(rows: pa.Table) -> Counter[_Request]:
    """In the order of DuckDB's rows: NULL is greater than any value."""
    return Counter(tuple((row[name] is None, row[name]) for name in _SENT) for row in rows.to_pylist())
