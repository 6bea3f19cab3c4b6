"""A run of its own with an endless backlog: `python -m ocr_pipeline_tests.ocr.fleet.backlog NAME URL SECONDS LOOK`.

What a second process on the same server is, for test_sharing.py. Prints one line: pages with a text, and requests
that were pushed back.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import replace

from ocr_pipeline_tests.ocr.fleet.runs import QUICK, WatchRules, fleet_of, one, page


async def main(name: str, url: str, seconds: float, look: float) -> None:
    ends = time.monotonic() + seconds
    good = pushed_back = number = 0

    async def reader(worker: int) -> None:
        nonlocal good, pushed_back, number
        while time.monotonic() < ends:
            number += 1
            transcript = await fleet.transcribe(page(name, number, 9))
            good += transcript.status == "ok"
            pushed_back += sum(a.outcome in ("http_503", "http_429") for a in transcript.attempts)

    tuning = replace(QUICK, watch=WatchRules(interval=look))
    async with fleet_of(one(url, slots=4), tuning=tuning) as fleet, asyncio.TaskGroup() as group:
        for worker in range(fleet.max_in_flight):
            group.create_task(reader(worker))
    print(good, pushed_back)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])))
