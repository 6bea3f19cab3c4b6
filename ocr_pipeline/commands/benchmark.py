"""`ocr-pipeline benchmark PDF…`: how fast the user's own servers read the user's own pages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from ocr_pipeline import wiring
from ocr_pipeline.benchmark import pages
from ocr_pipeline.benchmark.measuring import measure
from ocr_pipeline.benchmark.result import Measured, Result, prepared
from ocr_pipeline.benchmark.steps import LADDER, Step, cost_per_thousand
from ocr_pipeline.commands.terminal import terminal
from ocr_pipeline.intake import sources
from ocr_pipeline.ocr.vllm.backends import Backend, geometry
from ocr_pipeline.ocr.vllm.backends_file import ConfigError
from ocr_pipeline.pdf.renderer import Renderer
from ocr_pipeline.settings import Settings
from ocr_pipeline.warehouse.views import HOURS_A_MONTH


@click.command("benchmark")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--backend", "only", multiple=True, help="Only this backend (its name in the backends file).")
@click.option("--pages", "count", default=32, show_default=True, help="Requests of a step, at least.")
@click.option("--most", type=int, help="Highest number in flight to try. Default: as long as it gains.")
@click.option("--price", multiple=True, metavar="NAME=PRICE", help="What a backend costs an hour, in any currency. "
              "Default: the price in the backends file.")  # fmt: skip
@click.option("--timeout", default=180.0, show_default=True, help="Seconds after which a page counts as failed.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("ocr-benchmark"), show_default=True,
              help="Folder for benchmark.json and benchmark.svg.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else there.")
def command(
    paths: tuple[Path, ...],
    only: tuple[str, ...],
    count: int,
    most: int | None,
    price: tuple[str, ...],
    timeout: float,
    out: Path,
    as_json: bool,
) -> int:
    """Ask each backend for the pages of some PDFs, with more and more of them in flight.

    For each backend: pages and tokens a second, median and 95th percentile of a page's seconds, failures, the cost of
    1,000 pages, and the max_in_flight to write into the backends file. One backend after the other; figures are
    written after each step, so that Ctrl-C keeps what was measured. Exit code 0: every backend has a recommendation;
    1: one has none; 2: usage or configuration.
    """
    settings = Settings()
    config = wiring.backends(settings)
    if config is None:
        raise ConfigError("no GPU servers to measure: OCR_BACKENDS names no backends file")
    chosen = _chosen(config.backends, only)
    prices = _prices(settings, price, [backend.name for backend in config.backends])
    if count < 1 or (most is not None and most < 1) or timeout <= 0:
        raise click.UsageError("--pages and --most must be at least 1, --timeout above 0")
    documents = _documents(paths, settings)
    try:
        prepared(out)
    except OSError as error:
        raise click.UsageError(
            f"--out {out}: nothing can be written there ({error.strerror}): name a folder"
        ) from error
    console = terminal(stderr=True)
    with Renderer(wiring.stream_options(settings).limits) as renderer:
        images, problems = pages.draw(renderer, documents, geometry(config), count)
    for problem in problems:
        console.print(f"left out: {problem}")
    if not images:
        raise click.UsageError("none of these PDFs has a page with something on it")
    ceiling = most or LADDER[-1]
    measured = {backend.name: Measured(backend, ceiling, prices.get(backend.name)) for backend in chosen}
    result = Result(len(images), problems, measured)
    try:
        _measure_all(result, images, out, console, pages_a_step=count, timeout=timeout)
    except KeyboardInterrupt:
        if any(found.steps for found in measured.values()):
            _show(measured, out, terminal(stderr=as_json))
        raise
    if as_json:
        click.echo(json.dumps(result.as_json(complete=True)))
    else:
        _show(measured, out, terminal())
    return 0 if all(found.best for found in measured.values()) else 1


def _measure_all(
    result: Result, images: Sequence[bytes], out: Path, console: Console, *, pages_a_step: int, timeout: float
) -> None:
    """One backend after the other; the figures are written to `out` after each step."""
    endless = pages.endless(images)
    said = TextColumn("{task.description}", markup=False)  # it begins with a backend's name
    columns = (said, BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        for found in result.measured.values():
            watch = _Watch(found, result, out, console, bar)
            found.given_up = asyncio.run(
                measure(found.backend, endless, most=found.most, pages=pages_a_step, seconds=timeout, watch=watch)
            )
            if found.given_up:
                console.print(f"{found.backend.name}: given up: {found.given_up}")
            result.keep(out, complete=False)
    result.keep(out, complete=True)


def _documents(paths: Sequence[Path], settings: Settings) -> list[Path]:
    """The PDFs, each once. Each path for itself: two of one name are two documents here, there is no key to share."""
    found: dict[Path, Path] = {}
    for path in paths:
        try:
            here = sources.find([path], wiring.places(settings))
        except sources.SourceError as error:
            raise click.UsageError(str(error)) from error
        for source in here.sources:
            found.setdefault(source.path.resolve(), source.path)
    return list(found.values())


def _chosen(backends: Sequence[Backend], only: Sequence[str]) -> list[Backend]:
    names = [backend.name for backend in backends]
    if unknown := sorted(set(only) - set(names)):
        raise click.UsageError(f"no backend {unknown[0]!r} in the backends file; there are {', '.join(names)}")
    return [backend for backend in backends if not only or backend.name in only]


def _prices(settings: Settings, given: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    """Each backend's price an hour: as given here, else what the backends file makes of a month."""
    a_month = wiring.backend_costs(settings)
    found = {name: cost.usd_per_month / HOURS_A_MONTH for name, cost in a_month.items() if cost is not None}
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


