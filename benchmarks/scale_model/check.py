"""The model against measured small runs: `python -m benchmarks.scale_model --check`.

A run of 20 documents through the command against a store that counts its requests: every kind of request, the runs, the
OCR requests; the same 20 on a local lake for CPU and wall seconds (the counting store is a Python program that takes
cores of its own). Then two figures of the daemon: the simulation's time from PUT to row and its runs a minute of a
backfill, beside what `benchmarks.latency` and `benchmarks.backfill` measured.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

from benchmarks import papers, pipeline
from benchmarks.measure import Spent
from benchmarks.scale_model.constants import Constants, result
from benchmarks.scale_model.counting import BUCKET, Store, counting_store
from benchmarks.scale_model.day import Setup, simulate
from benchmarks.scale_model.operations import Work, of_class, operations
from ocr_pipeline.runs import instance
from ocr_pipeline.settings import Settings

SIZES = (1, 1, 2, 2, 3, 3, 4, 5, 6, 8)  # pages; each twice, born-digital and scanned
DOCUMENTS_A_BATCH = 5
SECONDS_A_PAGE = 0.8
SLOTS = sum(pipeline.SLOTS.values())

Row = tuple[str, float, float, float | str]  # what, model, measured, measured over model


def rows(constants: Constants) -> list[Row]:
    documents = papers.mix(SIZES)
    pages = sum(map(papers.page_count, documents))
    batches = len(documents) // DOCUMENTS_A_BATCH
    with counting_store() as store:
        _, runs, requests = _ingested(documents, store)
    model = operations(Work(len(documents), pages, batches, commands=1))
    found: list[Row] = [
        _row("R2 requests of class A (writes, lists)", of_class(model, "A"), store.of_class("A")),
        _row("R2 requests of class B (reads)", of_class(model, "B"), store.of_class("B")),
    ]
    found += [
        _row(f"  of these: {group} {kind}", model[group, kind], store.counts[group, kind])
        for group, kind in sorted(set(model) | set(store.counts))
        if group != "free" and model[group, kind] != store.counts[group, kind]
    ]
    found += [_row("Dagster runs", batches, runs), _row("OCR requests", pages, requests)]
    spent, _, _ = _ingested(documents, None)
    cpu = constants.batch_cpu_own_process + (batches - 1) * constants.batch_cpu_loaded
    found.append(_row("CPU s of the command", cpu + pages * constants.client_cpu_a_page, spent.cpu))
    found.append(_row("wall s of the command", command_seconds(constants, documents, pages), spent.wall))
    return found + of_the_daemon(constants)


def command_seconds(constants: Constants, documents: list[Path], pages: int) -> float:
    """The simulation of the command: one process that imports once, three batches at once, no ticks."""
    c = replace(
        constants,
        sensor_seconds=0.01,
        queue_seconds=0.01,
        settle_seconds=0.0,
        documents_a_batch=DOCUMENTS_A_BATCH,
        tokens_a_page=1.0,
        tokens_a_second=SLOTS / SECONDS_A_PAGE,
        page_seconds=SECONDS_A_PAGE,
    )
    outcome = simulate([(0.0, len(documents))], c, Setup(places=3, loaded=True), pages_a_pdf=pages / len(documents))
    return constants.launch_to_start + outcome.ended


def of_the_daemon(constants: Constants) -> list[Row]:
    """Rows for what was measured with `dagster dev` on this machine; none where it was not."""
    tiny = replace(constants, documents_a_batch=1, page_seconds=0.0)
    found: list[Row] = []
    if (latency := result("latency")) is not None:
        alone = [(600.0 * n + 0.37 * n % 5, 1) for n in range(1, 60)]  # anywhere in the sensor's interval
        outcome = simulate(alone, tiny, Setup(), pages_a_pdf=1)
        found.append(_row("PUT to row, median s", outcome.percentile(0.5), statistics.median(latency["seconds"])))
    if (backfill := result("backfill")) is not None and "ui" in backfill:
        count = backfill["ui"]["batches"]
        outcome = simulate([(0.0, count)], replace(tiny, batches_a_tick=count), Setup(), pages_a_pdf=1)
        found.append(_row("runs a minute of the daemon", 60 * count / outcome.ended, backfill["ui"]["runs_a_minute"]))
    return found


def _ingested(documents: list[Path], store: Store | None) -> tuple[Spent, int, int]:
    """Cost, runs, and OCR requests of the command over these documents."""
    environment = {"OCR_BATCH_DOCUMENTS": str(DOCUMENTS_A_BATCH)}
    if store is not None:
        environment |= {
            "OCR_LAKE": f"s3://{BUCKET}",
            "R2_ENDPOINT_URL": store.options.endpoint_url or "",
            "R2_ACCESS_KEY_ID": store.options.access_key_id or "",
            "R2_SECRET_ACCESS_KEY": store.options.secret_access_key or "",
        }
    with pipeline.scratch() as folder, pipeline.fleet(SECONDS_A_PAGE) as servers:
        spent = pipeline.ingest(folder, documents, pipeline.backends_toml(servers), **environment)
        with instance.instance(Settings().model_copy(update={"data": folder / "data"})) as dagster:
            runs = dagster.get_runs_count()
        return spent, runs, sum(tally.requests for tally in servers.stats().values())


def _row(what: str, model: float, measured: float) -> Row:
    return (what, float(model), float(measured), measured / model if model else "")
