"""Two servers of one model with unlike weights, compared as deploy/gpu/README.md tells it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import ocr_pipeline
from ocr_pipeline_tests.simulator import Fleet, SimulatedServer

ROOT = Path(ocr_pipeline.__file__).parents[1]


def ingest(name: str, folder: Path) -> None:
    data = folder / name
    own = {
        "OCR_DATA": str(data),
        "OCR_LAKE": str(data / "lake"),
        "OCR_WAREHOUSE": str(data / "warehouse.duckdb"),
        "OCR_BACKENDS": str(folder / f"{name}.toml"),
        "OCR_TEXT_LAYER": "never",
    }
    command = [sys.executable, "-m", "ocr_pipeline", "ingest", str(ROOT / "ocr_pipeline/samples/scanned-letter.pdf")]
    done = subprocess.run(command, env={**os.environ, **own}, cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_each_of_two_servers_is_asked_and_its_text_held_against_the_known_one(tmp_path: Path) -> None:
    with Fleet(bf16={"profile": "rtx-4090"}, awq={"profile": "rtx-4090"}) as fleet:
        for server in fleet:
            name = {fleet["bf16"].url: "bf16", fleet["awq"].url: "awq"}[server.url]
            (tmp_path / f"{name}.toml").write_text(backends_file(name, server))
            ingest(name, tmp_path)
            metrics = httpx.get(f"{server.url}/metrics", trust_env=False).text
            assert re.search(r'^vllm:request_success_total\{.*"stop".*\} 1\.0$', metrics, re.MULTILINE), (
                "it was not asked"
            )
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.accuracy_of_servers", "bf16", "awq"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    head, *pages, mean = done.stdout.splitlines()
    assert head.split()[1:] == ["bf16", "CER", "%", "s", "requests", "awq", "CER", "%", "s", "requests"]
    assert pages
    assert [page.split()[:2] for page in pages] == [["scanned-letter.pdf", "1"]]
    assert mean.split()[0] == "mean"
    assert len(mean.split()) == 3


def backends_file(name: str, server: SimulatedServer) -> str:
    """Both serve under the model's own name, so both have one recipe."""
    return f'[[backend]]\nname = "{name}"\nurl = "{server.url}"\ngpu = "rtx-4090"\nmodel = "deepseek-ai/DeepSeek-OCR"\n'