class _Watch:
    """Tells on stderr what is asked and what came of it, and keeps the figures after each step."""

    def __init__(self, found: Measured, result: Result, out: Path, console: Console, bar: Progress) -> None:
        self._found, self._result, self._out = found, result, out
        self._console, self._bar = console, bar
        self._task: TaskID | None = None

    def begins(self, in_flight: int, requests: int) -> None:
        said = f"{self._found.backend.name}: {in_flight} in flight, {requests} requests"
        if self._bar.disable:
            self._console.print(f"{said} …")
        self._end_task()
        self._task = self._bar.add_task(said, total=requests)

    def answered(self) -> None:
        if self._task is not None:
            self._bar.advance(self._task)

    def ended(self, step: Step) -> None:
        self._found.steps.append(step)
        self._result.keep(self._out, complete=False)
        failed = f", failed {dict(step.failures)}" if step.failures else ""
        said = f"{self._found.backend.name}: {step.in_flight} in flight: {step.pages_per_second:.2f} pages/s{failed}"
        self._console.print(said)
        self._end_task()

    def _end_task(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None


def _show(measured: Mapping[str, Measured], out: Path, console: Console) -> None:
    table = Table()
    columns = ("backend", "in flight", "pages/s", "tokens/s", "median s", "p95 s", "failed", "cost of 1,000 pages", "")
    for column in columns:
        table.add_column(column)
    for name, found in measured.items():
        best = found.best
        for step in found.steps:
            cost = cost_per_thousand(found.price, step.pages_per_second)
            table.add_row(
                name,
                str(step.in_flight),
                f"{step.pages_per_second:.2f}",
                f"{step.tokens_per_second:.0f}",
                "" if step.median is None else f"{step.median:.2f}",
                "" if step.p95 is None else f"{step.p95:.2f}",
                f"{step.failed_share:.0%}" if step.failures else "",
                "" if cost is None else f"{cost:.3f}",
                "recommended" if step is best else "",
            )
    console.print(table)
    for name, found in measured.items():
        console.print(f"{name}: {_advice(found)}")
    console.print(f"figures and plot: {out}/benchmark.json, {out}/benchmark.svg")


def _advice(found: Measured) -> str:
    if found.best is None:
        why = f"{found.given_up}; " if found.given_up else ""
        return f"no step without failures: {why}look at `ocr-pipeline doctor`"
    said = f"max_in_flight = {found.best.in_flight}"
    now = found.backend.max_in_flight
    said += ", as it is" if found.best.in_flight == now else f" (it is {now})"
    if found.ceiling_reached:
        said += f"; still rising, the best may be higher: try --most {2 * found.most}"
    return f"{said}; then {found.given_up}" if found.given_up else said
