"""What the scale model is made of: measured here (newest results of this machine), asked for, or a price list's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.measure import RESULTS


@dataclass(frozen=True, slots=True)
class Constants:
    """Defaults are of two cores shared with others; `measured` puts this machine's own in their place."""

    # what comes in: assumed, ten pages and 2 MB a PDF; two thirds of a day's PDFs come from 8 to 17 o'clock
    pages_a_pdf: float = 10.0
    pdf_megabytes: float = 2.0
    figures_a_page: float = 0.2  # cut out of the page image, an object each; assumed
    by_day: float = 2 / 3
    # sizes
    image_kilobytes: float = 300.0  # A4 at 150 dpi, JPEG 85
    figure_kilobytes: float = 40.0
    parquet_kilobytes_a_page: float = 1.0
    # settings and dagster.yaml as they stand
    documents_a_batch: int = 200  # OCR_BATCH_DOCUMENTS
    batches_a_tick: int = 20  # OCR_BATCHES_PER_TICK
    sensor_seconds: float = 5.0
    settle_seconds: float = 2.0
    queue_seconds: float = 1.0  # Dagster's run queue looks that often
    # the client
    client_cpu_a_page: float = 0.08  # s
    batch_cpu_own_process: float = 5.0  # s, a run of the daemon
    batch_cpu_loaded: float = 1.2  # s, a further run in a loaded process (command, Celery worker)
    launch_to_start: float = 3.0  # s, a process imports Dagster and the pipeline
    start_to_end: float = 2.5  # s, a run with next to no work
    load_seconds_a_page: float = 0.001  # s that the lock of the DuckDB file is held; benchmarks/load.py
    load_seconds_a_batch: float = 0.2
    # GPU: no trustworthy figure exists for these machines; `ocr-pipeline benchmark` gives the user's. As asked:
    tokens_a_page: float = 800.0
    tokens_a_second: float = 3_500.0  # rtx-4090 1,000 and dgx-spark 2,500 together
    page_seconds: float = 5.0  # one page from request to answer
    # R2 (Cloudflare's price list): dollars
    class_a_million: float = 4.50
    class_b_million: float = 0.36
    storage_gb_month: float = 0.015
    free_class_a: float = 1e6 / 30  # a day
    free_class_b: float = 10e6 / 30

    @property
    def pages_a_second(self) -> float:
        """Of the two GPU machines together."""
        return self.tokens_a_second / self.tokens_a_page


_READ: tuple[tuple[str, str, Callable[[dict[str, Any]], float]], ...] = (
    ("client_cost", "client_cpu_a_page", lambda r: r["cpu_seconds_a_page"]),
    ("batch_cost", "batch_cpu_own_process", lambda r: r["one"]["cpu"]),
    ("batch_cost", "batch_cpu_loaded", lambda r: (r["many"]["cpu"] - r["one"]["cpu"]) / (r["batches"] - 1)),
    ("backfill", "launch_to_start", lambda r: r["ui"]["launch_to_start"]),
    ("backfill", "start_to_end", lambda r: r["ui"]["start_to_end"]),
)


def measured(constants: Constants) -> tuple[Constants, list[str]]:
    """The constants with this machine's newest figures, and which those are."""
    taken = []
    for name, field, read in _READ:
        if (found := result(name)) is not None:
            try:
                value = float(read(found))
            except KeyError:  # only a part of it was run
                continue
            constants = replace(constants, **{field: value})  # type: ignore[arg-type]
            taken.append(f"{field} = {value:.3g} (from results/{name}.json)")
    return constants, taken


def result(name: str) -> dict[str, Any] | None:
    """What a benchmark of this machine wrote last, or None."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None
