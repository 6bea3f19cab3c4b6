"""`ocr-pipeline ingest` as a benchmark runs it: a process of its own, its own data folder, simulated servers."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import ROOT, SAMPLE_SECONDS, Spent, run
from ocr_pipeline_tests.simulator import Fleet, Tally

SLOTS = {"rtx4090": 4, "spark": 16}


def fleet(seconds_per_page: float, slots: dict[str, int] = SLOTS, mean_tokens: int = 800) -> Fleet:
    """The two servers, each page holding its slot for exactly that long."""
    profiles = {"rtx4090": "rtx-4090", "spark": "dgx-spark"}
    return Fleet(
        **{
            name: {
                "profile": profiles[name],
                "max_num_seqs": count,
                "seconds_per_page": seconds_per_page,
                "mean_tokens": mean_tokens,
            }
            for name, count in slots.items()
        }
    )


def backends_toml(servers: Fleet, slots: dict[str, int] = SLOTS, policy: str = "hybrid") -> str:
    """As many pages in flight as each server has slots: the setting that `ocr-pipeline benchmark` would recommend."""
    lines = [f'policy = "{policy}"']
    for name, count in slots.items():
        gpu = "rtx-4090" if name == "rtx4090" else "dgx-spark"
        lines += ["[[backend]]", f'name = "{name}"', f'url = "{servers[name].url}"', f'gpu = "{gpu}"']
        lines += ['model = "deepseek-ai/DeepSeek-OCR"', f"max_in_flight = {count}"]
    return "\n".join(lines) + "\n"


@contextmanager
def scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ocr-benchmark-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def ingest(
    folder: Path,
    papers: Sequence[Path],
    toml: str | None,
    *,
    timeout: float = 900,
    sample_seconds: float = SAMPLE_SECONDS,
    **environment: str,
) -> Spent:
    """One run of the command in `folder`; raises when a page did not end ok."""
    if toml is not None:
        (folder / "backends.toml").write_text(toml)
        environment = {"OCR_BACKENDS": str(folder / "backends.toml"), **environment}
    environment = {"OCR_DATA": str(folder / "data"), "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-m", "ocr_pipeline", "ingest", *map(str, papers), "--json"]
    spent = run(
        [shutil.which("nice") or "nice", "-n", str(max(0, 5 - os.nice(0))), *command],
        environment,
        folder,
        timeout,
        sample_seconds,
    )
    try:
        said = json.loads(spent.out)
    except ValueError:
        raise RuntimeError(f"no result (exit {spent.code}): {spent.err[-2000:]}") from None
    if said["failed"]:
        raise RuntimeError(f"pages failed: {said['failed'][:5]}")
    return spent


def span(tallies: Sequence[Tally]) -> tuple[float, float]:
    """First request and last answer over all servers, seconds of the wall clock."""
    first = min(t.first_request_at for t in tallies if t.first_request_at is not None)
    last = max(t.last_answer_at for t in tallies if t.last_answer_at is not None)
    return first, last


def busy(tallies: Sequence[Tally]) -> float:
    """Share of all slots' time that was used, from the first request to any server to the last answer of any."""
    first, last = span(tallies)
    return sum(t.busy_slot_seconds for t in tallies) / (sum(t.slots for t in tallies) * (last - first))
