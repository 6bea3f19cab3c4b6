"""Compose files, systemd units, tunnel, the cluster's settings: they parse, and they are at one with each other."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from ocr_pipeline_tests.deploy.files import DEPLOY, filled_in, load, load_all, missing

COMPOSE = sorted(str(path.relative_to(DEPLOY)) for path in DEPLOY.glob("*/compose*.yaml"))
UNITS = sorted((DEPLOY / "celery/systemd").glob("*.service"))
PRIVATE = re.compile(r"\b(10\.\d+|192\.168|172\.(1[6-9]|2\d|3[01]))\.\d+\.\d+\b")


@pytest.mark.parametrize("name", COMPOSE)
def test_what_a_service_opens_it_opens_on_loopback_unless_told_otherwise(name: str) -> None:
    for service, settings in load(name)["services"].items():
        for port in settings.get("ports", []):
            assert filled_in(port).startswith("127.0.0.1:"), f"{name} {service}"
        assert settings["restart"] == "always", f"{name} {service}"
        assert not re.search(r":(latest)?$|^[^:]*$", filled_in(settings["image"])), (
            f"{name} {service}: no release named"
        )


@pytest.mark.cluster  # .ci/cluster installs a client
@pytest.mark.parametrize("name", COMPOSE)
def test_compose_takes_the_file(name: str, tmp_path: Path) -> None:
    client = next(
        ([*words] for words in (("docker", "compose"), ("docker-compose",)) if _runs([*words, "version"])), None
    )
    if client is None:
        missing("no Compose client is installed")
    folder = tmp_path / "deploy"
    shutil.copytree((DEPLOY / name).parent, folder)
    (folder / ".env").write_text("VLLM_API_KEY=x\nDAGSTER_PG_PASSWORD=x\nREDIS_PASSWORD=x\nGRAFANA_PASSWORD=x\n")
    done = subprocess.run([*client, "-f", Path(name).name, "config", "-q"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _runs(command: list[str]) -> bool:
    return shutil.which(command[0]) is not None and subprocess.run(command, capture_output=True).returncode == 0


def test_every_folder_that_a_volume_is_put_on_belongs_to_the_user_of_the_image() -> None:
    (made,) = re.findall(r"install -d -o ocr -g ocr ([^\n]+)", (DEPLOY / "Dockerfile").read_text())
    compose = load("celery/compose.yaml")
    for service, settings in compose["services"].items():
        for volume in settings["volumes"] if "ocr-pipeline" in settings["image"] else []:
            source, target, *_ = filled_in(volume).split(":")
            if source in compose["volumes"]:
                assert target in made.split(), f"{service}: {target} would be root's, and the process is not root"


def variables(name: str) -> dict[str, str]:
    """What an example of an environment file sets."""
    return dict(line.split("=", 1) for line in (DEPLOY / name).read_text().splitlines() if re.match(r"\w+=", line))


@pytest.mark.parametrize("name", COMPOSE)
def test_every_address_to_listen_on_is_in_the_example_of_the_environment_and_explained(name: str) -> None:
    folder = (DEPLOY / name).parent
    for bind in set(re.findall(r"\$\{(\w+_BIND)", (DEPLOY / name).read_text())):
        assert variables(f"{folder.name}/env.example")[bind] == "127.0.0.1", bind


def test_prometheus_reaches_each_port_that_its_targets_name_once_the_address_is_set() -> None:
    """It runs in a container or on another machine: a port that is on loopback whatever one sets is no target."""
    opened = {
        filled_in(port).split(":")[1]: port
        for name in COMPOSE
        for settings in load(name)["services"].values()
        for port in settings.get("ports", [])
    }
    for path in sorted((DEPLOY / "monitoring/targets").glob("*.yml")):
        for group in load(f"monitoring/targets/{path.name}"):
            for target in group["targets"]:
                assert re.match(r"\$\{\w+_BIND:-127\.0\.0\.1\}:", opened[target.rpartition(":")[2]]), target
    unit = (DEPLOY / "celery/systemd/ocr-metrics.service").read_text()
    given = unit.index("EnvironmentFile=")
    assert unit.index("Environment=METRICS_BIND=127.0.0.1") < given  # the file's value wins over one before it
    assert "ocr-pipeline metrics --host ${METRICS_BIND}\n" in unit


def test_every_backend_whose_server_demands_a_key_names_one_that_the_examples_have() -> None:
    demanding = {
        path.stem.removeprefix("compose.")
        for path in DEPLOY.glob("gpu/compose.*.yaml")
        if "VLLM_API_KEY: ${VLLM_API_KEY:?" in path.read_text()
    }
    assert demanding == {"rtx-4090", "dgx-spark"}
    secrets = load("kubernetes/secrets.example.yaml")["stringData"]
    cluster = next(m for m in load_all("kubernetes/config.yaml") if m["metadata"]["name"] == "ocr-backends")
    for text, known in (
        ((DEPLOY / "backends.example.toml").read_text(), variables("celery/env.example")),
        (cluster["data"]["backends.toml"], secrets),
    ):
        for backend in tomllib.loads(text)["backend"]:
            if backend["gpu"] in demanding:
                assert backend.get("api_key_env") in known, backend["name"]


@pytest.mark.parametrize("name", COMPOSE)
def test_no_secret_stands_on_a_command_line(name: str) -> None:
    for service, settings in load(name)["services"].items():
        words = " ".join(settings.get("command", []))
        assert not re.search(r"(?<!\$)\$\{\w*(PASSWORD|KEY|TOKEN|SECRET)", words), f"{name} {service}"


@pytest.mark.cluster
def test_redis_takes_its_password_from_the_file_that_its_command_writes(tmp_path: Path) -> None:
    redis = load("celery/compose.yaml")["services"]["redis"]
    shell, option, line = redis["command"]
    line = line.replace("$$", "$").replace("/tmp/redis.conf", shlex.quote(str(tmp_path / "redis.conf")))
    line = line.replace("exec redis-server", "exec echo")  # what it would be started with
    subprocess.run([shell, option, line], env={**os.environ, "REDIS_PASSWORD": "hushhush"}, check=True)
    assert (tmp_path / "redis.conf").read_text() == "appendonly yes\nrequirepass hushhush\n"
    assert (tmp_path / "redis.conf").stat().st_mode & 0o077 == 0


def test_secrets_of_a_compose_file_must_be_set() -> None:
    for name in COMPOSE:
        for variable in re.findall(r"\$\{(\w*(?:PASSWORD|KEY|TOKEN)\w*)([^}]*)\}", (DEPLOY / name).read_text()):
            assert variable[1].startswith(":?"), f"{name}: {variable[0]} has a default"


@pytest.mark.cluster  # .ci/cluster installs systemd-analyze
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: str(unit.stem))
def test_systemd_takes_the_unit(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        missing("systemd-analyze is not installed")
    text = unit.read_text().replace("/opt/ocr-pipeline/.venv/bin/", "/bin/true ")  # the program is not installed here
    (tmp_path / unit.name).write_text(text.replace("EnvironmentFile=/", "EnvironmentFile=-/"))
    done = subprocess.run(["systemd-analyze", "verify", str(tmp_path / unit.name)], capture_output=True, text=True)
    told = [line for line in done.stderr.splitlines() if unit.name in line]
    assert not told, done.stderr


def test_each_port_that_the_tunnel_leads_to_is_opened_by_a_service_of_a_compose_file_and_by_a_unit() -> None:
    led_to = {rule["service"].rpartition(":")[2] for rule in load("tunnel/config.yml")["ingress"][:-1]}
    opened = {
        filled_in(port).split(":")[1]
        for name in COMPOSE
        for service in load(name)["services"].values()
        for port in service.get("ports", [])
    }
    assert led_to <= opened
    units = "".join(unit.read_text() for unit in UNITS)
    assert led_to - {"8000"} <= {
        *re.findall(r" -p (\d+)", units),
        *("8400" for _ in re.findall(r"ocr-pipeline review\n", units)),
    }


def test_workers_are_told_to_stop_so_that_their_runs_end_first() -> None:
    unit = (DEPLOY / "celery/systemd/ocr-worker.service").read_text()
    assert "\nKillMode=mixed\n" in unit
    assert "dagster-celery worker" not in unit  # it would die first and take them with it
    assert load("celery/compose.yaml")["services"]["worker"]["command"][0] == "celery"


def test_launcher_and_workers_agree_on_broker_results_and_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCR_CELERY_BROKER", "redis://broker.example/0")
    monkeypatch.setenv("OCR_CELERY_BACKEND", "redis://broker.example/1")
    worker: dict[str, object] = {}
    exec((DEPLOY / "celery/dagster_celery_config.py").read_text(), worker)
    instance = load("celery/dagster.yaml")
    launcher = instance["run_launcher"]["config"]
    assert launcher["config_source"]["result_expires"] == worker["result_expires"]
    assert launcher["config_source"]["broker_transport_options"] == worker["broker_transport_options"]
    assert worker["worker_disable_prefetch"] is True
    assert instance["concurrency"]["runs"]["max_concurrent_runs"] % 2 == 0  # workers of two places each


def test_every_way_to_run_dagster_starts_lost_runs_again_and_no_failed_step() -> None:
    instances = {
        "laptop": yaml.safe_load((DEPLOY.parent / "dagster.yaml").read_text()),
        "celery": load("celery/dagster.yaml"),
        "kubernetes": yaml.safe_load(load("kubernetes/config.yaml")["data"]["dagster.yaml"]),
    }
    for name, instance in instances.items():
        assert instance["run_monitoring"]["enabled"] is True, name
        assert instance["run_retries"] == {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False}
        assert instance["telemetry"]["enabled"] is False, name


def test_the_tunnel_leads_nowhere_without_access_and_to_nothing_but_what_is_listed() -> None:
    *rules, last = load("tunnel/config.yml")["ingress"]
    assert last == {"service": "http_status:404"}
    for rule in rules:
        assert rule["service"].startswith("http://127.0.0.1:"), rule
        assert rule["originRequest"]["access"]["required"] is True, rule
    assert len({rule["originRequest"]["access"]["audTag"][0] for rule in rules}) == len(rules)  # one an application
    gpu = rules[0]["path"]
    for path in ("/v1/chat/completions", "/v1/models", "/health", "/metrics"):  # what the client asks
        assert re.search(gpu, path), path
    for path in ("/docs", "/tokenize", "/v1/completions", "/sleep", "/v1/models/x", "/x/health"):
        assert not re.search(gpu, path), path


def test_no_address_of_somebodys_network_is_in_a_file() -> None:
    for path in DEPLOY.rglob("*"):
        if path.is_file() and "upload-worker" not in path.parts and path.suffix != ".pyc":
            found = PRIVATE.search(path.read_text())
            assert found is None, f"{path.name}: {found}"
