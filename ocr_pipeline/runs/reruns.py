"""Which batches that are not in the tables are run again, and how often: what `reconcile` requests."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

import dagster as dg
from dagster import DagsterRunStatus

from ocr_pipeline.lake import batches
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.runs import history, requests

MAX_FAILED_RUNS = 5
"""A batch that failed so often is left to a person: in another project (mitodl's) a schedule that never stopped asking
made 368,000 failed runs."""

MAX_LOADS = 20
"""The same for a batch that is loaded again and again, and each time is not in the tables afterwards."""


def wanted(
    instance: dg.DagsterInstance, lake: Storage, names: Iterable[str], most: int, log: logging.Logger
) -> Iterator[dg.RunRequest]:
    """A request for each of these batches that no run works on and no person ended; at most `most`."""
    asked = 0
    for name in names:
        if asked == most:
            return
        if history.live_run(instance, name) is not None:
            continue
        failed, succeeded = history.ended_runs(instance, name)
        if failed >= MAX_FAILED_RUNS or succeeded >= MAX_LOADS:
            log.warning(
                f"batch {name} failed {failed} times and was loaded {succeeded} times, and its rows are not in "
                "the tables: look at its last run, then start it by hand"
            )
            continue
        last = history.last_run(instance, name)
        if last is not None and last[1] == DagsterRunStatus.CANCELED.value:
            continue  # a person ended it; a person starts it
        for _, batch in batches.read_each(lake, [name]):  # none: somebody has taken the list away
            requests.add_partitions(instance, [name])
            asked += 1
            # the plain run key is used up by the sensor's request; each run that ended allows one more
            yield requests.request_of(name, batch, f"{name}#reconcile-{failed + succeeded}")
