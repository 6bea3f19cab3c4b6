"""The transcriber that needs no server: one CPU engine, its attempts and its transcripts.

Here belong the choice of the engine and what an engine's lines or failure become. Not here: how an engine reads
(`engines/`), and what its lines mean together (`layout`).
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

from ocr_pipeline.ocr.engines.engine import Engine, EngineError, RawLine, raw_text
from ocr_pipeline.ocr.engines.rapidocr import RapidOcrEngine
from ocr_pipeline.ocr.engines.tesseract import TesseractEngine
from ocr_pipeline.ocr.engines.text_layer import TextLayerEngine
from ocr_pipeline.ocr.quality.agreement import agreement
from ocr_pipeline.ocr.recipe import recipe_id
from ocr_pipeline.ocr.transcriber import Transcriber
from ocr_pipeline.records import Attempt, Geometry, PageImage, PageStatus, Reason, Transcript

# 200 and 300 dpi read no better on the samples and on type down to 5 points.
GEOMETRY = Geometry(dpi=150, max_long_side=2400, max_short_side=1800)
BACKEND = "cpu"
_DETAIL_CHARACTERS = 500


def cpu_transcriber(engine: str = "auto", *, workers: int | None = None) -> Transcriber:
    """`engine`: "rapidocr", "tesseract", "text_layer", or "auto" for the one that measured best. Loads nothing yet.

    "auto" is rapidocr also where tesseract is installed: on the samples it makes a tenth of tesseract's character
    errors (`benchmarks/accuracy.py`), and the recipe does not hang on what else is installed.
    Raises `ValueError` for another name, `EngineError` where tesseract is asked for and does not start.
    """
    if engine in ("auto", "rapidocr"):
        return CpuTranscriber(RapidOcrEngine(workers))
    if engine == "tesseract":
        return CpuTranscriber(TesseractEngine(workers=workers))
    if engine == "text_layer":
        return CpuTranscriber(TextLayerEngine())
    raise ValueError(f"no CPU engine is called {engine!r}: OCR_CPU_ENGINE is auto, rapidocr, tesseract or text_layer")


class CpuTranscriber:
    """A `Transcriber` around one engine: never raises for a page, gives up its place when cancelled."""

    def __init__(self, engine: Engine, geometry: Geometry = GEOMETRY) -> None:
        self._engine = engine
        self._geometry = geometry
        self._model = engine.model
        self._places = asyncio.Semaphore(engine.workers)
        self._recipe_id = recipe_id(
            {
                "engine": engine.name,
                "model": engine.model,
                "asked": dict(engine.asked),
                "geometry": {
                    "dpi": geometry.dpi,
                    "max_long_side": geometry.max_long_side,
                    "max_short_side": geometry.max_short_side,
                    "jpeg_quality": geometry.jpeg_quality,
                },
            }
        )

    @property
    def recipe_id(self) -> str:
        return self._recipe_id

    @property
    def geometry(self) -> Geometry:
        return self._geometry

    @property
    def max_in_flight(self) -> int:
        """One more than the engine reads at once, so that a page is there when a worker is free."""
        return self._engine.workers + 1

    async def transcribe(self, image: PageImage, previous: Transcript | None = None) -> Transcript:
        """Reads the page; `previous` attempts are kept, and numbering continues from them. A page without any text
        fails with `empty_text`, any error of the engine with `engine_failed`."""
        async with self._places:  # an attempt's time is the engine's, not that of waiting for it
            return await self._attempt(image, previous)

    async def _attempt(self, image: PageImage, previous: Transcript | None) -> Transcript:
        started_at, clock = datetime.now(UTC), time.monotonic()
        lines: tuple[RawLine, ...] = ()
        reason: Reason | None = None
        detail: str | None = None
        try:
            lines = await self._engine.read(image)
            if not lines:
                reason = Reason.EMPTY_TEXT
        except EngineError as error:
            reason, detail = error.reason, str(error)
        except Exception as error:  # whatever a library raises on a strange image stays this page's trouble
            reason, detail = Reason.ENGINE_FAILED, f"{type(error).__name__}: {error}"
        seconds = time.monotonic() - clock
        text = raw_text(lines) if reason is None else ""
        earlier = previous.attempts if previous else ()
        attempt = Attempt(
            document_id=image.document_id,
            page_number=image.page_number,
            attempt=len(earlier) + 1,
            backend=BACKEND,
            model=self._model,
            choice="cpu: only engine",
            started_at=started_at,
            seconds=seconds,
            outcome=reason or "ok",
            text=text or None,
        )
        return Transcript(
            recipe_id=self._recipe_id,
            image_sha256=image.sha256,
            status=PageStatus.OK if reason is None else PageStatus.FAILED,
            text=text,
            format="lines",
            engine=self._engine.name,
            backend=BACKEND,
            model=self._model,
            width=image.width,
            height=image.height,
            reason=reason,
            detail=detail[:_DETAIL_CHARACTERS] if detail else None,
            agreement=agreement("\n".join(line["text"] for line in lines), image.text_layer) if lines else None,
            seconds=seconds,
            finished_at=datetime.now(UTC),
            attempts=(*earlier, attempt),
        )

    async def aclose(self) -> None:
        await self._engine.aclose()
