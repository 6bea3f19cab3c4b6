"""Days with 1,000, 100,000 and 10,000,000 PDFs: `python -m benchmarks.scale_model [--check]` (10 s; check: 2 minutes).

A simulation of each day (`day.py`), once with the pipeline as it is installed and once with what that day needs; R2
requests and money from so many a page, document and batch (`operations.py`); and where the design breaks first, with
what is then changed. Constants are measured, asked for, or assumed (`constants.py`); where this machine has newer
results, those are taken, and the table says which. `--check` runs 20 documents and holds the model against them, and
against what was measured of the daemon (`check.py`).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.measure import report
from benchmarks.scale_model import check
from benchmarks.scale_model.constants import Constants, measured
from benchmarks.scale_model.day import DAY, EVENING, MORNING, Outcome, Setup, of_a_day, simulate
from benchmarks.scale_model.operations import Work, of_class, operations

DAYS = (1_000, 100_000, 10_000_000)
KEYS = 100_000  # partitions that one definition is good for (Dagster; measured)
FULL = 0.9  # share of a resource at the day's peak that is planned for
LISTED_DAYS = 30  # how long uploads have been kept when the listing is counted


@dataclass(frozen=True, slots=True)
class Priced:
    """R2 over one day. `sweep`: requests for lists of an inbox that holds the uploads of `LISTED_DAYS` such days."""

    class_a: float
    class_b: float
    sweep: float
    dollars: float  # operations without `sweep`'s beyond one a tick, and the day's new objects kept for a month


def needed(pdfs: int, c: Constants) -> tuple[Setup, Constants]:
    """The smallest setup that keeps up with the day's busiest hours: GPUs, cores, runs at once, size of a batch."""
    peak = pdfs * c.by_day / (EVENING - MORNING)  # PDFs a second
    if pdfs > 50_000:
        # each tick with something new cuts a batch, full or not: 17,280 partition keys a day at 5 s
        c = replace(c, sensor_seconds=60.0, documents_a_batch=200 if pdfs <= 1_000_000 else 2_000)
    documents = min(float(c.documents_a_batch), max(1.0, peak * c.sensor_seconds))
    batches, pages = peak / documents, documents * c.pages_a_pdf  # batches a second, pages a batch
    loaded = pdfs > 50_000  # a process a run is then a core and more for imports alone
    run_cpu = c.batch_cpu_loaded if loaded else c.batch_cpu_own_process
    pairs = math.ceil(peak * c.pages_a_pdf / c.pages_a_second / FULL)
    cores = max(2, math.ceil((peak * c.pages_a_pdf * c.client_cpu_a_page + batches * run_cpu) / FULL))
    loading = c.load_seconds_a_batch + pages * c.load_seconds_a_page
    drawing = pages * c.client_cpu_a_page / min(cores, Setup().cores_a_run)
    seconds_a_run = c.start_to_end + c.page_seconds + drawing + loading
    # twice the mean: batches come a tick at a time
    places = max(2, math.ceil(2 * batches * seconds_a_run))
    return Setup(pairs, cores, places, loaded, one_writer=batches * loading < FULL / 2), c


def priced(pdfs: int, outcome: Outcome, c: Constants, installed: Constants) -> Priced:
    """With the batches and ticks of `c`; `sweep` with the ticks of the pipeline as it is installed."""
    pages, ticks = pdfs * c.pages_a_pdf, DAY / c.sensor_seconds
    found = operations(Work(pdfs, pages, outcome.batches, pages * c.figures_a_page, lists=ticks))
    class_a, class_b = of_class(found, "A"), of_class(found, "B")
    kilobytes = c.image_kilobytes + c.parquet_kilobytes_a_page + c.figures_a_page * c.figure_kilobytes
    gigabytes = (pdfs * c.pdf_megabytes + pages * kilobytes / 1000) / 1000
    dollars = (
        max(0.0, class_a - c.free_class_a) / 1e6 * c.class_a_million
        + max(0.0, class_b - c.free_class_b) / 1e6 * c.class_b_million
        + gigabytes * c.storage_gb_month
    )
    sweep = DAY / installed.sensor_seconds * math.ceil(LISTED_DAYS * pdfs / 1000)
    return Priced(class_a, class_b, sweep, dollars)


