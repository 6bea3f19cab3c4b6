"""`ocr-pipeline review`: the review web app on this machine."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import click

from ocr_pipeline import wiring
from ocr_pipeline.records import Reason
from ocr_pipeline.review.asking_again import RetryHandler
from ocr_pipeline.settings import Settings

WAIT_SECONDS = 10.0
"""For a DuckDB file that is being loaded: a load takes less, and a person is waiting."""


@click.command("review")
@click.option("--port", type=click.IntRange(0, 65535), default=8400, show_default=True, help="0: any free port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on. There is no login.")
@click.option("--allow-host", multiple=True, metavar="NAME", help="Another name under which it may be asked (a proxy).")
@click.option(
    "--allow-retry", is_flag=True, help="Let people ask again for failed pages; without it the app only reads."
)
@click.option("--dagster-url", default=None, metavar="URL", help="Root of Dagster's UI, to link to the batches' runs.")
def command(port: int, host: str, allow_host: tuple[str, ...], allow_retry: bool, dagster_url: str | None) -> int:
    """Look at what was read: documents, pages beside their images, search, overview, in a browser.

    Reads the lake and the tables that the settings name. Ctrl-C ends it.
    """
    import uvicorn

    from ocr_pipeline.review.app import build_app
    from ocr_pipeline.review.guards import LOCAL_HOSTS, host_name

    settings = Settings()
    if dagster_url and urlsplit(dagster_url).scheme not in ("http", "https"):
        raise click.UsageError("--dagster-url must start with http:// or https://")
    shown = f"[{host}]" if ":" in host else host  # as an address writes it
    names = [shown, *allow_host, *([urlsplit(settings.review_url).netloc] if settings.review_url else [])]
    app = build_app(
        wiring.lake(settings),
        wiring.warehouse(settings, wait_seconds=WAIT_SECONDS),
        allow_retry=_ask_again(settings) if allow_retry else None,
        allowed_hosts={*LOCAL_HOSTS, *(host_name(name) for name in names)} - {""},
        dagster_url=dagster_url,
    )
    listening = _listening(host, port)
    click.echo(f"Review app: http://{shown}:{listening.getsockname()[1]}/documents   (Ctrl-C ends it)")
    config = uvicorn.Config(app, log_level="warning", server_header=False, date_header=False)
    uvicorn.Server(config).run(sockets=[listening])
    return 0


def _listening(host: str, port: int) -> socket.socket:
    """Listens from now on, so that a browser that is quicker than the server waits, and is not refused."""
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048
        )
    except OSError as error:
        raise click.UsageError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}. Where another program has the port,"
            " choose one with --port, or --port 0 for any that is free."
        ) from None


def _ask_again(settings: Settings) -> RetryHandler:
    """What "ask again" does: writes the same batch lists as `ocr-pipeline retry --leave-to-sensor`."""
    from ocr_pipeline.intake import cutting
    from ocr_pipeline.review.asking_again import Asked, RetryRequest
    from ocr_pipeline.upkeep.retry import ask_again

    def ask(request: RetryRequest) -> Asked:
        plan = ask_again(
            wiring.lake(settings),
            wiring.warehouse(settings, wait_seconds=WAIT_SECONDS),
            [Reason(reason) for reason in request.reasons if reason in set(Reason)],
            documents=request.document_ids,
            limits=wiring.batch_limits(settings),
            intake=lambda: cutting.intake_lock(settings.data),
        )
        return Asked(tuple(batch.name for batch in plan.batches), plan.pages, plan.gone)

    return ask
