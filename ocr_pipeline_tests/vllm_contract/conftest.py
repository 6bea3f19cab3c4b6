"""Each test of the contract runs on the simulator and, marked `vllm`, on the real vLLM of the lab."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from ocr_pipeline.ocr.vllm.backends import Backend
from ocr_pipeline.ocr.vllm.backends_file import load_backends
from ocr_pipeline_tests.vllm_contract.servers import (
    LAB_KEY,
    RealVllm,
    ServerUnderTest,
    Simulator,
    Unavailable,
    servers_required,
)


@pytest.fixture(
    scope="session", params=["simulator", pytest.param("vllm", marks=[pytest.mark.vllm, pytest.mark.timeout(900)])]
)
def any_server(request: pytest.FixtureRequest) -> Iterator[ServerUnderTest]:
    """A server in no particular variant, possibly dead."""
    under_test: ServerUnderTest = Simulator() if request.param == "simulator" else RealVllm()
    yield under_test
    under_test.close()


def _ensured(server: ServerUnderTest, variant: str) -> ServerUnderTest:
    try:
        server.ensure(variant)
    except Unavailable as reason:
        if servers_required():
            pytest.fail(str(reason))
        pytest.skip(str(reason))
    return server


@pytest.fixture
def server(any_server: ServerUnderTest) -> ServerUnderTest:
    """As the lab serves it: with the logits processor, 8 slots, a context of 8192 tokens."""
    return _ensured(any_server, "standard")


@pytest.fixture
def plain_server(any_server: ServerUnderTest) -> ServerUnderTest:
    """Without the logits processor, with load tracking."""
    return _ensured(any_server, "plain")


@pytest.fixture
def strict_server(any_server: ServerUnderTest) -> ServerUnderTest:
    """API key, at most 2 requests in all, a context of 1024 tokens, one image a prompt, load tracking, priorities."""
    return _ensured(any_server, "strict")


Connect = Callable[[ServerUnderTest], httpx.Client]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Opens clients, a new connection pool each; closes them after the test."""
    clients: list[httpx.Client] = []

    def open_client(server: ServerUnderTest) -> httpx.Client:
        client = httpx.Client(
            base_url=server.url,
            timeout=120,
            trust_env=False,
            headers={"Authorization": f"Bearer {LAB_KEY}"},
            # A server that was busy for 5 s closes what it holds for idle, also under a request that waits there.
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        clients.append(client)
        return client

    yield open_client
    for client in clients:
        client.close()


BackendOf = Callable[[ServerUnderTest], Backend]
BackendsFileOf = Callable[[ServerUnderTest], Path]


@pytest.fixture
def backends_file_of(tmp_path: Path) -> BackendsFileOf:
    """Writes the file that OCR_BACKENDS names, with one server in it; its key is in the variable LAB_KEY."""

    def write(server: ServerUnderTest) -> Path:
        path = tmp_path / "backends.toml"
        path.write_text(
            f'[[backend]]\nname = "lab"\nurl = "{server.url}"\ngpu = "rtx-4090"\nmodel = "deepseek-ai/DeepSeek-OCR"\n'
            'api_key_env = "LAB_KEY"\n'
        )
        return path

    return write


@pytest.fixture
def backend_of(backends_file_of: BackendsFileOf) -> BackendOf:
    """A server as the pipeline's own client is given it."""

    def load(server: ServerUnderTest) -> Backend:
        [backend] = load_backends(backends_file_of(server), {"LAB_KEY": LAB_KEY}.get).backends
        return backend

    return load


@pytest.fixture
def http(server: ServerUnderTest, connect: Connect) -> httpx.Client:
    return connect(server)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Orders the contract so that the real server is restarted as seldom as can be: a start takes a minute or two."""
    ours = [at for at, item in enumerate(items) if __package__ in item.nodeid.replace("/", ".")]
    in_order = sorted((items[at] for at in ours), key=_phase)
    for at, item in zip(ours, in_order, strict=True):
        items[at] = item


def _phase(item: pytest.Item) -> int:
    fixtures = getattr(item, "fixturenames", [])
    if "plain_server" in fixtures:
        return 3 if "test_death" in item.nodeid else 2
    return 1 if "strict_server" in fixtures else 0
