"""The arithmetic of a benchmark: which concurrencies are tried, what a step's answers say, which one is recommended.

Pure. A step holds a number of requests in flight at one server: whenever one is answered the next is sent.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ocr_pipeline.ocr.vllm.answers import Answer

LADDER = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
ENOUGH = 0.95  # of the best rate: more in flight than this needs only makes each page wait longer
TOLERATED = 0.02  # share of requests without a text
NO_GAIN = 1.05  # a step that is not this much better than the best before it gains nothing
STEPS_WITHOUT_GAIN = 2
FAILURES_ON_END = 3  # answers one after the other without a text (at least one a slot): nothing more is asked


@dataclass(frozen=True, slots=True)
class Step:
    """One concurrency at one server."""

    in_flight: int
    requests: int
    seconds: float  # from the first request to the last one sent: the time in which all slots were asked for
    pages_per_second: float
    tokens_per_second: float
    median: float | None  # seconds a page
    p95: float | None
    failures: Mapping[str, int] = field(default_factory=dict)  # by outcome; texts cut off or looping are not looked for
    tokens_per_page: float | None = None

    @property
    def failed_share(self) -> float:
        return sum(self.failures.values()) / self.requests if self.requests else 1.0


def ladder(most: int) -> tuple[int, ...]:
    """Concurrencies to try, up to `most`, which is among them."""
    return (*(step for step in LADDER if step < most), most)


def requests_of(in_flight: int, pages: int) -> int:
    """Requests of a step: at least four rounds, since the first and the last are not counted."""
    return max(pages, 4 * in_flight)


def summarise(in_flight: int, answers: Sequence[Answer], window: float, in_window: Sequence[Answer]) -> Step:
    """`window`: seconds from the first request to the last one sent. `in_window`: the answers that came in it, so that
    neither the start nor the end, when slots are empty, makes a server look slow."""
    texts = [answer for answer in answers if answer.fault is None]
    counted = [answer for answer in in_window if answer.fault is None]
    tokens = [answer.completion_tokens or 0 for answer in texts]
    seconds = sorted(answer.seconds for answer in texts)
    rate = len(counted) / window if window > 0 else 0.0
    return Step(
        in_flight=in_flight,
        requests=len(answers),
        seconds=window,
        pages_per_second=rate,
        tokens_per_second=sum(answer.completion_tokens or 0 for answer in counted) / window if window > 0 else 0.0,
        median=percentile(seconds, 0.5),
        p95=percentile(seconds, 0.95),
        failures=dict(Counter(answer.outcome for answer in answers if answer.fault is not None)),
        tokens_per_page=sum(tokens) / len(tokens) if tokens else None,
    )


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Nearest rank: the smallest value that at least this share of the values does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def goes_on(steps: Sequence[Step]) -> bool:
    """Whether a higher concurrency is worth trying after these, in the order they were measured."""
    if not steps:
        return True
    if steps[-1].failed_share > TOLERATED:
        return False
    best, idle = 0.0, 0
    for step in steps:
        idle = 0 if step.pages_per_second > best * NO_GAIN else idle + 1
        best = max(best, step.pages_per_second)
    return idle < STEPS_WITHOUT_GAIN


def given_up(answers: Sequence[Answer], in_flight: int) -> bool:
    """Whether the last answers, as many as there are slots and at least three, were all without a text."""
    count = max(FAILURES_ON_END, in_flight)
    return len(answers) >= count and all(answer.fault is not None for answer in answers[-count:])


def still_rising(steps: Sequence[Step], most: int) -> bool:
    """Whether the last step, the highest that was allowed, was still better than all before it: the best is beyond."""
    if len(steps) < 2 or steps[-1].in_flight < most or steps[-1].failed_share > TOLERATED:
        return False
    return steps[-1].pages_per_second > NO_GAIN * max(step.pages_per_second for step in steps[:-1])


def recommended(steps: Sequence[Step]) -> Step | None:
    """The fewest in flight that give 95 % of the best rate without failures; None where no step is without them."""
    sound = [step for step in steps if step.failed_share <= TOLERATED and step.pages_per_second > 0]
    best = max((step.pages_per_second for step in sound), default=0.0)
    return next((step for step in sound if step.pages_per_second >= ENOUGH * best), None)


def cost_per_thousand(price_an_hour: float | None, pages_per_second: float) -> float | None:
    """In the currency of the price."""
    if price_an_hour is None or pages_per_second <= 0:
        return None
    return price_an_hour / 3600 * 1000 / pages_per_second
