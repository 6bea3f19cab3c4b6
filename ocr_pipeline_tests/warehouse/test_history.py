"""Attempts of an earlier run: which of them a batch's file keeps, by the rule of the tables."""

from __future__ import annotations

import contextlib

import duckdb
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.history import merged_attempts
from ocr_pipeline.warehouse.load import load_batch
from ocr_pipeline.warehouse.schema import TABLES
from ocr_pipeline_tests.warehouse.sample_rows import document_id, instant, result, to_tables


def row(document: str, page: int, recipe: str, minute: int, tokens: int | None) -> dict[str, object]:
    return {
        "document_id": document_id(document),
        "page_number": page,
        "recipe_id": recipe,
        "attempt": 1,
        "backend": "b",
        "model": "m",
        "choice": "c",
        "started_at": instant(minute),
        "seconds": 1.0,
        "prompt_tokens": tokens,
        "completion_tokens": None,
        "finish_reason": None,
        "outcome": "ok",
    }


def table(rows: list[dict[str, object]]) -> pa.Table:
    by_key = {(r["document_id"], r["page_number"], r["recipe_id"], r["attempt"]): r for r in rows}
    return pa.Table.from_pylist([by_key[key] for key in sorted(by_key)], schema=TABLES["attempts"])  # type: ignore[type-var]


ROWS = st.lists(
    st.builds(
        row,
        st.sampled_from("ab"),
        st.integers(1, 3),
        st.sampled_from(["r1", "r2"]),
        st.integers(0, 2),
        st.sampled_from([None, 1, 2]),
    ),
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(ROWS, ROWS, st.integers(1, 3))
def test_a_merged_file_holds_what_the_table_holds_after_both_loads_in_pieces_too(
    earlier: list[dict[str, object]], later: list[dict[str, object]], cut: int
) -> None:
    before, now = table(earlier), table(later)
    place = (max(document_id("a"), document_id("b")), cut)
    first = [(r["document_id"], r["page_number"]) <= place for r in now.to_pylist()]
    head, rest = merged_attempts(now.filter(pa.array(first, pa.bool_())), before, place)
    tail, rest = merged_attempts(now.filter(pa.array([not x for x in first], pa.bool_())), rest, None)
    assert rest.num_rows == 0
    merged = pa.concat_tables([head, tail]).to_pylist()
    with contextlib.closing(duckdb.connect()) as database:
        warehouse = Warehouse("md:memory", "token", connect=lambda *_: contextlib.closing(database.cursor()))
        for rows in (before, now):
            documents = to_tables([result(name, batch="b1", asked=0) for name in "ab"])
            load_batch(warehouse, "b1", documents | {"attempts": rows})
        with warehouse.read() as connection:
            held = connection.execute("SELECT * FROM ocr.attempts ORDER BY ALL").to_arrow_table()
    assert held.cast(pa.schema(list(TABLES["attempts"]))).to_pylist() == merged
