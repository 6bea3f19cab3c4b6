"""What each backend's machine costs: from the settings into the table that the cost views join.

Here belongs the price list. Not here: what pages cost, which is in the views (`views.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import WarehouseError


@dataclass(frozen=True, slots=True)
class BackendCost:
    """Price of one machine, US dollars. An RTX 4090 that is there already: 40 a month for power. A DGX Spark: 45 for
    power, 5,000 to 15,000 to buy; written off over 12 months it is 5,540 to 15,540 in its first year."""

    power_usd_per_month: float
    hardware_usd: float = 0.0
    hardware_months: float = 36.0  # written off over

    @property
    def usd_per_month(self) -> float:
        """As the column of that name in the view `backend_cost`, for those who have no tables."""
        return self.power_usd_per_month + self.hardware_usd / self.hardware_months


def set_backend_costs(warehouse: Warehouse, costs: Mapping[str, BackendCost | None]) -> bool:
    """Notes these prices, by backend name, and takes back those that are None; returns whether one is another than
    before. Unchanged: no write.

    Prices of backends that are not named stay: a machine that is listed no more has its months behind it, and another
    machine's backends file may list others.
    """
    priced = {name: cost for name, cost in costs.items() if cost is not None}
    for name, cost in priced.items():
        if cost.power_usd_per_month < 0 or cost.hardware_usd < 0 or not cost.hardware_months > 0:
            raise WarehouseError(f"backend {name}: prices must not be negative and hardware_months must be above 0")
    wanted = {
        (name, float(c.power_usd_per_month), float(c.hardware_usd), float(c.hardware_months))
        for name, c in priced.items()
    }
    noted = warehouse.ask(lambda connection: connection.execute("FROM ocr.backend_costs").fetchall())
    if wanted == {row for row in noted if row[0] in costs}:
        return False

    def work(connection: duckdb.DuckDBPyConnection) -> bool:
        for name in sorted(costs.keys() - priced.keys()):
            connection.execute("DELETE FROM ocr.backend_costs WHERE backend = ?", [name])
        for row in sorted(wanted):
            connection.execute("INSERT OR REPLACE INTO ocr.backend_costs VALUES (?, ?, ?, ?)", row)
        return True

    return warehouse.run(work)
