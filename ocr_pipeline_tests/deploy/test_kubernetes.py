"""The manifests: valid for the Kubernetes versions named, at one with each other, and what Dagster makes of them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from ocr_pipeline_tests.deploy.files import DEPLOY, load, load_all, needs

pytestmark = pytest.mark.cluster
needs("kubernetes_validate", "dagster_k8s", "dagster_postgres")

import kubernetes_validate  # noqa: E402
from dagster._core.instance.ref import InstanceRef  # noqa: E402
from dagster._core.storage.dagster_run import DagsterRun  # noqa: E402
from dagster_k8s import K8sRunLauncher  # noqa: E402
from dagster_k8s.container_context import K8sContainerContext  # noqa: E402
from dagster_k8s.job import construct_dagster_k8s_job  # noqa: E402
from kubernetes.client import ApiClient  # noqa: E402

from ocr_pipeline.ocr.vllm.backends_file import load_backends  # noqa: E402

VERSIONS = ["1.32", "1.33", "1.34", "1.35", "1.36", "1.37"]
FOLDER = DEPLOY / "kubernetes"
FILES = sorted(path.name for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml")
OURS = "registry.example/ocr-pipeline"


def documents() -> list[Any]:
    return [document for name in FILES for document in load_all(f"kubernetes/{name}")]


def pod_specs() -> list[tuple[str, dict[str, Any]]]:
    return [
        (document["metadata"]["name"], document["spec"]["template"]["spec"])
        for document in documents()
        if document["kind"] in ("Deployment", "StatefulSet")
    ]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", FILES)
def test_each_manifest_is_valid_for_each_version(name: str, version: str) -> None:
    for document in load_all(f"kubernetes/{name}"):
        kubernetes_validate.validate(document, version, strict=True)


def test_a_field_that_is_no_field_would_be_found() -> None:
    document = load("kubernetes/namespace.yaml")
    document["spec"] = {"finaliser": []}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, VERSIONS[0], strict=True)


def test_what_is_applied_is_every_file_but_the_secrets() -> None:
    listed = set(load("kubernetes/kustomization.yaml")["resources"])
    assert listed == set(FILES) - {"secrets.example.yaml"}


def test_secrets_config_maps_and_claims_that_pods_name_exist() -> None:
    there = {(d["kind"], d["metadata"]["name"]) for d in documents()} | {("Secret", "cloudflared")}
    keys = {d["metadata"]["name"]: set(d["stringData"]) for d in documents() if d["kind"] == "Secret"}
    for name, spec in pod_specs():
        for volume in spec.get("volumes", []):
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in there, name
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in there, name
        for container in spec["containers"]:
            for source in container.get("envFrom", []):
                (kind, reference), *_ = ((k.removesuffix("Ref"), v) for k, v in source.items())
                assert (kind[0].upper() + kind[1:], reference["name"]) in there, name
            for variable in container.get("env", []):
                if secret := variable.get("valueFrom", {}).get("secretKeyRef"):
                    assert secret["name"] == "cloudflared" or secret["key"] in keys[secret["name"]], name


def test_no_secret_is_in_a_manifest() -> None:
    for document in documents():
        if document["kind"] == "Secret":
            assert set(document["stringData"].values()) == {""}


def test_pods_may_do_nothing_that_they_need_not() -> None:
    for name, spec in pod_specs():
        if name != "postgres":
            for container in spec["containers"]:
                assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
                assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
        if spec.get("serviceAccountName") is None:
            assert spec["automountServiceAccountToken"] is False, name


def test_our_image_runs_on_the_architecture_it_was_built_for() -> None:
    for name, spec in pod_specs():
        if any(container["image"].startswith(OURS) for container in spec["containers"]):
            assert spec["nodeSelector"] == {"kubernetes.io/arch": "amd64"}, name


def test_whoever_serves_the_ui_has_a_token_and_the_one_for_viewers_allows_nothing() -> None:
    """Dagster's launcher reads it when the UI asks about the instance; without a token that is an error."""
    specs = dict(pod_specs())
    allowed = {s["name"] for d in documents() if d["kind"] == "RoleBinding" for s in d["subjects"]}
    accounts = {d["metadata"]["name"]: d for d in documents() if d["kind"] == "ServiceAccount"}
    for name in ("webserver", "webserver-read-only"):
        account = accounts[specs[name]["serviceAccountName"]]
        assert account.get("automountServiceAccountToken", True), name
        assert specs[name].get("automountServiceAccountToken", True), name
    assert specs["webserver-read-only"]["serviceAccountName"] not in allowed


def test_a_daemon_that_does_nothing_is_started_anew() -> None:
    (container,) = dict(pod_specs())["daemon"]["containers"]
    assert container["livenessProbe"]["exec"]["command"] == ["dagster-daemon", "liveness-check"]


def test_what_is_drawn_goes_to_the_volume_whose_size_is_limited() -> None:
    maps = {d["metadata"]["name"]: d["data"] for d in documents() if d["kind"] == "ConfigMap"}
    launcher = yaml.safe_load(maps["dagster-instance"]["dagster.yaml"])["run_launcher"]["config"]
    (scratch,) = [mount["mountPath"] for mount in launcher["volume_mounts"] if mount["name"] == "scratch"]
    assert maps["ocr-environment"]["TMPDIR"] == scratch


