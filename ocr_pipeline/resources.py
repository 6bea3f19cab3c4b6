"""Dagster's entry points to the lake, to OCR and to the warehouse. What they hand out knows nothing of Dagster.

Fields are what people may see in the UI; everything else, secrets too, comes from the settings that `build_defs` was
given: they are a resource themselves, so that no step reads the environment anew.
"""

# No `from __future__ import annotations`: Dagster finds the resources that a resource needs by its fields' types.

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
from dagster_duckdb import DuckDBResource

from ocr_pipeline import wiring
from ocr_pipeline.flow.service import OcrService
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.pdf.renderer import poppler_installed
from ocr_pipeline.runs.liveness import stamp
from ocr_pipeline.runs.locks import held, lock_of
from ocr_pipeline.settings import CpuEngine, Settings, TextLayer
from ocr_pipeline.warehouse.connection import Warehouse

log = logging.getLogger(__name__)


class LakeResource(dg.ConfigurableResource[Storage]):
    """Object storage: a local folder or an S3 store such as Cloudflare R2."""

    url: str
    settings: dg.ResourceDependency[Settings]

    def create_resource(self, context: dg.InitResourceContext) -> Storage:
        return wiring.lake(self.settings.model_copy(update={"lake": self.url}))


class OcrResource(dg.ConfigurableResource[OcrService]):
    """Reads pages: on the GPU servers of the backends file, chosen page by page, or on the CPU where there are none."""

    backends_file: str | None = None
    cpu_engine: str = CpuEngine.AUTO.value
    text_layer: str = TextLayer.FALLBACK.value
    outage_wait: float = 900.0
    settings: dg.ResourceDependency[Settings]

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[OcrService]:
        if not poppler_installed() and context.log is not None:
            context.log.warning("poppler is not installed: pages are drawn by PDFium alone (apt install poppler-utils)")
        service = wiring.ocr_service(
            self.settings.model_copy(
                update={
                    "backends": Path(self.backends_file) if self.backends_file else None,
                    "cpu_engine": CpuEngine(self.cpu_engine),
                    "text_layer": TextLayer(self.text_layer),
                    "outage_wait": self.outage_wait,
                }
            )
        )
        try:
            yield service
        finally:
            service.close()


class WarehouseResource(dg.ConfigurableResource[Warehouse]):
    """DuckDB file or MotherDuck database (`md:name`), opened by dagster-duckdb's resource."""

    target: str
    settings: dg.ResourceDependency[Settings]

    def create_resource(self, context: dg.InitResourceContext) -> Warehouse:
        settings = self.settings.model_copy(update={"warehouse": self.target})
        return wiring.warehouse(settings, connect=through_dagster_duckdb, on_wait=log.warning)


def through_dagster_duckdb(
    database: str, read_only: bool, config: Mapping[str, Any]
) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
    """A connection of `DuckDBResource`, for one use.

    The resource itself leaves its connection open after an exception, begins no transaction, and always opens for
    writing. So `Warehouse` closes, begins and commits, and for readers the access mode is set in the configuration. If
    a file cannot be opened, the resource keeps trying for 102 s, whatever the reason, and then raises the same error.
    """
    access = {"access_mode": "READ_ONLY"} if read_only else {}
    # a token in the fields of a resource that Dagster holds would be shown as its configuration: this one it never sees
    return DuckDBResource(database=database, connection_config={**config, **access}).get_connection()


class RunStamp(dg.ConfigurableResource[None]):
    """Writes host, process id and process start time into the run's tags before its first step, and holds its lock.

    Dagster's default launcher never notices a dead run; with the stamp the run launcher and the command can.
    """

    settings: dg.ResourceDependency[Settings]

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[None]:
        if context.instance is None or context.run is None:
            yield
            return
        run_id = context.run.run_id
        with held(lock_of(self.settings.claims, run_id)):
            context.instance.add_run_tags(run_id, stamp(run_id))
            yield


def default_resources(settings: Settings) -> dict[str, object]:
    given = dg.ResourceDefinition.hardcoded_resource(settings)
    return {
        "settings": given,
        "lake": LakeResource(url=settings.lake, settings=given),
        "ocr": OcrResource(
            backends_file=str(settings.backends) if settings.backends else None,
            cpu_engine=settings.cpu_engine.value,
            text_layer=settings.text_layer.value,
            outage_wait=settings.outage_wait,
            settings=given,
        ),
        "warehouse": WarehouseResource(target=settings.warehouse, settings=given),
        "run_stamp": RunStamp(settings=given),
    }
