"""What every test gets: an environment without the machine's own settings, and data of its own."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocr_pipeline.settings import Settings
from ocr_pipeline_tests.access_stand_in import AUDIENCE, Team, access_stand_in
from ocr_pipeline_tests.queue_stand_in import StandIn, queue_stand_in
from ocr_pipeline_tests.storages import RunningStore, moto_store, require_wrangler, wrangler_store


def pytest_configure(config: pytest.Config) -> None:
    # A shell lets what it starts in the background ignore Ctrl-C, and the commands that tests start inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """None of this machine's settings, no .env, and OCR_DATA in a fresh folder, which is returned."""
    for name in os.environ:
        if name.startswith(("OCR_", "R2_", "DAGSTER_")) and not name.startswith(("OCR_TEST_", "OCR_CI")):
            monkeypatch.delenv(name)
    data = tmp_path_factory.mktemp("data")
    monkeypatch.setenv("OCR_DATA", str(data))
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
    return data


@pytest.fixture
def settings(environment: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings whose OCR costs nothing: the PDFs' own text."""
    monkeypatch.setenv("OCR_CPU_ENGINE", "text_layer")
    return Settings()


@pytest.fixture
def bound_by_rights() -> Iterator[Path]:
    """A folder of somebody whom rights bind, as they do not bind root; the test runs as that user."""
    with tempfile.TemporaryDirectory() as name:
        as_root = os.geteuid() == 0
        if as_root:
            os.chown(name, 65534, 65534)
            os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            if as_root:
                os.seteuid(0)


@pytest.fixture(scope="session")
def moto() -> Iterator[RunningStore]:
    with moto_store() as store:
        yield store


@pytest.fixture(scope="session")
def events_queue() -> Iterator[StandIn]:
    """The queue that the upload Worker sends its events to."""
    with queue_stand_in() as queue:
        yield queue


@pytest.fixture(scope="session")
def access_team() -> Iterator[Team]:
    """The people whom the upload Worker lets in through Cloudflare Access."""
    with access_stand_in() as team:
        yield team


@pytest.fixture(scope="session")
def wrangler(
    tmp_path_factory: pytest.TempPathFactory, events_queue: StandIn, access_team: Team
) -> Iterator[RunningStore]:
    """One `wrangler dev` for the whole run. Missing: a skip on a laptop, a failure in CI."""
    require_wrangler()
    variables = {
        "DEV_EVENTS_URL": events_queue.events_url,
        "ACCESS_TEAM_DOMAIN": access_team.domain,
        "ACCESS_AUD": AUDIENCE,
        "MAX_BYTES": str(32 * 2**20),
    }
    with wrangler_store(tmp_path_factory.mktemp("wrangler"), variables) as store:
        yield store
