"""`ocr-pipeline benchmark PDF…`: how fast the user's own servers read the user's own pages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from ocr_pipeline import wiring
from ocr_pipeline.benchmark import chart, pages
from ocr_pipeline.benchmark.measuring import measure
from ocr_pipeline.benchmark.steps import Step, cost_per_thousand, recommended
from ocr_pipeline.commands.summary import terminal
from ocr_pipeline.intake import inbox
from ocr_pipeline.ocr.vllm.backends import Backend, ConfigError, geometry
from ocr_pipeline.pdf.renderer import Renderer
from ocr_pipeline.settings import Settings


@click.command("benchmark")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--backend", "only", multiple=True, help="Only this backend (its name in the backends file).")
@click.option("--pages", "count", default=32, show_default=True, help="Requests of a step, at least.")
@click.option("--most", type=int, help="Highest number in flight to try. Default: twice the backend's max_in_flight.")
@click.option("--price", multiple=True, metavar="NAME=PRICE", help="What a backend costs an hour, in any currency.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("ocr-benchmark"), show_default=True,
              help="Folder for benchmark.json and benchmark.svg.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else there.")
def command(
    paths: tuple[Path, ...],
    only: tuple[str, ...],
    count: int,
    most: int | None,
    price: tuple[str, ...],
    out: Path,
    as_json: bool,
) -> int:
    """Ask each backend for the pages of some PDFs, with more and more of them in flight.

    For each backend: pages and tokens a second, median and 95th percentile of a page's seconds, failures, the cost of
    1,000 pages, and the max_in_flight to write into the backends file. One backend after the other. Nothing is kept
    but the figures. Exit code 0: every backend has a recommendation; 1: one has none; 2: usage or configuration.
    """
    settings = Settings()
    config = wiring.backends(settings)
    if config is None:
        raise ConfigError("no GPU servers to measure: OCR_BACKENDS names no backends file")
    chosen = _chosen(config.backends, only)
    prices = _prices(price, [backend.name for backend in config.backends])
    if count < 1 or (most is not None and most < 1):
        raise click.UsageError("--pages and --most must be at least 1")
    try:
        sources, _ = inbox.sources(paths, settings.inbox)
    except inbox.SourceError as error:
        raise click.UsageError(str(error)) from error
    console = terminal(stderr=True)
    with Renderer(wiring.stream_options(settings).limits) as renderer:
        images, problems = pages.draw(renderer, [source.path for source in sources], geometry(config), count)
    for problem in problems:
        console.print(f"left out: {problem}", markup=False)
    if not images:
        raise click.UsageError("none of these PDFs has a page with something on it")
    measured: dict[str, Sequence[Step]] = {}
    endless = pages.endless(images)
    for backend in chosen:
        ceiling = most or 2 * backend.max_in_flight

        def told(step: Step, name: str = backend.name) -> None:
            failed = f", failed {dict(step.failures)}" if step.failures else ""
            console.print(f"{name}: {step.in_flight} in flight: {step.pages_per_second:.2f} pages/s{failed}")

        measured[backend.name] = asyncio.run(measure(backend, endless, most=ceiling, pages=count, told=told))
    result = _result(chosen, measured, prices, len(images))
    out.mkdir(parents=True, exist_ok=True)
    (out / "benchmark.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / "benchmark.svg").write_text(chart.svg(measured))
    if as_json:
        click.echo(json.dumps(result))
    else:
        _show(chosen, measured, prices, out)
    return 0 if all(recommended(steps) for steps in measured.values()) else 1


def _chosen(backends: Sequence[Backend], only: Sequence[str]) -> list[Backend]:
    names = [backend.name for backend in backends]
    if unknown := sorted(set(only) - set(names)):
        raise click.UsageError(f"no backend {unknown[0]!r} in the backends file; there are {', '.join(names)}")
    return [backend for backend in backends if not only or backend.name in only]


def _prices(given: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in given:
        name, _, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if name not in names or not 0 <= value < 1e9:
            raise click.UsageError(f"--price {text}: write NAME=PRICE with one of {', '.join(names)}, as rtx4090=0.35")
        found[name] = value
    return found


def _result(
    chosen: Sequence[Backend], measured: Mapping[str, Sequence[Step]], prices: Mapping[str, float], images: int
) -> dict[str, Any]:
    backends = []
    for backend in chosen:
        steps = measured[backend.name]
        best = recommended(steps)
        backends.append(
            {
                "backend": backend.name,
                "gpu": backend.gpu.name,
                "max_in_flight_now": backend.max_in_flight,
                "recommended_max_in_flight": best.in_flight if best else None,
                "cost_per_1000_pages": cost_per_thousand(prices.get(backend.name), best.pages_per_second)
                if best
                else None,
                "steps": [{**asdict(step), "failed_share": step.failed_share} for step in steps],
            }
        )
    return {"images": images, "model": chosen[0].model.model, "backends": backends}


def _show(
    chosen: Sequence[Backend], measured: Mapping[str, Sequence[Step]], prices: Mapping[str, float], out: Path
) -> None:
    table = Table()
    columns = ("backend", "in flight", "pages/s", "tokens/s", "median s", "p95 s", "failed", "cost of 1,000 pages", "")
    for column in columns:
        table.add_column(column)
    console = terminal()
    for backend in chosen:
        best = recommended(measured[backend.name])
        for step in measured[backend.name]:
            cost = cost_per_thousand(prices.get(backend.name), step.pages_per_second)
            table.add_row(
                backend.name,
                str(step.in_flight),
                f"{step.pages_per_second:.2f}",
                f"{step.tokens_per_second:.0f}",
                "" if step.median is None else f"{step.median:.2f}",
                "" if step.p95 is None else f"{step.p95:.2f}",
                f"{step.failed_share:.0%}" if step.failures else "",
                "" if cost is None else f"{cost:.2f}",
                "recommended" if step is best else "",
            )
    console.print(table)
    for backend in chosen:
        best = recommended(measured[backend.name])
        if best is None:
            said = "no step without failures: look at `ocr-pipeline doctor`"
        elif best.in_flight == backend.max_in_flight:
            said = f"max_in_flight = {best.in_flight}, as it is"
        else:
            said = f"max_in_flight = {best.in_flight} (it is {backend.max_in_flight})"
        console.print(f"{backend.name}: {said}", markup=False)
    console.print(f"figures and plot: {out}/benchmark.json, {out}/benchmark.svg", markup=False)
