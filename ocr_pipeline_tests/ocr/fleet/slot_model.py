"""A server of so many slots with a first-come queue, and clients that obey an `Admission` each: simulated time.

Here belongs the model that the admission tests run their control law on. Not here: sockets (test_fleet_*.py).
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from dataclasses import dataclass, field

from ocr_pipeline.ocr.fleet.admission import Admission


@dataclass
class Client:
    """A run with an endless backlog from `begins` to `ends`."""

    admission: Admission
    begins: float = 0.0
    ends: float = float("inf")
    in_flight: int = 0
    done: int = 0
    most_in_flight: int = 0


@dataclass
class SlotServer:
    slots: int
    seconds: float
    spread: float  # 0: every page takes `seconds`
    seed: int
    latency: float = 0.02  # from an answer to the next request's arrival
    queue_limit: int | None = None  # beyond it: 503
    tells: bool = True  # has /metrics
    busy_seconds: float = 0.0
    refused: int = 0
    lone_done: dict[int, int] = field(default_factory=dict)

    def run(self, clients: list[Client], until: float, measure_from: float) -> None:
        """Runs the clients against the server; `done`, `busy_seconds` and `refused` count from `measure_from`."""
        rng = random.Random(self.seed)
        now, order = 0.0, 0
        events: list[tuple[float, int, str, int, float]] = []
        queue: deque[tuple[int, float]] = deque()
        running = 0

        def push(at: float, kind: str, client: int, sent: float = 0.0) -> None:
            nonlocal order
            order += 1
            heapq.heappush(events, (at, order, kind, client, sent))

        def fill(number: int) -> None:
            client = clients[number]
            while client.begins <= now < client.ends and client.in_flight < client.admission.limit:
                client.in_flight += 1
                client.most_in_flight = max(client.most_in_flight, client.in_flight)
                push(now + self.latency * rng.random() * 2, "arrive", number, now)

        for number, client in enumerate(clients):
            push(client.begins, "fill", number)
            push(client.begins + rng.random(), "look", number)
        while events:
            before = now
            now, _, kind, number, sent = heapq.heappop(events)
            if now > until:
                self.busy_seconds += running * max(0.0, until - max(before, measure_from))
                return
            self.busy_seconds += running * max(0.0, now - max(before, measure_from))
            client = clients[number]
            if kind == "arrive":
                if self.queue_limit is not None and len(queue) >= self.queue_limit and running >= self.slots:
                    client.in_flight -= 1
                    client.admission.on_overload(now)
                    self.refused += now >= measure_from
                    push(now + 0.5, "fill", number)
                else:
                    queue.append((number, sent))
            elif kind == "finish":
                running -= 1
                client.admission.on_success(now - sent, client.in_flight)
                client.in_flight -= 1
                client.done += now >= measure_from
                push(now + self.latency * rng.random(), "fill", number)
            elif kind == "look":
                if self.tells and client.in_flight:
                    client.admission.observe_queue(float(running), float(len(queue)), client.in_flight)
                push(now + 1.0, "look", number)
            fill(number)
            while queue and running < self.slots:
                owner, asked = queue.popleft()
                running += 1
                push(now + self.seconds * rng.lognormvariate(0, self.spread), "finish", owner, asked)
