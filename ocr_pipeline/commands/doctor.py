"""`ocr-pipeline doctor`: lake, warehouse and each backend, one line each, with the mend."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import asdict, dataclass

import click
from rich.console import Console

from ocr_pipeline import samples, wiring
from ocr_pipeline.lake.check import check
from ocr_pipeline.lake.storage import StorageError
from ocr_pipeline.ocr.vllm.backends import ConfigError, geometry
from ocr_pipeline.pdf.renderer import Limits, RenderedPage, Renderer, poppler_installed
from ocr_pipeline.records import Geometry
from ocr_pipeline.settings import Settings
from ocr_pipeline.warehouse.errors import WarehouseError


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
    findings = [*renderers(), *lake(settings), *warehouse(settings), *backends(settings)]
    failed = any(not finding.ok and not finding.warning for finding in findings)
    if as_json:
        listed = settings.in_force()
        click.echo(json.dumps({"ok": not failed, "checks": [asdict(f) for f in findings], "settings": listed}))
        return int(failed)
    console = Console(soft_wrap=True, highlight=False)
    console.print("[bold]settings in force[/]")
    for name, (value, source) in settings.in_force().items():
        console.print(f"  {name} = {value}  ({source})", markup=False)
    console.print("[bold]checks[/]")
    for finding in findings:
        mark = "[green]ok  [/]" if finding.ok else "[yellow]warn[/]" if finding.warning else "[red]FAIL[/]"
        console.print(f"{mark} {finding.name}:", end=" ")
        console.print(finding.detail, markup=False)
        if finding.mend and not finding.ok:
            console.print(f"     mend: {finding.mend}", markup=False)
    return int(failed)


def renderers() -> list[Finding]:
    if poppler_installed():
        return [Finding("poppler", True, shutil.which("pdftoppm") or "")]
    mend = "install poppler-utils (Debian, Ubuntu), poppler (Homebrew): it opens PDFs that PDFium cannot"
    return [Finding("poppler", False, "not installed, pages are drawn by PDFium alone", mend, warning=True)]


def lake(settings: Settings) -> list[Finding]:
    try:
        check(wiring.lake(settings), settings.inbox)
    except StorageError as error:
        return [Finding("lake", False, str(error), "see OCR_LAKE and the R2_* settings in the README")]
    return [Finding("lake", True, settings.lake)]


def warehouse(settings: Settings) -> list[Finding]:
    try:
        with wiring.warehouse(settings).read() as connection:
            row = connection.execute("SELECT count(*) FROM ocr.documents").fetchone()
    except WarehouseError as error:
        return [Finding("warehouse", False, str(error), "see OCR_WAREHOUSE and MOTHERDUCK_TOKEN in the README")]
    return [Finding("warehouse", True, f"{settings.warehouse}: {row[0] if row else 0} documents")]


def backends(settings: Settings) -> list[Finding]:
    """Each GPU server's preflight; without a backends file the CPU engine."""
    from ocr_pipeline.ocr.vllm.preflight import preflight

    try:
        config = wiring.backends(settings)
    except ConfigError as error:
        return [Finding("backends", False, str(error), "mend the file that OCR_BACKENDS names")]
    if config is None:
        return [Finding("engine", True, f"{settings.cpu_engine} on the CPU (OCR_BACKENDS is not set)")]
    page = sample_page(geometry(config))
    found = []
    for backend in config.backends:
        checks = asyncio.run(preflight(backend, page))
        found += [Finding(f"{backend.name}: {check.name}", check.ok, check.detail, check.mend) for check in checks]
    return found


def sample_page(size: Geometry) -> bytes:
    """The first page of a sample, as it would be sent."""
    path = next(path for path in samples.paths() if path.name == "two-columns.pdf")
    with Renderer(Limits()) as renderer:
        page = renderer.render(path, 1, 1, size)[0]
    if not isinstance(page, RenderedPage):
        raise RuntimeError(f"a sample of ours cannot be drawn: {page.detail}")
    return page.jpeg
