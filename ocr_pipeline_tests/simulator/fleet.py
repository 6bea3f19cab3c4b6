"""Simulated servers as a test or a benchmark holds them: start, kill, restart, faults, figures.

Each server is a process of its own on 127.0.0.1. It ends with the process that started it, even if that is killed.
Only the standard library and the tally: nothing of the server is imported here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Self

from ocr_pipeline_tests.simulator.faults import PAGE_FAULTS
from ocr_pipeline_tests.simulator.tally import Tally, read_journal

_ROOT = Path(__file__).resolve().parents[2]


class SimulatedServer:
    """One server. Options are those of `Options` by name: SimulatedServer(profile="dgx-spark", speed=20)."""

    def __init__(self, *, faults: Mapping[str, Any] | None = None, **options: Any) -> None:
        self._options = options
        self._faults: dict[str, Any] = dict(faults or {})  # given again at a restart
        self._scratch = tempfile.TemporaryDirectory(prefix="simulated-vllm-")
        self._journal = Path(self._scratch.name) / "journal.jsonl"
        self._process: subprocess.Popen[str] | None = None
        self._port = int(options.get("port", 0))
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._keeper: threading.Thread | None = None
        self._final: Tally | None = None

    # ---- life

    def start(self) -> Self:
        """Starts the process and returns when it listens. After a kill: again on the same port."""
        with self._lock:
            if self.alive:
                return self
            command = [sys.executable, "-m", "ocr_pipeline_tests.simulator", "--until-stdin-closes", *self._flags()]
            command += ["--journal", str(self._journal), "--faults", json.dumps(self._faults)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT
            )
            assert self._process.stdout is not None
            line = self._process.stdout.readline().strip()
            if not line.startswith("http://"):
                raise RuntimeError(f"the simulated server did not start: {' '.join(command)}")
            self._port = int(line.rsplit(":", 1)[1])
        return self

    def _flags(self) -> list[str]:
        flags: list[str] = []
        for name, value in {**self._options, "port": self._port}.items():
            flag = "--" + name.replace("_", "-")
            if name == "logits_processor":
                flags += [] if value else ["--no-logits-processor"]
            elif isinstance(value, bool):
                flags += [flag] if value else []
            elif value is not None:
                flags += [flag, str(value)]
        return flags

    def kill(self) -> None:
        """SIGKILL, as when the machine goes: every connection is lost."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM: those in flight get a 500."""
        self._end(signal.SIGTERM)

    def _end(self, signum: int) -> None:
        process = self._process
        if process is not None:
            if process.poll() is None:
                process.send_signal(signum)
            process.wait(timeout=10)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def restart(self) -> Self:
        self.kill()
        return self.start()

    def restart_after(self, seconds: float) -> threading.Timer:
        """Starts it again that much later, if it is dead by then and this object is still open."""
        timer = threading.Timer(seconds, self._start_unless_closing)
        timer.daemon = True
        timer.start()
        return timer

    def keep_alive(self, seconds_down: float) -> Self:
        """From now on each death is followed by a restart that much later, as systemd's Restart=always does it."""

        def keep() -> None:
            while not self._closing.wait(0.02):
                if not self.alive and not self._closing.wait(seconds_down):
                    self._start_unless_closing()

        self._keeper = threading.Thread(target=keep, daemon=True, name="keep-simulated-server-alive")
        self._keeper.start()
        return self

    def _start_unless_closing(self) -> None:
        if not self._closing.is_set():
            self.start()

    def wait_for_death(self, timeout: float = 10.0) -> int:
        """Returns the exit code. TimeoutExpired if it lives on."""
        assert self._process is not None
        return self._process.wait(timeout=timeout)

    def close(self) -> None:
        self._closing.set()
        if self._keeper is not None:
            self._keeper.join()
        with self._lock:
            self.kill()
        self._final = self.stats()
        self._scratch.cleanup()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- what is seen of it

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        return self._port

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self.alive else None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def ready(self, timeout: float = 10.0) -> Self:
        """Returns when /health is 200. TimeoutError otherwise."""
        until = monotonic() + timeout
        pause = threading.Event()
        while True:
            try:
                self._call("GET", "/health")
                return self
            except OSError:
                if monotonic() > until:
                    raise TimeoutError(f"{self.url} is not ready after {timeout} s") from None
                pause.wait(0.02)

    def stats(self) -> Tally:
        """The figures of all lives of this server together, from its journal; it may be dead or closed."""
        if self._final is not None:
            return self._final
        return read_journal(self._journal) if self._journal.exists() else Tally()

    def cpu_seconds(self) -> float:
        """CPU time that the present process has used. Linux only."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    # ---- faults

    def set_faults(self, **faults: Any) -> None:
        """As POST /sim/faults: server.set_faults(storm_503={"for_seconds": 60}, hang=None).

        Faults of pages (loops, empty, garbage, poison) are given again at a restart, the others are not.
        """
        self._faults.update({name: value for name, value in faults.items() if name in PAGE_FAULTS})
        self._call("POST", "/sim/faults", faults)

    def clear_faults(self) -> None:
        self._faults.clear()
        self._call("DELETE", "/sim/faults")

    def _call(self, method: str, path: str, body: Any = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        try:
            with _OPENER.open(request, timeout=10) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            if error.code == 400:
                raise ValueError(error.read().decode()) from None
            raise


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Fleet:
    """Several servers by name: Fleet(rtx4090={"profile": "rtx-4090"}, spark={"profile": "dgx-spark", "speed": 10})."""

    def __init__(self, **servers: Mapping[str, Any]) -> None:
        self._servers = {name: SimulatedServer(**options) for name, options in servers.items()}
        self._profiles = {name: str(options.get("profile", "rtx-4090")) for name, options in servers.items()}

    def __enter__(self) -> Self:
        try:
            with ThreadPoolExecutor(len(self)) as pool:
                list(pool.map(lambda server: server.start().ready(), self))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for server in self:
            server.close()

    def __getitem__(self, name: str) -> SimulatedServer:
        return self._servers[name]

    def __iter__(self) -> Iterator[SimulatedServer]:
        return iter(self._servers.values())

    def __len__(self) -> int:
        return len(self._servers)

    def stats(self) -> dict[str, Tally]:
        return {name: server.stats() for name, server in self._servers.items()}

    def backends_toml(self, policy: str = "hybrid", **overrides: object) -> str:
        """The text of a backends file (`OCR_BACKENDS`) that lists this fleet; overrides go to every backend."""
        lines = [f'policy = "{policy}"']
        for name, server in self._servers.items():
            gpu = self._profiles[name].removesuffix("-as-asked")
            lines += ["", "[[backend]]", f'name = "{name}"', f'url = "{server.url}"', f'gpu = "{gpu}"',
                      'model = "deepseek-ai/DeepSeek-OCR"']  # fmt: skip
            lines += [f"{key} = {json.dumps(value)}" for key, value in overrides.items()]
        return "\n".join(lines) + "\n"
