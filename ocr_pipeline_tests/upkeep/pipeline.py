"""The whole flow on a real folder and a real DuckDB file, with an engine that does as it is told."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow.parquet as pq

from ocr_pipeline.flow.batch_run import StreamOptions
from ocr_pipeline.flow.loading import load
from ocr_pipeline.flow.publishing import publish
from ocr_pipeline.flow.service import OcrService
from ocr_pipeline.lake import batches, planner
from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Batch
from ocr_pipeline.upkeep.purge import Purged, purge
from ocr_pipeline.upkeep.traces import traces
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline_tests.flow.doubles import ScriptedTranscriber


def document_ids(parquet: bytes) -> list[str]:
    return list(pq.read_table(io.BytesIO(parquet), columns=["document_id"])["document_id"].to_pylist())


class Pipeline:
    """Lake, warehouse and an engine that does as it is told."""

    def __init__(self, root: Path) -> None:
        self.lake: Storage = open_storage(str(root / "lake"))
        self.warehouse = Warehouse(str(root / "warehouse.duckdb"))
        self.transcriber = ScriptedTranscriber()
        self.use(self.transcriber)

    def use(self, transcriber: ScriptedTranscriber) -> None:
        options = StreamOptions(render_workers=1, text_layer="never")
        self.service = OcrService(self.lake, lambda: transcriber, options)

    def cut(self, files: dict[str, bytes]) -> Batch:
        for name, data in files.items():
            self.lake.write(f"inbox/{name}", data)
        found = [self.lake.stat(f"inbox/{name}") for name in files]
        batch = planner.plan([info.as_upload() for info in found if info], set(), planner.BatchLimits()).batches[0]
        batches.write(self.lake, batch)
        return batch

    def process(self, batch: Batch) -> None:
        if batch.uploads:
            self.service.run(batch)
        publish(self.lake, batch)
        load(self.lake, self.warehouse, batch)

    def rows(self, query: str) -> list[tuple[object, ...]]:
        with self.warehouse.read() as connection:
            return connection.execute(query).fetchall()

    def purge(self, key: str) -> Purged:
        return purge(self.lake, self.warehouse, traces(self.lake, self.warehouse, key))

    def naming(self, *marks: str) -> list[str]:
        """Every object of the lake whose key or bytes hold one of the marks (Parquet: in its document ids)."""
        found = []
        for info in self.lake.list(""):
            data = self.lake.read(info.key)
            ids = document_ids(data) if info.key.endswith(".parquet") else []
            if any(mark in info.key or mark.encode() in data or mark in ids for mark in marks):
                found.append(info.key)
        return found

    def everything(self) -> list[list[tuple[object, ...]]]:
        return [self.rows(f"FROM ocr.{name} ORDER BY ALL") for name in ("documents", "pages", "regions", "attempts")]
