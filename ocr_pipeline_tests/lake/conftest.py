"""Stores for the tests of this room: a local folder, moto, and Cloudflare's R2 simulator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ocr_pipeline.lake.storage import Storage, open_storage
from ocr_pipeline_tests.access_stand_in import AUDIENCE, Team, access_stand_in
from ocr_pipeline_tests.queue_stand_in import StandIn, queue_stand_in
from ocr_pipeline_tests.storages import RunningStore, moto_store, require_wrangler, wrangler_store


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


@pytest.fixture(params=["moto", pytest.param("wrangler", marks=pytest.mark.wrangler)])
def bucket(request: pytest.FixtureRequest) -> RunningStore:
    """Each S3 server in turn."""
    store: RunningStore = request.getfixturevalue(request.param)
    return store


@pytest.fixture(params=["local", "moto", pytest.param("wrangler", marks=pytest.mark.wrangler)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty lake on each kind of store in turn."""
    if request.param == "local":
        return open_storage(str(tmp_path / "lake"))
    store: RunningStore = request.getfixturevalue(request.param)
    return open_storage(store.new_lake(), store.options)
