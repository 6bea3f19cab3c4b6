"""`ocr-pipeline` as a process, and the end state it leaves, for tests of the whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ocr_pipeline.warehouse.connection import Warehouse

TIMES = {
    "documents": ("uploaded_at", "processed_at", "batch", "etag", "source_uri", "markdown_uri"),
    "pages": ("processed_at", "batch", "image_uri", "seconds", "backend", "attempts"),
    "regions": (),
}
"""Columns that may differ between two runs of the same work in two folders: times, places, and who answered."""


def start(data: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ocr_pipeline", *arguments],
        env={**os.environ, "OCR_DATA": str(data), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=data.parent,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = 240) -> tuple[int, dict[str, Any], str]:
    """Exit code, the JSON on stdout, and what stands on stderr."""
    out, err = process.communicate(timeout=timeout)
    try:
        said = json.loads(out)
    except ValueError:
        raise AssertionError(f"no JSON on stdout: {out!r}\n{err}") from None
    return process.returncode, said, err


def ingest(data: Path, *paths: Path, **environment: str) -> tuple[int, dict[str, Any], str]:
    return finish(start(data, "ingest", *map(str, paths), "--json", **environment))


def end_state(data: Path) -> Mapping[str, list[tuple[Any, ...]]]:
    """Every row of documents, pages and regions, but for the columns in `TIMES`."""
    with Warehouse(str(data / "warehouse.duckdb")).read() as connection:
        return {
            table: connection.execute(
                f"SELECT * EXCLUDE ({', '.join(left_out)}) FROM ocr.{table} ORDER BY ALL"
                if left_out
                else f"SELECT * FROM ocr.{table} ORDER BY ALL"
            ).fetchall()
            for table, left_out in TIMES.items()
        }
