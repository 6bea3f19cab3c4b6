"""What this room raises. Each message tells what was wrong, where, and what to do."""

from __future__ import annotations


class WarehouseError(Exception):
    """The warehouse cannot be used as asked: no token, a file in use, rows that break the contract."""


class NotAsPublished(WarehouseError):
    """A batch's files are not those of its manifest: it is being published just now, or a run was killed at that.

    The first passes by itself; publishing the batch again mends the second.
    """


class WarehouseInUse(WarehouseError):
    """The DuckDB file stayed open elsewhere for as long as was waited: a load, mostly. Another time it will do."""


class WarehouseUnreachable(WarehouseError):
    """MotherDuck could not be opened or asked, for a reason that passes by itself: the network, another process's
    conflict."""
