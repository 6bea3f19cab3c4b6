"""The engine that every installation has: RapidOCR with the PP-OCRv6 models that come inside its wheel.

Here belongs everything that knows the `rapidocr` package, and nothing else does. Nothing is fetched at run time: the
model files are named one by one, since the package downloads a model that it does not find.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ocr_pipeline.ocr.engines.engine import EngineError, RawLine, usable_cores
from ocr_pipeline.records import PageImage

DETECTOR = "PP-OCRv6_det_small.onnx"
RECOGNISER = "PP-OCRv6_rec_small.onnx"

SETTINGS: dict[str, Any] = {
    "Global.text_score": 0.5,
    "Global.max_side_len": 4000,  # page images come in the size that the recipe says: no second scaling
    # The 180-degree classifier turns short upright words ("8", "NOON") and cannot put an upside-down page in order.
    "Global.use_cls": False,
    "Det.limit_type": "max",
    "Det.limit_side_len": 1600,
    "Rec.rec_batch_num": 6,
}
"""What decides the text. Measured on the samples with `benchmarks/accuracy.py`."""


class RapidOcrEngine:
    """RapidOCR on threads of its own. Loaded when the first page comes: 1.5 s and up to 1 GB at work.

    A page costs 2 to 6 CPU s. A thread cannot be killed: a cancelled page that is already being read is read to its
    end, and its place is free again after that.
    """

    name = "rapidocr"

    def __init__(self, workers: int | None = None) -> None:
        """`workers`: pages read at once, each with an equal share of the cores; by default one for two cores, at
        most 4, since each holds some 500 MB while it detects."""
        cores = usable_cores()
        self._workers = workers or max(1, min(4, cores // 2))
        self._threads_each = max(1, cores // self._workers)
        self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="rapidocr")
        self._loading = threading.Lock()
        self._reader: Any = None

    @property
    def model(self) -> str:
        return f"PP-OCRv6 small, rapidocr {importlib.metadata.version('rapidocr')}"

    @property
    def asked(self) -> Mapping[str, Any]:
        return {"detector": DETECTOR, "recogniser": RECOGNISER, "settings": SETTINGS}

    @property
    def max_in_flight(self) -> int:
        return self._workers + 1

    async def read(self, image: PageImage) -> tuple[RawLine, ...]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, image.jpeg)

    async def aclose(self) -> None:
        """Waits for pages that are being read; those that wait for a thread are dropped."""
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)
        self._reader = None

    def _read(self, jpeg: bytes) -> tuple[RawLine, ...]:
        result = self._loaded()(jpeg)
        if result.boxes is None or result.txts is None:
            return ()
        return tuple(
            RawLine(
                text=text,
                box=[[round(float(x), 1), round(float(y), 1)] for x, y in box],
                score=round(float(score), 3),
            )
            for text, box, score in zip(result.txts, result.boxes, result.scores, strict=True)
        )

    def _loaded(self) -> Any:
        with self._loading:
            if self._reader is None:
                self._reader = _load(self._threads_each)
            return self._reader


def _load(threads: int) -> Any:
    folder = _model_folder()
    from rapidocr import RapidOCR  # 1.5 s: only when a page is really read by it

    return RapidOCR(
        params={
            **SETTINGS,
            "Global.log_level": "critical",  # it logs each model and each page without text to stderr
            "Det.model_path": str(folder / DETECTOR),
            "Rec.model_path": str(folder / RECOGNISER),
            "EngineConfig.onnxruntime.intra_op_num_threads": threads,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )


def _model_folder() -> Path:
    """Raises `EngineError` where the package or one of its models is missing."""
    spec = importlib.util.find_spec("rapidocr")
    if spec is None or spec.origin is None:
        raise EngineError("the CPU engine rapidocr is not installed: pip install 'rapidocr>=3.10' onnxruntime")
    folder = Path(spec.origin).parent / "models"
    missing = [name for name in (DETECTOR, RECOGNISER) if not (folder / name).is_file()]
    if missing:
        raise EngineError(
            f"rapidocr {importlib.metadata.version('rapidocr')} came without {' and '.join(missing)}: "
            "install a release whose wheel carries them (3.10)"
        )
    return folder