def test_viewers_get_a_webserver_that_only_reads_and_there_is_one_daemon() -> None:
    specs = dict(pod_specs())
    assert "--read-only" in specs["webserver-read-only"]["containers"][0]["args"]
    daemon = next(d for d in documents() if d["kind"] == "Deployment" and d["metadata"]["name"] == "daemon")
    assert daemon["spec"]["replicas"] == 1
    assert daemon["spec"]["strategy"] == {"type": "Recreate"}
    assert not [d for d in documents() if d["kind"] == "Ingress"]  # the way in is the tunnel, with Access before it
    assert all(d["spec"].get("type", "ClusterIP") == "ClusterIP" for d in documents() if d["kind"] == "Service")


def test_the_tunnel_of_the_cluster_leads_to_a_port_of_a_service_for_each_name_of_the_other_tunnel() -> None:
    open_at = {
        f"http://{d['metadata']['name']}:{p['port']}"
        for d in documents()
        if d["kind"] == "Service"
        for p in d["spec"]["ports"]
    }
    rows = re.findall(
        r"^\| `([\w.-]+)`.*`(http://\S+)` \|$", (DEPLOY / "tunnel" / "README.md").read_text(), re.MULTILINE
    )
    assert {service for _, service in rows} <= open_at
    *rules, _ = load("tunnel/config.yml")["ingress"]
    assert {name for name, _ in rows} == {rule["hostname"] for rule in rules}


def test_every_deployment_of_ours_is_named_where_it_is_told_how_to_restart_them() -> None:
    (told,) = re.findall(r"rollout restart (.*)", (FOLDER / "README.md").read_text())
    ours = {name for name, spec in pod_specs() if spec["containers"][0]["image"].startswith(OURS)}
    assert set(told.split()) == {f"deploy/{name}" for name in ours}


@pytest.fixture
def launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> K8sRunLauncher:
    """The run launcher of the instance that stands in config.yaml, as a daemon inside the cluster would load it."""
    config = load("kubernetes/config.yaml")["data"]
    (tmp_path / "dagster.yaml").write_text(config["dagster.yaml"])
    monkeypatch.setattr("kubernetes.config.load_incluster_config", lambda: None)  # there is no cluster here
    reference = InstanceRef.from_dir(str(tmp_path))
    launcher = reference.run_launcher
    assert isinstance(launcher, K8sRunLauncher)
    return launcher


def test_the_job_that_dagster_would_start_for_a_run_is_valid(launcher: K8sRunLauncher) -> None:
    context = K8sContainerContext.create_for_run(DagsterRun(job_name="process_batch"), launcher, include_run_tags=True)
    job = construct_dagster_k8s_job(
        job_config=context.get_k8s_job_config(job_image=None, run_launcher=launcher),
        args=["dagster", "api", "execute_run", "..."],
        job_name="dagster-run-1",
        pod_name="dagster-run-1",
        component="run_worker",
        user_defined_k8s_config=context.run_k8s_config,
    )
    manifest = ApiClient().sanitize_for_serialization(job)
    for version in VERSIONS:
        kubernetes_validate.validate(manifest, version, strict=True)
    spec = manifest["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["serviceAccountName"] == "dagster-run"
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
    assert container["image"].partition(":")[0] == OURS
    assert {source.get("secretRef", source.get("configMapRef"))["name"] for source in container["envFrom"]} == {
        "ocr-environment",
        "ocr-secrets",
    }
    assert {"/etc/ocr-pipeline", "/var/lib/ocr-pipeline"} <= {mount["mountPath"] for mount in container["volumeMounts"]}
    assert manifest["spec"]["backoffLimit"] == 0  # Dagster itself starts a lost run again


def test_our_image_has_one_version_everywhere() -> None:
    config = load("kubernetes/config.yaml")["data"]["dagster.yaml"]
    images = {yaml.safe_load(config)["run_launcher"]["config"]["job_image"]}
    for _, spec in pod_specs():
        for container in spec["containers"]:
            images |= {container["image"]} if container["image"].startswith(OURS) else set()
            images |= {v["value"] for v in container.get("env", []) if v["name"] == "DAGSTER_CURRENT_IMAGE"}
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    assert images == {f"{OURS}:{project['version']}"}


def test_the_list_of_servers_is_read_as_the_pods_would_read_it(tmp_path: Path) -> None:
    maps = {d["metadata"]["name"]: d["data"] for d in documents() if d["kind"] == "ConfigMap"}
    secrets = {key for d in documents() if d["kind"] == "Secret" for key in d["stringData"]}
    path = tmp_path / "backends.toml"
    path.write_text(maps["ocr-backends"]["backends.toml"])
    config = load_backends(path, lambda name: "secret" if name in secrets else None)
    services = {d["metadata"]["name"] for d in documents() if d["kind"] == "Service"}
    inside = [backend for backend in config.backends if not backend.url.endswith(".example")]
    assert [backend.url for backend in inside] == ["http://vllm-rtx-4090:8000"]
    assert "vllm-rtx-4090" in services
