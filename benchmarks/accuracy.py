"""Character errors and CPU time of the CPU engines on the samples: `python -m benchmarks.accuracy [--out FILE]`.

Here belongs the measurement: each page with known text is read, laid out as markdown, and held against that text,
order included. CPU seconds are those of this process and its children, so run it on an idle machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.character_errors import character_error_rate, plain_text
from ocr_pipeline.ocr.cpu import GEOMETRY, cpu_transcriber
from ocr_pipeline.ocr.layout.lines_to_page import parse_lines
from ocr_pipeline.samples.page_images import page_images


async def measure(engine: str) -> dict[str, Any]:
    """Reads every sample page once, one at a time."""
    transcriber = cpu_transcriber(engine, workers=1)
    pages: list[dict[str, Any]] = []
    try:
        for image, known in page_images(GEOMETRY):
            before = _cpu_seconds()
            transcript = await transcriber.transcribe(image)
            cpu = _cpu_seconds() - before
            parsed = parse_lines(transcript.text, transcript.width, transcript.height)
            pages.append(
                {
                    "document": image.document_id,
                    "page": image.page_number,
                    "status": transcript.status,
                    "reason": transcript.reason,
                    "character_error_rate": round(character_error_rate(plain_text(parsed.markdown), known), 5),
                    "agreement": transcript.agreement,
                    "cpu_seconds": round(cpu, 2),
                    "seconds": round(transcript.seconds, 2),
                }
            )
    finally:
        await transcriber.aclose()
    rates = [page["character_error_rate"] for page in pages]
    return {
        "engine": engine,
        "recipe_id": transcriber.recipe_id,
        "mean_character_error_rate": round(sum(rates) / len(rates), 5),
        "mean_cpu_seconds": round(sum(page["cpu_seconds"] for page in pages) / len(pages), 2),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "pages": pages,
    }


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _table(results: list[dict[str, Any]]) -> str:
    head = f"{'page':<26}" + "".join(f"{result['engine']:>12} CER %   CPU s" for result in results)
    lines = [head]
    for pages in zip(*(result["pages"] for result in results), strict=True):
        name = f"{pages[0]['document']} {pages[0]['page']}"
        cells = "".join(f"{100 * p['character_error_rate']:>18.2f}{p['cpu_seconds']:>8.1f}" for p in pages)
        lines.append(f"{name:<26}{cells}")
    means = "".join(f"{100 * r['mean_character_error_rate']:>18.2f}{r['mean_cpu_seconds']:>8.1f}" for r in results)
    return "\n".join([*lines, f"{'mean':<26}{means}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    there = ["rapidocr", *(["tesseract"] if shutil.which("tesseract") else [])]
    parser.add_argument("--engines", nargs="+", default=there)
    parser.add_argument("--out", type=Path, help="write the figures as JSON to this file")
    arguments = parser.parse_args()
    results = [asyncio.run(measure(engine)) for engine in arguments.engines]
    print(_table(results))
    if arguments.out:
        machine = {"python": sys.version.split()[0], "machine": platform.machine(), "cores": os.cpu_count()}
        arguments.out.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
