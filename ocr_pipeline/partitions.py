"""The one partitions definition: a batch is a partition."""

from __future__ import annotations

import dagster as dg

BATCHES = dg.DynamicPartitionsDefinition(name="batches")
