"""What a benchmark found so far: the object that is printed and kept, rewritten after each step, so that nothing that
was measured is lost to a Ctrl-C or to a server that dies.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ocr_pipeline.benchmark import chart
from ocr_pipeline.benchmark.steps import Step, cost_per_thousand, recommended, still_rising
from ocr_pipeline.ocr.vllm.backends import Backend


@dataclass(slots=True)
class Measured:
    """One backend's figures so far."""

    backend: Backend
    most: int  # the highest number in flight that is tried
    price: float | None  # an hour
    steps: list[Step] = field(default_factory=list)
    given_up: str | None = None  # why nothing more was asked of it

    @property
    def best(self) -> Step | None:
        return recommended(self.steps)

    @property
    def ceiling_reached(self) -> bool:
        return still_rising(self.steps, self.most)

    def as_json(self) -> dict[str, Any]:
        best = self.best
        return {
            "backend": self.backend.name,
            "gpu": self.backend.gpu.name,
            "max_in_flight_now": self.backend.max_in_flight,
            "recommended_max_in_flight": best.in_flight if best else None,
            "ceiling_reached": self.ceiling_reached,
            "given_up": self.given_up,
            "price_an_hour": self.price,
            "cost_per_1000_pages": cost_per_thousand(self.price, best.pages_per_second) if best else None,
            "steps": [{**asdict(step), "failed_share": step.failed_share} for step in self.steps],
        }


@dataclass(frozen=True, slots=True)
class Result:
    """All of a run: which images were sent, what could not be drawn, and each backend's figures."""

    images: int
    left_out: Sequence[str]  # documents and pages, with the reason
    measured: Mapping[str, Measured]

    def as_json(self, *, complete: bool) -> dict[str, Any]:
        backends = [found.as_json() for found in self.measured.values()]
        model = next(iter(self.measured.values())).backend.model.model
        said = {"complete": complete, "images": self.images, "left_out": list(self.left_out), "model": model}
        return {**said, "backends": backends}

    def keep(self, folder: Path, *, complete: bool) -> None:
        """Writes `benchmark.json` and `benchmark.svg` as things stand."""
        _replace(folder / "benchmark.json", json.dumps(self.as_json(complete=complete), indent=1) + "\n")
        _replace(folder / "benchmark.svg", chart.svg({name: found.steps for name, found in self.measured.items()}))


def prepared(folder: Path) -> Path:
    """The folder, made where it is missing. Raises OSError where nothing can be written there."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        return folder


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
