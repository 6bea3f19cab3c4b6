"""`ocr-pipeline metrics`: the Prometheus exporter."""

from __future__ import annotations

import functools

import click

from ocr_pipeline import wiring
from ocr_pipeline.lake import batches
from ocr_pipeline.lake.storage import ObjectMissing, ObjectUnreadable
from ocr_pipeline.settings import Settings

WAIT_SECONDS = 2.0
"""For a DuckDB file that is being loaded: less than a scrape's patience; the last figures stand in."""

REMOTE_SECONDS = 300.0
"""Between two questions to MotherDuck, where compute is paid for by the second."""


@click.command("metrics")
@click.option("--port", type=click.IntRange(0, 65535), default=9410, show_default=True, help="0: any free port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on. There is no login.")
def command(port: int, host: str) -> int:
    """Serve figures for Prometheus at /metrics: pages by status, what waits, condition of each backend, cost.

    Reads the tables, Dagster's runs and the servers of the backends file; changes nothing. Ctrl-C ends it.
    """
    from ocr_pipeline.metrics.exporter import KEEP_SECONDS, Exporter, serve
    from ocr_pipeline.runs import daemon, history, instance

    settings = Settings()
    config = wiring.backends(settings)
    dagster = instance.instance(settings)
    warehouse = wiring.warehouse(settings, wait_seconds=WAIT_SECONDS)
    lake = wiring.lake(settings)

    @functools.lru_cache(maxsize=10_000)
    def documents_of(name: str) -> int:
        try:
            return len(batches.read(lake, name).uploads)
        except (ObjectMissing, ObjectUnreadable):  # as of a partition that somebody made by hand: its run will fail
            return 0

    exporter = Exporter(
        warehouse,
        config.backends if config else (),
        lambda: history.waiting(dagster, documents_of),
        lambda: daemon.heartbeats(dagster),
        keep_seconds=REMOTE_SECONDS if warehouse.is_motherduck else KEEP_SECONDS,
    )
    try:
        server, thread = serve(exporter, host, port)
    except OSError as error:
        raise click.UsageError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}. Is another `ocr-pipeline metrics` at "
            "work? End it, or give --port 0 for any free one"
        ) from error
    click.echo(f"Metrics: http://{host}:{server.server_port}/metrics   (Ctrl-C ends it)")
    try:
        thread.join()
    except KeyboardInterrupt:
        server.shutdown()
    return 0
