"""The two kinds of server that the contract is held against: the simulator, and the real vLLM of the lab.

Both can be had in three variants: "standard", "plain" (no logits processor, load tracking) and "strict" (API key,
short queue and context, one image a prompt, load tracking, priorities). Not here: what is asked of them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from ocr_pipeline_tests.simulator import SimulatedServer

LAB = Path(__file__).resolve().parents[2] / ".ci" / "vllm-lab"
LAB_KEY = "lab-key"
_VARIANTS: dict[str, dict[str, Any]] = {
    "standard": {},
    "plain": {"logits_processor": False, "load_tracking": True},
    "strict": {
        "api_key": LAB_KEY,
        "max_num_queued_reqs": 2,
        "max_model_len": 1024,
        "images_per_prompt": 1,
        "load_tracking": True,
        "scheduling_policy": "priority",
    },
}


class Unavailable(Exception):
    """There is no such server here. The text says what to do."""


class ServerUnderTest(Protocol):
    kind: str

    @property
    def url(self) -> str: ...

    def ensure(self, variant: str) -> None:
        """Serves this variant, healthy, at `url`. Unavailable where that cannot be."""

    def kill_engine(self) -> None:
        """kill -9 of the engine; the API server lives on for a moment."""

    def paused_engine(self) -> contextlib.AbstractContextManager[None]:
        """The engine stands still, so that no request ends; the API server goes on. It may be killed meanwhile."""

    def close(self) -> None: ...


class Simulator:
    kind = "simulator"

    def __init__(self) -> None:
        self._server: SimulatedServer | None = None
        self._variant = ""

    @property
    def url(self) -> str:
        assert self._server is not None
        return self._server.url

    def ensure(self, variant: str) -> None:
        if self._server is not None and self._server.alive and self._variant == variant:
            return
        self.close()
        self._variant = variant
        self._server = SimulatedServer(mode="scripted", profile="lab", **_VARIANTS[variant]).start().ready()

    def kill_engine(self) -> None:
        assert self._server is not None
        self._server.set_faults(die={"manner": "engine"})

    @contextlib.contextmanager
    def paused_engine(self) -> Iterator[None]:
        assert self._server is not None
        self._server.set_faults(hang=True)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # killed meanwhile: nobody listens
                self._server.set_faults(hang=None)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None


class RealVllm:
    """The server at OCR_TEST_VLLM_URL. What `.ci/vllm-lab` has not started is used as it is and never killed."""

    kind = "vllm"

    def __init__(self) -> None:
        self._url = os.environ.get("OCR_TEST_VLLM_URL", "").rstrip("/")
        self._alone = False  # started here: stopped here

    @property
    def url(self) -> str:
        return self._url

    def ensure(self, variant: str) -> None:
        if not self._url:
            raise Unavailable("OCR_TEST_VLLM_URL is not set: run `.ci/vllm-lab run pytest -m vllm`")
        if _lab("variant") == variant and _lab("url") == self._url and _healthy(self._url):
            return
        if not self._is_ours:
            if variant == "standard" and _healthy(self._url):
                return
            raise Unavailable(f"{self._url} was not started by .ci/vllm-lab: it is not restarted as {variant}")
        command = "serve" if variant == "standard" else f"serve-{variant}"
        self._url = subprocess.run([LAB, command], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    @property
    def _is_ours(self) -> bool:
        # A server that died of a test leaves its address behind; a foreign one has none there.
        return _lab("last-url") == self._url

    def kill_engine(self) -> None:
        self._signal_engine("kill")

    @contextlib.contextmanager
    def paused_engine(self) -> Iterator[None]:
        self._signal_engine("pause")
        try:
            yield
        finally:
            self._signal_engine("resume")

    def _signal_engine(self, what: str) -> None:
        if not self._is_ours:
            raise Unavailable(f"{self._url} was not started by .ci/vllm-lab: its engine is left alone")
        subprocess.run([LAB, f"{what}-engine"], check=True)

    def close(self) -> None:
        """Left running: `.ci/vllm-lab run` stops it."""


def _lab(command: str) -> str:
    return subprocess.run([LAB, command], check=False, stdout=subprocess.PIPE, text=True).stdout.strip()


def _healthy(url: str) -> bool:
    import httpx

    try:
        return httpx.get(f"{url}/health", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def servers_required() -> bool:
    """In CI a missing server is a failure, elsewhere a skip."""
    return os.environ.get("OCR_CI", "") not in ("", "0") or os.environ.get("CI", "") not in ("", "0", "false")
