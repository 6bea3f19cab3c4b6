"""Days with 1,000 to 10,000,000 PDFs, worked out from measured constants: `python -m benchmarks.scale_model`.

Paper, as a program: counts and money follow from the constants below, each with where it was measured; nothing is run.
What the arithmetic cannot tell, where the design breaks first, is worked out against the limits in `LIMITS`. Where
benchmarks/results/ holds newer figures of this machine (client_cost, batch_cost), those are taken.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

from benchmarks.measure import RESULTS, report

DAY = 86_400


@dataclass(frozen=True, slots=True)
class Constants:
    """Measured on two cores unless it says otherwise."""

    pages_a_pdf: float = 10.0
    pdf_megabytes: float = 2.0
    image_kilobytes: float = 300.0  # A4 at 150 dpi, JPEG 85
    parquet_kilobytes_a_page: float = 1.0
    documents_a_batch: int = 200  # OCR_BATCH_DOCUMENTS
    client_cpu_a_page: float = 0.087  # s; benchmarks.client_cost
    batch_cpu_own_process: float = 5.0  # s, a run of the daemon; benchmarks.batch_cost
    batch_cpu_loaded: float = 1.2  # s, a further run in a loaded process (command, Celery worker)
    daemon_runs_a_minute: float = 20.0  # Dagster's default launcher, 2 cores doing nothing else (reference, dagster.md)
    load_seconds_a_batch: float = 2.0  # 2,000 pages into DuckDB, the lock held; benchmarks/load.py
    sensor_seconds: float = 5.0
    settle_and_start: float = 10.0  # sensor tick, queue, start of a run's process
    # GPU: no trustworthy figure exists for these machines; `ocr-pipeline benchmark` gives the user's. As asked:
    tokens_a_page: float = 800.0
    tokens_a_second: float = 3_500.0  # rtx-4090 1,000 and dgx-spark 2,500 together
    gpus: int = 2
    # R2 (Cloudflare's price list): dollars
    class_a_million: float = 4.50
    class_b_million: float = 0.36
    storage_gb_month: float = 0.015
    free_class_a: float = 1e6 / 30  # a day
    free_class_b: float = 10e6 / 30


LIMITS = {
    "partition keys of one definition": 100_000,
    "Dagster runs a day, default launcher": 28_800,
    "keys of one listing a tick (1,000 a request, 26 ms CPU each)": 500_000,
    "loads a day of one DuckDB file": DAY / 2.0,
}


@dataclass(frozen=True, slots=True)
class Day:
    """What one day of so many PDFs comes to."""

    pdfs: int
    pages: float
    batches: float
    client_cores: float
    runs_share: float  # of what the default launcher can start
    class_a: float
    class_b: float
    dollars: float  # a day: operations, and one day's new objects kept for a month
    pairs: float  # of the two GPU machines
    load_share: float  # of the day that one warehouse file is locked by loads
    days_of_keys: float  # until one definition holds 100,000 batches
    seconds_to_row: float  # a one-page PDF, put when everything keeps up


def day(pdfs: int, c: Constants, *, loaded_workers: bool = False, bundles: bool = False) -> Day:
    """`loaded_workers`: runs in processes that stay (Celery). `bundles`: page images of a document in one object."""
    pages = pdfs * c.pages_a_pdf
    # PDFs come all day: a tick cuts what is there, so small days have more, smaller batches
    per_tick = pdfs / (DAY / c.sensor_seconds)
    batches = min(float(pdfs), max(pdfs / c.documents_a_batch, pdfs / max(1.0, min(per_tick, c.documents_a_batch))))
    if batches * 60 / DAY > c.daemon_runs_a_minute * 0.5:
        # runs queue: batches are held until they are full (`hold_partial`)
        batches = pdfs / c.documents_a_batch
    run_cpu = c.batch_cpu_loaded if loaded_workers else c.batch_cpu_own_process
    cpu = pages * c.client_cpu_a_page + batches * run_cpu
    images = pdfs if bundles else pages
    # a page: its image, its transcript; a document: PDF, rendered.json, reading.json, markdown; a batch: its list,
    # 4 tables, its manifest; and the listing of each tick
    class_a = images + pages + 4 * pdfs + 6 * batches + DAY / c.sensor_seconds * max(1.0, per_tick / 1000)
    # a page: is there a transcript? A document: stat twice, download, rendered.json twice, reading.json; a batch: its
    # tables
    class_b = pages + 6 * pdfs + 8 * batches
    gigabytes = (pdfs * c.pdf_megabytes + pages * (c.image_kilobytes + c.parquet_kilobytes_a_page) / 1000) / 1000
    dollars = (
        max(0.0, class_a - c.free_class_a) / 1e6 * c.class_a_million
        + max(0.0, class_b - c.free_class_b) / 1e6 * c.class_b_million
        + gigabytes * c.storage_gb_month
    )
    gpu_seconds = pages * c.tokens_a_page / c.tokens_a_second
    return Day(
        pdfs=pdfs,
        pages=pages,
        batches=batches,
        client_cores=cpu / DAY,
        runs_share=batches / LIMITS["Dagster runs a day, default launcher"],
        class_a=class_a,
        class_b=class_b,
        dollars=dollars,
        pairs=gpu_seconds / DAY,
        load_share=batches * c.load_seconds_a_batch / DAY,
        days_of_keys=LIMITS["partition keys of one definition"] / batches,
        seconds_to_row=c.sensor_seconds / 2 + c.settle_and_start + c.load_seconds_a_batch,
    )


def breaks(d: Day, c: Constants) -> list[str]:
    """What gives way, the soonest first, and what is changed then."""
    found = []
    if d.pairs > 1:
        found.append(
            f"GPUs: {d.pairs:.1f} pairs are needed for the day's pages; add servers to the backends file, no code"
        )
    if d.client_cores > 2:
        found.append(
            f"drawing: {d.client_cores:.0f} cores; run workers on more machines (Celery or Kubernetes, deploy/)"
        )
    if d.runs_share > 0.5:
        found.append("the default launcher starts 20 runs a minute: Celery workers (a run 1.1 s), or fuller batches")
    if d.load_share > 0.5:
        share = f"{d.load_share:.0%}"
        found.append(f"one DuckDB file is locked {share} of the day: MotherDuck, or one load for several batches")
    if d.days_of_keys < 365:
        found.append(
            f"partition keys: 100,000 after {d.days_of_keys:.0f} days; batches of 2,000 documents, a definition a year"
        )
    if d.class_a > 1e7:
        found.append(f"R2 writes: {d.class_a / 1e6:.0f} million a day; page images bundled a document, or not kept")
    if d.pdfs / (DAY / c.sensor_seconds) > 1000:
        found.append(
            "new keys a tick need more than one listing request: OCR_LISTING=queue, or date prefixes (ordered)"
        )
    return found or ["nothing"]


def measured(c: Constants) -> tuple[Constants, list[str]]:
    """The constants with this machine's newest figures."""
    taken = []
    for name, field, read in (
        ("client_cost", "client_cpu_a_page", lambda r: r["cpu_seconds_a_page"]),
        ("batch_cost", "batch_cpu_own_process", lambda r: r["one"]["cpu"]),
        ("batch_cost", "batch_cpu_loaded", lambda r: (r["many"]["cpu"] - r["one"]["cpu"]) / (r["batches"] - 1)),
    ):
        path = RESULTS / f"{name}.json"
        if path.exists():
            value = float(read(json.loads(path.read_text())))
            c = replace(c, **{field: value})
            taken.append(f"{field} = {value:.3g} ({path.name})")
    return c, taken


