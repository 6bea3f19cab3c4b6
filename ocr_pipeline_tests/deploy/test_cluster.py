"""The cluster of deploy/celery, whole: Postgres, Redis, daemon, two Celery workers; a backfill, a worker's death."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterRunStatus, RunsFilter

from ocr_pipeline import wiring
from ocr_pipeline.intake import cutting
from ocr_pipeline.runs import history, requests
from ocr_pipeline.runs.liveness import HOST_TAG
from ocr_pipeline.settings import Settings
from ocr_pipeline_tests.deploy.files import needs

needs("dagster_celery", "psycopg2", "redis")

from ocr_pipeline_tests.deploy.cluster import BIN, Cluster, in_environment, require_servers  # noqa: E402
from ocr_pipeline_tests.pdfs import numbered  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1200)]

BATCHES = 20
AGAIN = 8
APART = os.geteuid() == 0  # each worker then has a host name of its own
PAGES = (60, 3)  # of the two documents of each batch: a run takes long enough to be killed in its middle

LAUNCH = """
mutation Launch($p: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $p) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message stack }
    ... on UnauthorizedError { message }
  }
}
"""


@pytest.fixture
def cluster(environment: Path) -> Any:
    require_servers()
    with Cluster({"OCR_CPU_ENGINE": "text_layer", "OCR_DATA": str(environment)}) as cluster:
        yield cluster


def twenty_batches(settings: Settings, instance: dg.DagsterInstance) -> list[str]:
    lake = wiring.lake(settings)
    names = []
    for number in range(BATCHES):
        keys = []
        for document, pages in enumerate(PAGES):
            keys.append(f"inbox/batch-{number:02}/{document}.pdf")
            lake.write(keys[-1], numbered(pages, f"{number}-{document}"))
        found = [lake.stat(key) for key in keys]
        held = cutting.cut_all(
            lake,
            [info.as_upload() for info in found if info],
            wiring.intake(settings),
            announce=lambda cut: requests.add_partitions(instance, cut),
        )
        names += sorted({batch.name for batch in held.values()})
    assert len(names) == BATCHES
    return names


def launch_backfill(cluster: Cluster, names: list[str]) -> str:
    """Through Dagster's GraphQL API, as the UI does it."""
    selector = {
        "partitionSetName": "process_batch_partition_set",
        "repositorySelector": {"repositoryLocationName": "ocr_pipeline", "repositoryName": "__repository__"},
    }
    variables = json.dumps({"p": {"selector": selector, "partitionNames": names}})
    answered = cluster.folder / "answer.json"
    asked = subprocess.run(
        [str(BIN / "dagster-graphql"), "-w", "workspace.yaml", "-t", LAUNCH, "-v", variables, "-o", str(answered)],
        env={**os.environ, **cluster.environment},
        cwd=cluster.home,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert asked.returncode == 0, asked.stderr
    answer = json.loads(answered.read_text())["data"]["launchPartitionBackfill"]
    assert answer["__typename"] == "LaunchBackfillSuccess", answer
    return str(answer["backfillId"])


def wait(what: str, seconds: float, look: Callable[[], Any], cluster: Cluster) -> Any:
    until = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > until:
            logs = "\n".join(
                f"--- {log.stem}\n{log.read_text(errors='replace')[-3000:]}" for log in cluster.logs.iterdir()
            )
            raise AssertionError(f"not within {seconds} s: {what}\n{logs}")
        time.sleep(0.25)
    return found


def host(run: dg.DagsterRun) -> str:
    return str(run.tags.get(HOST_TAG, ""))


def test_a_backfill_of_twenty_batches_outlives_a_worker_killed_in_its_middle(
    cluster: Cluster, settings: Settings
) -> None:
    with in_environment(cluster.environment), dg.DagsterInstance.get() as instance:
        names = twenty_batches(settings, instance)
        cluster.start_worker("worker-a")
        cluster.start_worker("worker-b")
        cluster.start_daemon()
        backfill = launch_backfill(cluster, names)

        def begins_on(worker: str) -> Callable[[], dg.DagsterRun | None]:
            """A look for a run that began on this worker since now: one that is seen at its beginning."""

            def stamped() -> list[dg.DagsterRun]:
                return [run for run in instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.STARTED])) if host(run)]

            old = {run.run_id for run in stamped()}
            return lambda: next(
                (run for run in stamped() if run.run_id not in old and (host(run) == worker or not APART)), None
            )

        def some_done() -> bool:
            return len(history.finished(instance)) >= 4

        wait("four batches done", 300, some_done, cluster)
        lost = wait("a run on worker-b", 120, begins_on("worker-b"), cluster)
        cluster.kill("worker-b")
        assert instance.get_run_by_id(lost.run_id).status is DagsterRunStatus.STARTED, "it ended before the kill"
        assert lost.tags[history.PARTITION_TAG] not in history.finished(instance), "it was loaded before the kill"

        def retry() -> dg.DagsterRun | None:
            return next((run for run in instance.get_runs() if run.parent_run_id == lost.run_id), None)

        retried = wait("the lost run is started again", 300, retry, cluster)

        ended = None
        if APART:  # a new machine comes, and an old one is told to go: what it runs it ends first
            cluster.start_worker("worker-c")
            again = launch_backfill(cluster, names[:AGAIN])  # the first may be over by now: work for both

            def asked_again() -> bool:
                return instance.get_runs_count(RunsFilter(tags={"dagster/backfill": again})) >= AGAIN

            ended = wait("a run on worker-a", 120, begins_on("worker-a"), cluster)
            cluster.stop("worker-a")
            wait("a run on worker-c", 120, begins_on("worker-c"), cluster)
            wait("every run of the second backfill asked for", 120, asked_again, cluster)

        wait("every batch loaded", 600, lambda: history.finished(instance) >= set(names), cluster)
        wait("no run left at work", 120, lambda: not instance.get_runs(RunsFilter(statuses=history.LIVE)), cluster)

        assert instance.get_run_by_id(lost.run_id).status is DagsterRunStatus.FAILURE
        retried = instance.get_run_by_id(retried.run_id)
        assert retried.status is DagsterRunStatus.SUCCESS
        every = instance.get_runs()
        assert Counter(run.status for run in every)[DagsterRunStatus.SUCCESS] >= BATCHES
        of_the_backfill = [run for run in every if run.tags.get("dagster/backfill") == backfill]
        assert len(of_the_backfill) >= BATCHES + 1  # beside them `reconcile` may have asked for the lost batch
        if ended:
            assert {host(run) for run in every} == {"worker-a", "worker-b", "worker-c"}
            assert host(retried) != "worker-b"
            assert instance.get_run_by_id(ended.run_id).status is DagsterRunStatus.SUCCESS
            assert [run for run in every if run.status is not DagsterRunStatus.SUCCESS] == [
                instance.get_run_by_id(lost.run_id)
            ]

    with wiring.warehouse(settings).read() as connection:
        documents = connection.execute(
            "SELECT status, count(*), sum(page_count) FROM ocr.documents GROUP BY 1"
        ).fetchall()
        pages = connection.execute("SELECT status, count(*) FROM ocr.pages GROUP BY 1").fetchall()
        batches = connection.execute("SELECT count(DISTINCT batch) FROM ocr.pages").fetchall()
    assert documents == [("ok", BATCHES * len(PAGES), BATCHES * sum(PAGES))]
    assert pages == [("ok", BATCHES * sum(PAGES))]
    assert batches == [(BATCHES,)]
