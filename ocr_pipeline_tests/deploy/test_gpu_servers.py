"""The files that start vLLM say what the client's profiles count on: flags, release, model, protection."""

from __future__ import annotations

from typing import Any

import pytest

from ocr_pipeline.ocr.vllm.gpus import GPUS
from ocr_pipeline.ocr.vllm.models import DEEPSEEK_OCR
from ocr_pipeline.ocr.vllm.serve import serve_command
from ocr_pipeline_tests.deploy.files import DEPLOY, filled_in, flags, load, load_all

OF_THE_FILES_ALONE = {"--shutdown-timeout"}
"""Flags that say nothing about how pages are read, so no profile has them."""

MACHINES = sorted(GPUS)


def compose_service(machine: str) -> dict[str, Any]:
    service: dict[str, Any] = load(f"gpu/compose.{machine}.yaml")["services"]["vllm"]
    return service


def kubernetes_container(machine: str) -> dict[str, Any]:
    for document in load_all(f"kubernetes/vllm-{machine}.yaml"):
        if document["kind"] == "Deployment":
            container: dict[str, Any] = document["spec"]["template"]["spec"]["containers"][0]
            return container
    raise AssertionError("no Deployment")


def started_by(machine: str, where: str) -> tuple[list[str], dict[str, str], str]:
    """Words after `vllm serve`, environment, image."""
    if where == "compose":
        service = compose_service(machine)
        assert service["entrypoint"] == ["vllm", "serve"]
        return service["command"], service["environment"], filled_in(service["image"])
    container = kubernetes_container(machine)
    assert container["command"] == ["vllm", "serve"]
    environment = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    return container["args"], environment, container["image"]


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
@pytest.mark.parametrize("machine", MACHINES)
def test_the_files_start_vllm_with_the_flags_of_the_profile_and_no_others(machine: str, where: str) -> None:
    words, environment, _ = started_by(machine, where)
    command = serve_command(GPUS[machine], DEEPSEEK_OCR)
    assert words[0] == command.argv[2]
    in_file = {name: value for name, value in flags(words[1:]).items() if name not in OF_THE_FILES_ALONE}
    assert in_file == flags(command.argv[3:])
    assert command.env.items() <= environment.items()


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
@pytest.mark.parametrize("machine", MACHINES)
def test_the_image_is_the_release_that_the_profile_pins(machine: str, where: str) -> None:
    _, _, image = started_by(machine, where)
    assert image == f"docker.io/vllm/vllm-openai:v{GPUS[machine].pinned_vllm}"


def test_the_image_with_the_model_inside_has_the_same_release_model_and_revision() -> None:
    text = (DEPLOY / "gpu/Dockerfile").read_text()
    (pinned,) = {profile.pinned_vllm for profile in GPUS.values()}
    assert f"FROM docker.io/vllm/vllm-openai:v{pinned}\n" in text
    assert f"ARG MODEL={DEEPSEEK_OCR.model}\n" in text
    assert f"ARG REVISION={DEEPSEEK_OCR.revision}\n" in text


@pytest.mark.parametrize("machine", MACHINES)
def test_a_server_is_guarded_restarted_and_open_to_its_own_machine_only(machine: str) -> None:
    service = compose_service(machine)
    assert service["restart"] == "always"  # a dead engine can exit with code 0
    assert service["init"] is True  # else nothing inside could end a hung server
    assert "--end-a-hung-server" in service["healthcheck"]["test"]
    assert service["environment"]["VLLM_API_KEY"].startswith("${VLLM_API_KEY:?")  # unset: Compose refuses to start
    assert [filled_in(port) for port in service["ports"]] == ["127.0.0.1:8000:8000"]
    assert service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("machine", MACHINES)
def test_in_kubernetes_a_hung_server_is_restarted_too(machine: str) -> None:
    container = kubernetes_container(machine)
    assert container["livenessProbe"]["exec"]["command"][:2] == ["python3", "/opt/ocr/health.py"]
    key = next(entry for entry in container["env"] if entry["name"] == "VLLM_API_KEY")
    assert "secretKeyRef" in key["valueFrom"]


def test_the_liveness_probe_runs_the_same_health_check() -> None:
    assert load("kubernetes/vllm-health.yaml")["data"]["health.py"] == (DEPLOY / "gpu/health.py").read_text()
