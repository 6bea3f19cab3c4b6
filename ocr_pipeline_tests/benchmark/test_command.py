"""`ocr-pipeline benchmark` on simulated servers: it finds the slots that a server has, and says what failed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ocr_pipeline_tests.pdfs import numbered
from ocr_pipeline_tests.simulator.fleet import Fleet


def benchmark(folder: Path, toml: str | None, *arguments: str) -> tuple[int, str, str]:
    environment = {**os.environ, "OCR_DATA": str(folder / "data")}
    environment.pop("OCR_BACKENDS", None)
    if toml is not None:
        (folder / "backends.toml").write_text(toml)
        environment["OCR_BACKENDS"] = str(folder / "backends.toml")
    (folder / "paper.pdf").write_bytes(numbered(6))
    command = [sys.executable, "-m", "ocr_pipeline", "benchmark", str(folder / "paper.pdf"), *arguments]
    done = subprocess.run(
        [*command, "--out", str(folder / "out")],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


def test_no_fewer_in_flight_than_the_server_has_slots_are_recommended(tmp_path: Path) -> None:
    servers = Fleet(gpu={"profile": "dgx-spark", "max_num_seqs": 4, "seconds_per_page": 0.4, "mean_tokens": 60})
    with servers:
        toml = servers.backends_toml(max_in_flight=2)
        code, out, err = benchmark(tmp_path, toml, "--json", "--pages", "8", "--most", "8", "--price", "gpu=0.36")
        pages = servers["gpu"].stats().pages
    assert code == 0, err
    (said,) = json.loads(out)["backends"]
    # a busy machine answers so late that more in flight than slots gain something: never fewer than the slots
    assert said["recommended_max_in_flight"] in (4, 8)
    assert said["max_in_flight_now"] == 2
    assert said["cost_per_1000_pages"] > 0
    assert [step["in_flight"] for step in said["steps"]] == [1, 2, 4, 8]
    assert all(step["failures"] == {} for step in said["steps"])
    assert max(page.asked for page in pages.values()) == 1, "an image was sent twice: the server's cache was measured"
    assert json.loads((tmp_path / "out" / "benchmark.json").read_text()) == json.loads(out)
    ElementTree.parse(tmp_path / "out" / "benchmark.svg")
    assert not (tmp_path / "data").exists()


def test_a_server_that_fails_has_no_recommendation_and_its_failures_are_counted(tmp_path: Path) -> None:
    servers = Fleet(gpu={"max_num_seqs": 2, "seconds_per_page": 0.05, "faults": {"storm_503": {"for_seconds": 600}}})
    with servers:
        code, out, err = benchmark(tmp_path, servers.backends_toml(), "--json", "--pages", "4")
    assert code == 1, err
    (said,) = json.loads(out)["backends"]
    assert said["recommended_max_in_flight"] is None
    assert said["steps"][0]["failures"]["http_503"] == said["steps"][0]["requests"]
    assert len(said["steps"]) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [((), "OCR_BACKENDS"), (("--price", "none=1"), "--price none=1"), (("--most", "0"), "--most")],
)
def test_usage_is_exit_code_2_and_one_sentence(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    toml = (
        '[[backend]]\nname = "gpu"\nurl = "http://127.0.0.1:1"\ngpu = "rtx-4090"\nmodel = "deepseek-ai/DeepSeek-OCR"\n'
    )
    code, out, err = benchmark(tmp_path, toml if arguments else None, *arguments)
    assert (code, out) == (2, "")
    assert told in err
    assert "Traceback" not in err
