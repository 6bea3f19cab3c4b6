"""From settings to the rooms' own objects, in one place: lake, transcriber, stream options, warehouse.

No decisions beyond "which one", no Dagster. Resources, sensors and the command call this.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import SecretStr

from ocr_pipeline.flow.batch_run import StreamOptions
from ocr_pipeline.flow.poisoned import keep
from ocr_pipeline.flow.progress import Progress
from ocr_pipeline.flow.service import OcrService
from ocr_pipeline.intake.options import IntakeOptions
from ocr_pipeline.intake.sources import Places
from ocr_pipeline.lake import batches, planner
from ocr_pipeline.lake.opening import is_local, open_storage
from ocr_pipeline.lake.queue import QueueOptions, QueuePull
from ocr_pipeline.lake.storage import S3Options, Storage, StorageError
from ocr_pipeline.ocr.cpu import cpu_transcriber
from ocr_pipeline.ocr.engines.engine import usable_cores
from ocr_pipeline.ocr.fleet.failover import Poisoned
from ocr_pipeline.ocr.transcriber import Transcriber
from ocr_pipeline.ocr.vllm.backends import BackendsConfig
from ocr_pipeline.ocr.vllm.backends_file import load_backends
from ocr_pipeline.pdf.renderer import RenderLimits
from ocr_pipeline.settings import Listing, Settings, variable
from ocr_pipeline.warehouse.connection import Connect, Warehouse
from ocr_pipeline.warehouse.costs import BackendCost, set_backend_costs
from ocr_pipeline.warehouse.motherduck import make_r2_secret

log = logging.getLogger(__name__)


def lake(settings: Settings) -> Storage:
    """The lake; nothing is asked of it yet."""
    return open_storage(settings.lake, s3_options(settings))


def s3_options(settings: Settings) -> S3Options:
    return S3Options(
        access_key_id=_shown(settings.r2_access_key_id),
        secret_access_key=_shown(settings.r2_secret_access_key),
        endpoint_url=settings.r2_endpoint_url,
        account_id=settings.r2_account_id,
        jurisdiction=settings.r2_jurisdiction,
        region=settings.r2_region,
    )


def _shown(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


@contextmanager
def queue(settings: Settings) -> Iterator[QueuePull | None]:
    """The queue with R2's event notifications, or None where uploads are found by listing."""
    if settings.listing is not Listing.QUEUE:
        yield None
        return
    url, account, queue_id, token = settings.lake, settings.r2_account_id, settings.queue_id, settings.queue_token
    if is_local(url) or not account or not queue_id or token is None:
        raise StorageError(
            "OCR_LISTING=queue needs a lake on R2 (OCR_LAKE=s3://…), R2_ACCOUNT_ID, OCR_QUEUE_ID and OCR_QUEUE_TOKEN"
        )
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    options = QueueOptions(settings.queue_api_url, account, queue_id, token.get_secret_value(), bucket, prefix)
    with QueuePull(options) as pull:
        yield pull


OVERLAP_IN_A_LOCAL_FOLDER = timedelta(seconds=30)
"""A local file gets its date when it is complete, so looking back need only cover clocks and coarse time stamps."""


def intake(settings: Settings) -> IntakeOptions:
    local = is_local(settings.lake)
    return IntakeOptions(
        data=settings.data,
        inbox=settings.inbox,
        ordered=settings.listing is Listing.ORDERED,
        overlap=OVERLAP_IN_A_LOCAL_FOLDER if local else timedelta(seconds=settings.listing_overlap),
        settle=timedelta(seconds=settings.settle_seconds if local else 0),
        limits=batch_limits(settings),
    )


def places(settings: Settings) -> Places:
    """The pipeline's own folders on this machine, which `ingest` must not take for sources."""
    opened = lake(settings)
    return Places(settings.inbox, Path(opened.uri_of("")) if opened.is_local else None, settings.data)


def batch_limits(settings: Settings) -> planner.BatchLimits:
    return planner.BatchLimits(settings.batch_documents, settings.batch_bytes, settings.batches_per_tick)


