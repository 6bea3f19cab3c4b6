"""A whole cluster on one machine, for tests: Debian's Postgres and Redis, Dagster's daemon and Celery workers, each a
process of its own on loopback, with the very files of deploy/celery. Started and stopped here; nothing is left behind.

As root each worker gets a host name of its own (a UTS namespace), so that the launcher takes it for another machine.
"""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg2
import pytest
import redis

from ocr_pipeline_tests.deploy.files import DEPLOY, free_port

NOBODY = 65534
BIN = Path(sys.executable).parent


def postgres_bin() -> Path | None:
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    return Path(found[-1]).parent if found else None


def require_servers() -> None:
    """Skips where Postgres or Redis is not installed; with OCR_TEST_CLUSTER set (.ci/cluster) that is a failure."""
    missing = [name for name, path in (("postgresql", postgres_bin()), ("redis-server", shutil.which("redis-server")))
               if not path]  # fmt: skip
    if missing:
        (pytest.fail if os.environ.get("OCR_TEST_CLUSTER") else pytest.skip)(f"not installed: {', '.join(missing)}")


class Cluster:
    """Use as a context. `environment` is what each of its processes gets, and what a test's own instance needs."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        # not pytest's folder: Postgres runs as nobody, who cannot pass through it
        self.folder = Path(tempfile.mkdtemp(prefix="ocr-cluster-"))
        self.folder.chmod(0o755)
        self.home = self.folder / "dagster"
        self.home.mkdir()
        self.logs = self.folder / "logs"
        self.logs.mkdir()
        for name in ("dagster.yaml", "workspace.yaml", "dagster_celery_config.py"):
            shutil.copy(DEPLOY / "celery" / name, self.home)
        self._password = secrets.token_urlsafe(16)
        self._pg_port, redis_port = free_port(), free_port()
        self._redis_port = redis_port
        self.environment = {
            **environment,
            "DAGSTER_HOME": str(self.home),
            "DAGSTER_PG_HOST": "127.0.0.1",
            "DAGSTER_PG_PORT": str(self._pg_port),
            "DAGSTER_PG_USERNAME": "dagster",
            "DAGSTER_PG_PASSWORD": self._password,
            "DAGSTER_PG_DB": "dagster",
            "OCR_CELERY_BROKER": f"redis://:{self._password}@127.0.0.1:{redis_port}/0",
            "OCR_CELERY_BACKEND": f"redis://:{self._password}@127.0.0.1:{redis_port}/1",
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Cluster:
        try:
            self._start_postgres()
            self._start_redis()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- processes

    def start(self, name: str, command: list[str], *, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        log = (self.logs / f"{name}.log").open("ab")
        with log:
            process = subprocess.Popen(
                command,
                env={**os.environ, **self.environment},
                cwd=cwd or self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes[name] = process
        return process

    def start_daemon(self) -> None:
        self.start("daemon", [str(BIN / "dagster-daemon"), "run", "-w", "workspace.yaml"])

    def start_worker(self, name: str, concurrency: int = 1) -> None:
        """A Celery worker; as root under a host name of its own."""
        command = [str(BIN / "celery"), "-A", "dagster_celery.app", "worker", "-n", f"{name}@%h", "-Q", "dagster",
                   "--concurrency", str(concurrency)]  # fmt: skip
        command = ["env", f"PYTHONPATH={self.home}", *command]
        if os.geteuid() == 0 and shutil.which("unshare"):
            command = ["unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', name, *command]
        self.start(name, command)

    def kill(self, name: str) -> None:
        """kill -9 of the process with all its children, as when its machine loses power."""
        process = self._processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)

    def stop(self, name: str) -> None:
        """SIGTERM to the main process alone, as systemd (KillMode=mixed) and containers do it; returns at once."""
        self._processes[name].terminate()

    def log(self, name: str) -> str:
        return (self.logs / f"{name}.log").read_text(errors="replace")

    def close(self) -> None:
        for name in reversed(list(self._processes)):
            process = self._processes.pop(name)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT if name == "postgres" else signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                pass
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(timeout=20)
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- the servers below Dagster

    def _start_postgres(self) -> None:
        found = postgres_bin()
        assert found is not None
        data = self.folder / "postgres"
        data.mkdir()
        secret = data / "password"
        secret.write_text(self._password)
        as_other: list[str] = []
        if os.geteuid() == 0:  # Postgres refuses to run as root
            os.chown(data, NOBODY, NOBODY)
            os.chown(secret, NOBODY, NOBODY)
            as_other = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        initdb = [str(found / "initdb"), "-D", str(data / "db"), "-U", "dagster", "--auth=scram-sha-256",
                  f"--pwfile={secret}", "-E", "UTF8", "--no-sync"]  # fmt: skip
        subprocess.run([*as_other, *initdb], check=True, capture_output=True, cwd=data)
        server = [str(found / "postgres"), "-D", str(data / "db"), "-p", str(self._pg_port), "-c",
                  "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={data}", "-c", "fsync=off"]  # fmt: skip
        self.start("postgres", [*as_other, *server], cwd=data)
        self._until("Postgres", self._make_database, psycopg2.OperationalError)

    def _make_database(self) -> None:
        connection = psycopg2.connect(
            host="127.0.0.1", port=self._pg_port, user="dagster", password=self._password, dbname="postgres"
        )
        connection.autocommit = True
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE dagster")

    def _start_redis(self) -> None:
        self.start("redis", ["redis-server", "--port", str(self._redis_port), "--bind", "127.0.0.1", "--save", "",
                             "--requirepass", self._password, "--dir", str(self.folder)])  # fmt: skip
        client = redis.Redis(port=self._redis_port, password=self._password)
        self._until("Redis", lambda: client.ping(), redis.ConnectionError)
        client.close()

    def _until(self, what: str, attempt: object, not_yet: type[Exception]) -> None:
        until = time.monotonic() + 60
        while True:
            try:
                attempt()  # type: ignore[operator]
                return
            except not_yet:
                if time.monotonic() > until:
                    raise TimeoutError(f"{what} does not answer; see {self.logs}") from None
                time.sleep(0.2)


@contextlib.contextmanager
def in_environment(environment: Mapping[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield
