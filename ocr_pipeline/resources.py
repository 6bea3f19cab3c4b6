"""Dagster's doors to the lake, to OCR and to the warehouse. What they hand out knows nothing of Dagster.

Fields are what people may see in the UI; secrets are read from the settings when the resource is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from ocr_pipeline import wiring
from ocr_pipeline.flow.service import OcrService
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.runs.liveness import stamp
from ocr_pipeline.settings import CpuEngine, Settings, TextLayer
from ocr_pipeline.warehouse.connection import Warehouse


class LakeResource(dg.ConfigurableResource[Storage]):
    """Object storage: a local folder or an S3 store such as Cloudflare R2."""

    url: str

    def create_resource(self, context: dg.InitResourceContext) -> Storage:
        return wiring.lake(Settings().model_copy(update={"lake": self.url}))


class OcrResource(dg.ConfigurableResource[OcrService]):
    """Reads pages: on the GPU servers of the backends file, chosen page by page, or on the CPU where there are none."""

    backends_file: str | None = None
    cpu_engine: str = CpuEngine.AUTO.value
    text_layer: str = TextLayer.FALLBACK.value
    outage_wait: float = 900.0

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[OcrService]:
        service = wiring.ocr_service(
            Settings().model_copy(
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
    """DuckDB file or MotherDuck database (`md:name`)."""

    target: str

    def create_resource(self, context: dg.InitResourceContext) -> Warehouse:
        return wiring.warehouse(Settings().model_copy(update={"warehouse": self.target}))


class RunStamp(dg.ConfigurableResource[None]):
    """Writes host, process id and process start time into the run's tags before its first step.

    Dagster's default launcher never notices a dead run; with the stamp the run launcher and the command can.
    """

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        if context.instance is not None and context.run is not None:
            context.instance.add_run_tags(context.run.run_id, stamp(context.run.run_id))


def default_resources(settings: Settings) -> dict[str, object]:
    return {
        "lake": LakeResource(url=settings.lake),
        "ocr": OcrResource(
            backends_file=str(settings.backends) if settings.backends else None,
            cpu_engine=settings.cpu_engine.value,
            text_layer=settings.text_layer.value,
            outage_wait=settings.outage_wait,
        ),
        "warehouse": WarehouseResource(target=settings.warehouse),
        "run_stamp": RunStamp(),
    }