def warehouse(
    settings: Settings,
    wait_seconds: float = 600.0,
    connect: Connect | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> Warehouse:
    """The warehouse; `wait_seconds` for a file that others use, and `on_wait` is told where that takes long. Raises
    WarehouseError at once for `md:` without a token."""
    return Warehouse(
        settings.warehouse,
        _shown(settings.motherduck_token),
        connect=connect,
        wait_seconds=wait_seconds,
        on_wait=on_wait,
    )


def let_motherduck_read_r2(settings: Settings, opened: Warehouse) -> bool:
    """Whether MotherDuck reads the lake itself; where it can, it is given its secret for R2, once a process."""
    options = s3_options(settings)
    on_r2 = not is_local(settings.lake) and (
        options.account_id or "r2.cloudflarestorage.com" in (options.endpoint_url or "")
    )
    if not opened.is_motherduck or not on_r2 or not options.access_key_id or not options.secret_access_key:
        return False
    make_r2_secret(
        opened,
        key_id=options.access_key_id,
        secret=options.secret_access_key,
        scope=settings.lake.replace("s3://", "r2://", 1).rstrip("/") + "/",
        account_id=options.account_id,
        endpoint=options.endpoint_url
        or (f"{options.account_id}.{options.jurisdiction}.r2.cloudflarestorage.com" if options.jurisdiction else None),
    )
    return True


def backends(settings: Settings) -> BackendsConfig | None:
    """The GPU servers, or None where none are configured. Raises ConfigError."""
    return load_backends(settings.backends, variable) if settings.backends else None


def check_engine(settings: Settings) -> None:
    """Raises ConfigError or EngineError where the engine cannot be made as configured; starts nothing."""
    backends(settings)
    cpu_transcriber(settings.cpu_engine)  # the servers' stand-in, too, where all are away


def backend_costs(settings: Settings) -> dict[str, BackendCost | None]:
    """What each machine of the backends file costs; None where it states no price."""
    config = backends(settings)
    return {
        backend.name: BackendCost(backend.power_usd_per_month, backend.hardware_usd, backend.hardware_months)
        if backend.power_usd_per_month or backend.hardware_usd
        else None
        for backend in (config.backends if config else ())
    }


def set_prices(settings: Settings, opened: Warehouse) -> None:
    """The prices of the backends file into the warehouse. A machine without such a file knows none, and sets none."""
    if settings.backends:
        set_backend_costs(opened, backend_costs(settings))


def transcriber(settings: Settings) -> Callable[[], Transcriber]:
    """Makes the transcriber; to be called on the event loop that will use it."""
    config = backends(settings)
    if config is None:
        return lambda: cpu_transcriber(settings.cpu_engine)

    def fleet() -> Transcriber:
        from ocr_pipeline.ocr.fleet.fleet import Fleet  # 40 ms of imports, which the CPU engine does without

        storage = lake(settings)

        async def poisoned(page: Poisoned) -> None:
            await keep(storage, made.recipe_id, page)

        made = Fleet(
            config,
            cpu=cpu_transcriber(settings.cpu_engine),
            outage_wait=settings.outage_wait,
            on_poisoned=poisoned,
            documents_today=_documents_today(storage, config.low_volume_per_day),
        )
        return made

    return fleet


def recipe_in_force(settings: Settings) -> str:
    """The recipe that a run would read with now. Nothing is asked of a server or the lake."""
    from ocr_pipeline.ocr.fleet.fleet import recipe_of

    config = backends(settings)
    return recipe_of(config) if config else cpu_transcriber(settings.cpu_engine).recipe_id


def _documents_today(storage: Storage, enough: int) -> int | None:
    """Uploads of the last 24 hours, of all runs together; None where the lake does not say."""
    try:
        return batches.documents_since(storage, datetime.now(UTC) - timedelta(days=1), enough)
    except (StorageError, ValueError) as error:  # no answer, or a list that cannot be read: its own run says so
        log.warning("uploads of the last 24 hours are not counted, and the rule about them does not hold: %s", error)
        return None


def stream_options(settings: Settings) -> StreamOptions:
    return StreamOptions(
        limits=RenderLimits(
            max_pages=settings.max_pages,
            max_page_inches=settings.max_page_inches,
            seconds=settings.render_seconds,
            memory_bytes=settings.render_memory,
        ),
        render_workers=settings.render_workers or min(4, usable_cores()),
        max_pdf_bytes=settings.max_pdf_bytes,
        text_layer=settings.text_layer,
    )


def ocr_service(settings: Settings, progress: Progress | None = None) -> OcrService:
    """The OCR of this process. Close it."""
    return OcrService(lake(settings), transcriber(settings), stream_options(settings), progress)
