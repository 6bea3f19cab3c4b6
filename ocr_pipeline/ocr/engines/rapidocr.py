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
    # Text is found on a copy of this size and read from the full one. 5-point type on A4 is still found (0.3 % of
    # characters wrong; at 960 pixels it is half of them). The package's 736 as the *shorter* side leaves a page at
    # its full size: twice the CPU, no fewer errors.
    "Det.limit_type": "max",
    "Det.limit_side_len": 1216,
    # Lines are padded to the longest of their batch, and padded lines lose spaces ("Whatwe ask for"): one by one is
    # a third of the errors and three quarters of the CPU of the package's 6.
    "Rec.rec_batch_num": 1,
}
"""What decides the text. Measured on the samples, 150 dpi."""


class RapidOcrEngine:
    """RapidOCR on threads of its own. Loaded when the first page comes, which takes 1.5 s.

    A4 page of text: 2 to 4 CPU s. A thread cannot be killed: a cancelled page that is already being read is read to
    its end, and its place is free again after that.
    """

    name = "rapidocr"

    def __init__(self, workers: int | None = None) -> None:
        """`workers`: pages read at once, one core each (two threads for one page cost twice the CPU, most of it spent
        waiting). By default one a core, at most 4: the first takes 450 MB, each further one 200 MB."""
        self.workers = workers or min(4, usable_cores())
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="rapidocr")
        self._loading = threading.Lock()
        self._reader: Any = None

    @property
    def model(self) -> str:
        return f"PP-OCRv6 small, rapidocr {importlib.metadata.version('rapidocr')}"

    @property
    def asked(self) -> Mapping[str, Any]:
        return {"detector": DETECTOR, "recogniser": RECOGNISER, "settings": SETTINGS}

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
                self._reader = _load()
            return self._reader


def _load() -> Any:
    folder = _model_folder()
    from rapidocr import RapidOCR  # 1.5 s: only when a page is really read by it

    return RapidOCR(
        params={
            **SETTINGS,
            "Global.log_level": "critical",  # it logs each model and each page without text to stderr
            "Det.model_path": str(folder / DETECTOR),
            "Rec.model_path": str(folder / RECOGNISER),
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
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
