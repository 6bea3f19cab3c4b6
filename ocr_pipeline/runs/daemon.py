"""When each part of Dagster's daemon was last at work, as the instance has it. Nothing is started or mended here."""

from __future__ import annotations

import dagster as dg


def heartbeats(instance: dg.DagsterInstance) -> dict[str, float]:
    """By part (SENSOR, QUEUED_RUN_COORDINATOR, …), the unix time of its last sign of life; 0 where it never gave one.

    The parts are those that this instance needs. Each says something every 30 s, or after the tick that it is at.
    """
    last = instance.get_daemon_heartbeats()
    return {
        part: last[part].timestamp if part in last else 0.0 for part in sorted(instance.get_required_daemon_types())
    }
