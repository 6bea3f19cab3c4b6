"""Ctrl-C while the store has stopped answering: told what is waited for, and a second one ends the command at once."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ocr_pipeline.lake.s3 import S3Storage
from ocr_pipeline_tests.pdfs import numbered
from ocr_pipeline_tests.storages import RunningStore
from ocr_pipeline_tests.whole.command import start

pytestmark = pytest.mark.timeout(120)


_METHODS = (b"GET ", b"HEAD ", b"PUT ", b"POST ")


class Relay:
    """A way to a store that can fall silent: it goes on taking connections and requests, and nothing comes back."""

    def __init__(self, endpoint_url: str) -> None:
        address = urlsplit(endpoint_url)
        self._store = (address.hostname or "", address.port or 80)
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=100)
        self._held: list[socket.socket] = []
        self.silent = threading.Event()
        self.unanswered = 0  # requests that came since
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:  # closed
                return
            store = socket.create_connection(self._store)
            self._held += [client, store]
            for source, sink in ((client, store), (store, client)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if self.silent.is_set():
                    self.unanswered += data.startswith(_METHODS)
                else:
                    sink.sendall(data)
            if not self.silent.is_set():
                sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        for one in (self._listening, *self._held):
            one.close()


@pytest.fixture
def relay(moto: RunningStore) -> Iterator[Relay]:
    assert moto.options.endpoint_url
    relay = Relay(moto.options.endpoint_url)
    yield relay
    relay.close()


@pytest.fixture
def ingest(moto: RunningStore, relay: Relay, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], S3Storage]]:
    """`ingest` of 160 pages into a lake behind the relay, and that lake without it."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.pdf").write_bytes(numbered(20, str(number)))
    url = moto.new_lake()
    way = {**moto.environment(), "R2_ENDPOINT_URL": relay.url, "OCR_LAKE": url, "OCR_CPU_ENGINE": "text_layer"}
    process = start(tmp_path / "data", "ingest", str(folder), OCR_BATCH_DOCUMENTS="2", **way)
    yield process, S3Storage(moto.bucket, urlsplit(url).path.lstrip("/"), moto.options)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("written", ["inbox/", "pages/"])
def test_a_second_ctrl_c_does_not_wait_for_a_store_that_does_not_answer(
    relay: Relay, ingest: tuple[subprocess.Popen[str], S3Storage], written: str
) -> None:
    process, lake = ingest
    _wait_until(lambda: process.poll() is not None or next(lake.list(written), None) is not None)
    relay.silent.set()
    _wait_until(lambda: process.poll() is not None or relay.unanswered > 0)
    _ctrl_c(process)
    told = _read_to(process, r"^Stopping: waiting for what is in flight. Ctrl-C again ends it at once.$")
    if process.poll() is None:  # else nothing had to be waited for
        _ctrl_c(process)
    _, rest = process.communicate(timeout=30)  # without it: until botocore has given up, five times a minute
    assert process.returncode == 130, told + rest
    assert "Traceback" not in told + rest


def _ctrl_c(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the command


def _read_to(process: subprocess.Popen[str], pattern: str) -> str:
    """What stands on stderr up to this line, or to the end."""
    assert process.stderr is not None
    told = ""
    for line in process.stderr:
        told += line
        if re.search(pattern, line):
            break
    return told


def _wait_until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)  # between two polls
