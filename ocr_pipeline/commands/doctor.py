"""`ocr-pipeline doctor`: lake, warehouse and each backend, one line each, with the mend."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from ocr_pipeline import samples, wiring
from ocr_pipeline.commands.terminal import WAIT_SECONDS, terminal
from ocr_pipeline.flow.rehearsal import rehearse
from ocr_pipeline.lake import batches
from ocr_pipeline.lake.check import check
from ocr_pipeline.lake.storage import Storage, StorageError
from ocr_pipeline.ocr.cpu import cpu_transcriber
from ocr_pipeline.ocr.engines.engine import EngineError
from ocr_pipeline.ocr.vllm.backends import geometry
from ocr_pipeline.ocr.vllm.backends_file import ConfigError
from ocr_pipeline.pdf.renderer import RenderedPage, Renderer, RenderLimits, poppler_installed
from ocr_pipeline.records import Batch, Geometry
from ocr_pipeline.runs import instance
from ocr_pipeline.settings import Settings
from ocr_pipeline.warehouse.check import check_connection, check_tables
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import WarehouseError

LISTS_SECONDS = 10.0
"""For reading batch lists: some thousand of a bucket."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check. `mend` says what to do where it failed; a warning does not make the exit code 1."""

    name: str
    ok: bool
    detail: str
    mend: str = ""
    warning: bool = False


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else there.")
def command(as_json: bool) -> int:
    """Check lake, warehouse and every backend; each failure with its mend. Exit code 0, or 1 when one fails."""
    settings = Settings()
    findings = []
    if not as_json:
        console = terminal()
        console.print(Text("settings in force", style="bold"))
        for name, (value, source) in settings.in_force().items():
            console.print(f"  {name} = {value}  ({source})", soft_wrap=True)
        console.print(Text("checks", style="bold"))
    for finding in _checks(settings):
        findings.append(finding)
        if not as_json:
            _show(finding, console)  # at once: a server that hangs must not hide what was found before
    failed = any(not finding.ok and not finding.warning for finding in findings)
    if as_json:
        listed = settings.in_force()
        click.echo(json.dumps({"ok": not failed, "checks": [asdict(f) for f in findings], "settings": listed}))
    return int(failed)


def _checks(settings: Settings) -> Iterator[Finding]:
    for of in (names, renderers, lake, history, warehouse, engine, backends):
        yield from of(settings)


def _show(finding: Finding, console: Console) -> None:
    mark, style = ("ok  ", "green") if finding.ok else ("warn", "yellow") if finding.warning else ("FAIL", "red")
    console.print(Text(mark, style=style), f"{finding.name}: {finding.detail}", soft_wrap=True)
    if finding.mend and not finding.ok:
        console.print(f"     mend: {finding.mend}", soft_wrap=True)


def names(settings: Settings) -> list[Finding]:
    """Variables whose names are typing mistakes: nothing reads them."""
    return [
        Finding("settings", False, f"{name} is no setting and has no effect", f"is {meant} meant?", warning=True)
        for name, meant in settings.misspelt().items()
    ]


def renderers(settings: Settings) -> list[Finding]:
    if poppler_installed():
        return [Finding("poppler", True, shutil.which("pdftoppm") or "")]
    mend = "install poppler-utils (Debian, Ubuntu), poppler (Homebrew): it opens PDFs that PDFium cannot"
    return [Finding("poppler", False, "not installed, pages are drawn by PDFium alone", mend, warning=True)]


def history(settings: Settings) -> list[Finding]:
    """Where Dagster keeps its history."""
    try:
        return [Finding("history", True, str(instance.home(settings)))]
    except instance.HomeError as error:
        return [Finding("history", False, str(error), "see OCR_DATA and DAGSTER_HOME in the README")]


def lake(settings: Settings) -> list[Finding]:
    try:
        opened = wiring.lake(settings)
        check(opened, settings.inbox)
        return [Finding("lake", True, settings.lake), _batch_lists(opened)]
    except StorageError as error:
        return [Finding("lake", False, str(error), "see OCR_LAKE and the R2_* settings in the README")]


def _batch_lists(opened: Storage) -> Finding:
    """The lists themselves, newest first, as far as the time goes: they cannot be made again."""
    deadline = time.monotonic() + LISTS_SECONDS
    names = sorted(batches.names(opened), reverse=True)
    read, errors = 0, list[str]()
    for _, found in batches.read_each(opened, names):
        read += 1
        if not isinstance(found, Batch):
            errors.append(str(found))
        if time.monotonic() > deadline:
            break
    looked_at = f"{read} of {len(names)}" if read < len(names) else str(read)
    if errors:
        mend = "as it says; what of their uploads is in the inbox is cut into batches anew, and read without OCR"
        return Finding("batch lists", False, f"{len(errors)} of {read} cannot be read, first {errors[0]}", mend)
    return Finding("batch lists", True, f"{looked_at} read")


