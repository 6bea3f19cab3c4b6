"""`ocr-pipeline doctor` as a user runs it, against a good server and against one without the logits processor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ocr_pipeline_tests.vllm_contract.conftest import BackendsFileOf
from ocr_pipeline_tests.vllm_contract.servers import LAB_KEY, ServerUnderTest

pytestmark = pytest.mark.slow  # each starts the command, 3 s and more


def _doctor(backends: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("OCR_", "R2_", "MOTHERDUCK"))}
    data = str(backends.parent / "data")
    return subprocess.run(
        [sys.executable, "-m", "ocr_pipeline", "doctor", *flags],
        env={**ours, "OCR_DATA": data, "OCR_BACKENDS": str(backends), "LAB_KEY": LAB_KEY},
        cwd=backends.parent,
        capture_output=True,
        text=True,
        timeout=240,
    )


def _backend_checks(run: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    checks = json.loads(run.stdout)["checks"]
    return {check["name"].removeprefix("lab: "): check for check in checks if check["name"].startswith("lab: ")}


def test_doctor_is_green_for_a_good_server(server: ServerUnderTest, backends_file_of: BackendsFileOf) -> None:
    run = _doctor(backends_file_of(server), "--json")
    checks = _backend_checks(run)
    assert list(checks) == ["reachable", "model", "max_model_len", "vLLM", "logits processor", "sample page", "tags"]
    assert [name for name, check in checks.items() if not check["ok"]] == []
    assert (run.returncode, json.loads(run.stdout)["ok"]) == (0, True), run.stdout


def test_doctor_is_red_without_the_logits_processor_and_says_how_to_start_the_server(
    plain_server: ServerUnderTest, backends_file_of: BackendsFileOf
) -> None:
    run = _doctor(backends_file_of(plain_server), "--json")
    checks = _backend_checks(run)
    assert [name for name, check in checks.items() if not check["ok"]] == ["logits processor"]
    mend = checks["logits processor"]["mend"]
    assert "--logits-processors vllm.model_executor.models.deepseek_ocr:NGramPerReqLogitsProcessor" in mend
    assert run.returncode == 1


def test_doctor_tells_people_the_same_in_lines(plain_server: ServerUnderTest, backends_file_of: BackendsFileOf) -> None:
    run = _doctor(backends_file_of(plain_server))
    lines = run.stdout.splitlines()
    [failed] = [at for at, line in enumerate(lines) if line.startswith("FAIL")]
    assert lines[failed].startswith("FAIL lab: logits processor: not loaded")
    assert lines[failed + 1].lstrip().startswith("mend: start it with --logits-processors ")
    assert LAB_KEY not in run.stdout
