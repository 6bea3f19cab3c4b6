"""Lists by the pageful, from any place on, both ways.

Here belongs the one way in which a list is read in pieces. It is asked by the place after which to go on (keyset) and
not by an offset: a list of 100,000 rows costs the same on its last page, and does not jump when rows come in. What is
listed, and by what filters, is in `document_list.py` and `page_list.py`.
"""

# ruff: noqa: S608  the names of tables and columns put into SQL here are ours; values are parameters

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import duckdb

from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.sql import count

Place = tuple[Any, ...]
"""Of a row in a list: what it is sorted by, then its key."""


@dataclass(frozen=True, slots=True)
class Sort:
    """Something that a list can be sorted by."""

    expression: str
    kind: str  # its type in SQL
    none: tuple[str, str] | None = None
    """What stands for "not known", (ascending, descending), so that it comes last whichever way."""

    def by(self, descending: bool) -> str:
        return f"coalesce({self.expression}, {self.none[descending]})" if self.none else self.expression


@dataclass(frozen=True, slots=True)
class ListQuery:
    """A list of rows. `key` is what tells equals apart, with their types in SQL: among equals it rises always."""

    columns: str
    tables: Callable[[Sequence[str]], str]
    """What stands after FROM where these expressions are used."""
    key: Mapping[str, str]
    sorts: Mapping[str, Sort]


@dataclass(frozen=True, slots=True)
class Pageful:
    """One pageful of a list."""

    rows: list[tuple[Any, ...]]  # the columns that were asked for
    total: int  # rows that the filter lets through, on all pages
    next: Place | None  # hand it back as `after`; None on the last page
    previous: Place | None  # hand it back as `after`, with `backwards`; None on the first page


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Which pageful of a list: how it is sorted, where to go on, and how many rows.

    `after`: the `next` of the page before, or, with `backwards`, the `previous` of the page behind; a place that is
    none of this list gives no rows.
    """

    sort: str
    descending: bool
    after: Sequence[Any] | None = None
    backwards: bool = False
    limit: int = 50


def pageful(
    connection: duckdb.DuckDBPyConnection,
    query: ListQuery,
    conditions: Sequence[str],
    values: Mapping[str, Any],
    turn: Turn,
) -> Pageful:
    """The rows of the list for which all `conditions` hold. Raises WarehouseError for a sort that the list has not."""
    if turn.sort not in query.sorts:
        raise WarehouseError(f"cannot sort by {turn.sort!r}: one of {', '.join(query.sorts)}")
    sort = query.sorts[turn.sort]
    expression = sort.by(turn.descending)
    order, beyond = ("DESC", "<") if turn.descending != turn.backwards else ("ASC", ">")
    key_order, key_beyond = ("DESC", "<") if turn.backwards else ("ASC", ">")
    here, place = list(conditions), dict[str, Any]()
    if turn.after is not None:
        value = f"TRY_CAST($place_0 AS {sort.kind})"
        key = ", ".join(f"TRY_CAST($place_{n} AS {kind})" for n, kind in enumerate(query.key.values(), 1))
        here.append(
            f"({expression} {beyond} {value}"
            f" OR ({expression} = {value} AND ({', '.join(query.key)}) {key_beyond} ({key})))"
        )
        place = {f"place_{number}": str(part) for number, part in enumerate(turn.after)}
    total = count(
        connection, f"SELECT count(*) FROM {query.tables(conditions)} WHERE {' AND '.join(conditions)}", dict(values)
    )
    rows = connection.execute(
        f"""
        SELECT {expression}, {", ".join(query.key)}, {query.columns}
        FROM {query.tables([*here, expression])} WHERE {" AND ".join(here)}
        ORDER BY {expression} {order}, {", ".join(f"{column} {key_order}" for column in query.key)} LIMIT $limit
        """,
        {**values, **place, "limit": turn.limit + 1},
    ).fetchall()
    more, shown = len(rows) > turn.limit, rows[: turn.limit]
    if turn.backwards:
        shown.reverse()
    length = 1 + len(query.key)
    is_first = not more if turn.backwards else turn.after is None
    is_last = turn.after is None if turn.backwards else not more
    return Pageful(
        [row[length:] for row in shown],
        total,
        shown[-1][:length] if shown and not is_last else None,
        shown[0][:length] if shown and not is_first else None,
    )


def in_days(column: str, since: date | None, until: date | None) -> tuple[list[str], dict[str, str]]:
    """Conditions and their values: the time is on one of these UTC days, both included."""
    conditions, values = [], {}
    if since:
        conditions.append(f"{column} >= CAST($since AS TIMESTAMPTZ)")
        values["since"] = f"{since.isoformat()} 00:00:00+00"
    if until and until < date.max:
        conditions.append(f"{column} < CAST($until AS TIMESTAMPTZ)")
        values["until"] = f"{(until + timedelta(days=1)).isoformat()} 00:00:00+00"
    return conditions, values


NAMED = "(contains(lower(d.source_uri), lower($name)) OR contains(lower(d.title), lower($name)))"
"""A condition: `$name` is a part of the document's key or title, in any case."""