def warehouse(settings: Settings) -> Iterable[Finding]:
    try:
        opened = wiring.warehouse(settings, wait_seconds=WAIT_SECONDS)
        if opened.path is None:
            return _motherduck(settings, opened)
        _try_writing_beside(opened.path)
        with opened.read() as connection:
            row = connection.execute("SELECT count(*) FROM ocr.documents").fetchone()
    except (WarehouseError, OSError) as error:
        return [Finding("warehouse", False, str(error), "see OCR_WAREHOUSE and MOTHERDUCK_TOKEN in the README")]
    return [Finding("warehouse", True, f"{settings.warehouse}: {row[0] if row else 0} documents")]


_MENDS = {
    "connection": "check MOTHERDUCK_TOKEN (expired, revoked?), this machine's way to MotherDuck and to DuckDB's"
    " extensions, and that the installed duckdb is a version that MotherDuck takes (constraints.txt names one)",
    "tables": "MOTHERDUCK_TOKEN must be of the kind read/write, of a user who may write to this database",
    "R2 secret": "the user of MOTHERDUCK_TOKEN must have the right to create and to delete secrets",
    "load": "on R2: check R2_ACCOUNT_ID and R2_JURISDICTION, and that R2_ACCESS_KEY_ID may read the bucket from any"
    " address. Rows that are not the same: install the duckdb of the version that MotherDuck has",
}
"""By what a batch needs of MotherDuck, in the order of its need."""


def _motherduck(settings: Settings, opened: Warehouse) -> Iterator[Finding]:
    """All that the first batch will need, up to the first that fails."""
    on_r2 = False

    def connection() -> str:
        check_connection(opened)
        return settings.warehouse

    def secret() -> str:
        nonlocal on_r2
        on_r2 = wiring.let_motherduck_read_r2(settings, opened)
        return "made: MotherDuck reads Parquet in R2 itself" if on_r2 else "none: Parquet is sent from here"

    def load() -> str:
        return f"one page from {rehearse(wiring.lake(settings), opened, on_r2=on_r2)}, taken away again"

    questions: dict[str, Callable[[], str]] = {
        "connection": connection,
        "tables": lambda: f"{check_tables(opened)} documents",
        "R2 secret": secret,
        "load": load,
    }
    for name, ask in questions.items():
        try:
            yield Finding(f"warehouse: {name}", True, ask())
        except (WarehouseError, StorageError) as error:
            yield Finding(f"warehouse: {name}", False, str(error), _MENDS[name])
            return


def _try_writing_beside(path: Path) -> None:
    """A load makes a lock and a log beside the file, and the folder where it is missing. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(f"nothing can be written into {path.parent}: {error.strerror}") from error
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(f"{path} cannot be written: give this user the right")


def engine(settings: Settings) -> list[Finding]:
    """The CPU engine: what reads where no GPU server is configured, or none is left."""
    role = "where all GPU servers are away" if settings.backends else "OCR_BACKENDS is not set"
    try:
        cpu_transcriber(settings.cpu_engine)
    except EngineError as error:
        return [Finding("engine", False, str(error), "see OCR_CPU_ENGINE in the README")]
    return [Finding("engine", True, f"{settings.cpu_engine} on the CPU ({role})")]


def backends(settings: Settings) -> Iterator[Finding]:
    """Each GPU server's preflight."""
    from ocr_pipeline.ocr.vllm.preflight import preflight

    try:
        config = wiring.backends(settings)
    except ConfigError as error:
        yield Finding("backends", False, str(error), "mend the file that OCR_BACKENDS names")
        return
    if config is None:
        return
    page = sample_page(geometry(config))
    for backend in config.backends:
        for one in asyncio.run(preflight(backend, page)):
            yield Finding(f"{backend.name}: {one.name}", one.ok, one.detail, one.mend)


def sample_page(size: Geometry) -> bytes:
    """The first page of a sample, as it would be sent."""
    path = next(path for path in samples.paths() if path.name == "two-columns.pdf")
    with Renderer(RenderLimits()) as renderer:
        page = renderer.render(path, 1, 1, size)[0]
    if not isinstance(page, RenderedPage):
        raise RuntimeError(f"a sample of ours cannot be drawn: {page.detail}")
    return page.jpeg