def breaks(pdfs: int, installed: Outcome, price: Priced, c: Constants) -> list[str]:
    """What of the pipeline as it is installed gives way, the soonest first, and what is changed then."""
    peak = c.by_day * DAY / (EVENING - MORNING)  # over the day's mean
    found = []
    for share, said in (
        (installed_share(installed.gpu_seconds, pdfs, installed), "GPUs: add servers to the backends file, no code"),
        (
            installed_share(installed.cpu_seconds, pdfs, installed) / Setup().cores,
            "client cores: runs on more machines (Celery or Kubernetes, deploy/), in processes that stay",
        ),
        (
            installed_share(installed.locked_seconds, pdfs, installed),
            "the one DuckDB file, locked by loads: MotherDuck, or one load for several batches",
        ),
    ):
        if share * peak > FULL:
            found.append((share * peak, f"{share * peak:,.1f} times what is there at the peak: {said}"))
    lines = [line for _, line in sorted(found, reverse=True)]
    if installed.batches and (days := KEYS / max(1, installed.batches)) < 365:
        lines.append(
            f"partition keys, {KEYS:,} after {days:,.0f} days: OCR_SENSOR_SECONDS=60, since each tick cuts what is "
            "there, full or not; a definition a quarter"
        )
    if (dollars := price.sweep / 1e6 * c.class_a_million) > 1:
        lines.append(
            f"OCR_LISTING=sweep lists the whole inbox each tick, {price.sweep / 1e6:,.0f} million requests a day "
            f"({dollars:,.0f} dollars) once {LISTED_DAYS} such days are kept: ordered (keys by date) or queue"
        )
    if price.class_a > 1e7:
        lines.append(
            f"R2 writes, {price.class_a / 1e6:,.0f} million a day: page images not kept, or bundled a document"
        )
    return lines or ["nothing"]


def installed_share(seconds: float, pdfs: int, outcome: Outcome) -> float:
    """Of a whole day; scaled to all PDFs where the simulation ended before they were done."""
    done = sum(count for _, count in outcome.waits)
    return seconds / DAY * pdfs / max(1, done)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="run 20 documents and hold the model against them")
    arguments = parser.parse_args()
    constants, taken = measured(Constants())
    if arguments.check:
        rows = check.rows(constants)
        report("scale_check", "The model against measured runs", ("what", "model", "measured", "ratio"), rows)
        return
    columns = ["a day with"]
    table: list[list[str]] = [[name] for name in ROWS]
    remarks, figures = [f"measured here: {line}" for line in taken], {}
    for pdfs in DAYS:
        arrivals = of_a_day(pdfs, constants)
        installed = simulate(arrivals, constants, Setup())
        setup, changed = needed(pdfs, constants)
        kept_up = simulate(arrivals, changed, setup)
        price = priced(pdfs, kept_up, changed, constants)
        columns.append(f"{pdfs:,} PDFs")
        for row, cell in zip(table, _cells(pdfs, installed, setup, changed, kept_up, price), strict=True):
            row.append(cell)
        gives_way = breaks(pdfs, installed, price, constants)
        remarks += [f"{pdfs:,} PDFs a day, breaks: {line}" for line in gives_way]
        figures[str(pdfs)] = {"breaks": gives_way, "setup": str(setup)}
    report("scale_model", "A day, simulated", columns, table, remarks=remarks, constants=taken, days=figures)


ROWS = (
    "pages = OCR requests",
    "as installed (2 cores, 1 pair of GPUs): to rows, median, p95",
    "as installed: PDFs without rows a day after",
    "needed: pairs of the two GPU machines",
    "needed: client cores; runs at once; in loaded processes",
    "needed: s a tick of the sensor; documents a batch; writers of the warehouse",
    "then: batches = runs",
    "then: to rows, median, p95, p99",
    "then: GPU use over the day, client core use",
    "then: days until 100,000 partition keys",
    "R2 writes and lists (class A), reads (class B), million",
    "R2 dollars a day, the first month's storage in it",
    "then: a one-page PDF alone, to row, median",
)


def _cells(
    pdfs: int, installed: Outcome, setup: Setup, changed: Constants, kept_up: Outcome, price: Priced
) -> Sequence[str]:
    writers = "one (DuckDB)" if setup.one_writer else "several (MotherDuck)"
    alone = simulate([(997.3 * n, 1) for n in range(1, 40)], changed, setup, pages_a_pdf=1)
    return (
        f"{pdfs * changed.pages_a_pdf:,.0f}",
        f"{_time(installed.percentile(0.5))}, {_time(installed.percentile(0.95))}",
        f"{installed.unfinished:,}",
        f"{setup.pairs:,}",
        f"{setup.cores:,}; {setup.places:,}; {'yes' if setup.loaded else 'no'}",
        f"{changed.sensor_seconds:g}; {changed.documents_a_batch:,}; {writers}",
        f"{kept_up.batches:,}",
        ", ".join(_time(kept_up.percentile(share)) for share in (0.5, 0.95, 0.99)),
        f"{kept_up.gpu_seconds / setup.pairs / DAY:.0%}, {kept_up.cpu_seconds / setup.cores / DAY:.0%}",
        f"{KEYS / kept_up.batches:,.0f}",
        f"{price.class_a / 1e6:,.2f}, {price.class_b / 1e6:,.2f}",
        f"{price.dollars:,.2f}",
        _time(alone.percentile(0.5)),
    )


def _time(seconds: float) -> str:
    if math.isinf(seconds):
        return "not within a day"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    main()
