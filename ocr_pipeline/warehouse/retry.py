"""When a transaction is worth trying again, and how long to wait before.

Here belong which errors pass by themselves, and the waiting. Not here: what is tried.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

import duckdb

from ocr_pipeline.warehouse.errors import WarehouseUnreachable

T = TypeVar("T")

ATTEMPTS = 10
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 10.0  # seconds
_OF_THE_NETWORK = (
    "unavailable, rpc",
    "deadline_exceeded",
    "request timed out",
    "failed to connect to all addresses",
    "network is unreachable",
)
"""What MotherDuck's extension says of a server it does not reach, whatever the class of the error: a failed connection
is an InvalidInputException, "Initialization function … threw an exception: Request failed: … (UNAVAILABLE, RPC …)"."""


def passes_by_itself(error: BaseException, *, remote: bool = False) -> bool:
    """Whether the same transaction may succeed on a fresh connection.

    Two writers of one key: one commits, the other gets a TransactionException; two that create the schema at once: a
    CatalogException. A file in use by another process is an IOException, by another part of this process a
    ConnectionException. On MotherDuck (`remote`) there is no lock, so a key that is there twice may be another writer's
    (on a file it is in the rows themselves), any IOException or HTTPException may be the network, and so is what says
    so; "Remote catalog has changed. Please rerun query." follows a change of tables or views by another process.
    """
    if remote and is_of_the_network(error):
        return True
    text = str(error).lower()
    match error:
        case WarehouseUnreachable():
            return True
        case duckdb.TransactionException():
            return True
        case duckdb.ConstraintException():
            return remote and ("duplicate key" in text or "primary key" in text)
        case duckdb.CatalogException():
            return "conflict" in text or "already exists" in text or "catalog has changed" in text
        case duckdb.ConnectionException():
            return "different configuration" in text or remote
        case duckdb.HTTPException():
            return remote
        case duckdb.IOException():
            return remote or file_is_in_use(error)
        case _:
            return False


def is_of_the_network(error: BaseException) -> bool:
    """Whether MotherDuck's extension says that it does not reach its server."""
    text = str(error).lower()
    return isinstance(error, duckdb.Error) and any(words in text for words in _OF_THE_NETWORK)


def file_is_in_use(error: BaseException) -> bool:
    """Whether a DuckDB file could not be opened only because it is open elsewhere, in another way."""
    text = str(error).lower()
    if isinstance(error, duckdb.ConnectionException):
        return "different configuration" in text
    return isinstance(error, duckdb.IOException) and ("could not set lock" in text or "being used by" in text)


def _wait(attempt: int) -> float:
    """Seconds before try number 2, 3, …: doubling, capped, with full jitter so that two do not meet again."""
    return min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** (attempt - 2)) * random.uniform(0.1, 1.0)  # noqa: S311


def with_retries(
    work: Callable[[], T],
    *,
    remote: bool = False,
    attempts: int = ATTEMPTS,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """What `work` returns; `work` opens its own connection each time. The last error is raised as it is."""
    for attempt in range(2, attempts + 1):
        try:
            return work()
        except (duckdb.Error, WarehouseUnreachable) as error:
            if not passes_by_itself(error, remote=remote):
                raise
            sleep(_wait(attempt))
    return work()