def main() -> None:
    constants, taken = measured(Constants())
    days = [day(pdfs, constants) for pdfs in (1_000, 100_000, 10_000_000)]
    rows = [
        ("pages", *(f"{d.pages:,.0f}" for d in days)),
        ("batches = runs", *(f"{d.batches:,.0f}" for d in days)),
        ("OCR requests", *(f"{d.pages:,.0f}" for d in days)),
        ("client cores, all day", *(f"{d.client_cores:.2f}" for d in days)),
        ("pairs of the two GPU machines", *(f"{d.pairs:.2f}" for d in days)),
        ("R2 writes and lists (class A)", *(f"{d.class_a:,.0f}" for d in days)),
        ("R2 reads (class B)", *(f"{d.class_b:,.0f}" for d in days)),
        ("R2 dollars a day (first month's storage)", *(f"{d.dollars:,.2f}" for d in days)),
        ("share of the day a DuckDB file is locked", *(f"{d.load_share:.1%}" for d in days)),
        ("days until 100,000 partition keys", *(f"{d.days_of_keys:,.0f}" for d in days)),
        ("one-page PDF to row, s, when all keeps up", *(f"{d.seconds_to_row:.0f}" for d in days)),
    ]
    columns = ("a day with", *(f"{d.pdfs:,} PDFs" for d in days))
    figures = {str(d.pdfs): {"breaks": breaks(d, constants)} for d in days}
    report("scale_model", "Scale model", columns, rows, constants=taken, **figures)
    for line in taken:
        print(f"measured here: {line}")
    for d in days:
        print(f"\n{d.pdfs:,} PDFs a day: what breaks, and what is changed")
        for line in breaks(d, constants):
            print(f"  - {line}")
    changed = day(10_000_000, replace(constants, documents_a_batch=2_000), loaded_workers=True, bundles=True)
    machines = math.ceil(changed.client_cores / 16)
    print(
        "\n10,000,000 PDFs a day with batches of 2,000, loaded workers and bundled images: "
        f"{changed.batches:,.0f} runs, {changed.client_cores:.0f} cores ({machines} machines of 16), "
        f"{changed.class_a / 1e6:.0f} million writes, {changed.dollars:,.0f} dollars a day on R2, "
        f"{changed.pairs:.0f} pairs of GPU machines: the GPUs are what counts"
    )


if __name__ == "__main__":
    main()
