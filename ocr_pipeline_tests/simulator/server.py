"""One simulated vLLM server: its routes, and the life of a chat request from the queue to the answer.

Not here: HTTP itself (`http1`), the checks of a request (`chat`), batching (`engine`), the texts (`texts`).
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import Iterable
from time import time
from typing import Any, ClassVar

from ocr_pipeline_tests.simulator import chat, completion, refusals, texts
from ocr_pipeline_tests.simulator.chat import ChatRequest
from ocr_pipeline_tests.simulator.completion import Completion
from ocr_pipeline_tests.simulator.engine import Engine, EngineDead, Job
from ocr_pipeline_tests.simulator.exposition import Exposition
from ocr_pipeline_tests.simulator.faults import Faults
from ocr_pipeline_tests.simulator.http1 import Connection, HttpRequest, head
from ocr_pipeline_tests.simulator.options import Options
from ocr_pipeline_tests.simulator.pictures import crops_sum_to_zero
from ocr_pipeline_tests.simulator.refusals import Refusal
from ocr_pipeline_tests.simulator.tally import Journal

EXIT_AFTER_DEATH = 0.3  # seconds that a server with a dead engine still answers; the real one 0.6 to 4.1 (measured)


class Server:
    def __init__(self, options: Options) -> None:
        self.options = options
        self.faults = Faults()
        self.journal = Journal(options.journal)
        self.engine = Engine(options, self._engine_event)
        self.engine.on_out_of_memory = lambda: self.die("engine")
        self.exposition = Exposition(options, self.engine)
        self.journal.write("boot", time(), slots=options.slots)
        self._started = int(time())
        self._fingerprint = f"vllm-{options.vllm_version}-5c144af2"
        self._load = 0
        self._deaths_in = 0  # chat requests until the one that it dies with
        self._fault_timer: asyncio.TimerHandle | None = None
        self._dies_after_hang = ""  # the manner, where a poison page waits in an engine that hangs

    def _engine_event(self, what: str, job: Job) -> None:
        if what == "end":
            self.journal.write("end", time(), job=job.number, how=job.finish_reason)
        else:
            self.journal.write(what, time(), job=job.number)

    # ---- routes

    async def handle(self, request: HttpRequest, connection: Connection) -> None:
        path, method = request.path, request.method
        key = self.options.api_key
        if key is not None and path.startswith("/v1") and request.headers.get("authorization") != f"Bearer {key}":
            return connection.send(401, b'{"error":"Unauthorized"}')
        if path in ("/sim/faults", "/sim/stats"):
            return self._control(request, connection)
        allowed = {"/v1/chat/completions": "POST"}.get(path, "GET" if path in self._GETS else None)
        if allowed is None:
            return connection.send(404, b'{"detail":"Not Found"}')
        if method != allowed:
            return connection.send(405, b'{"detail":"Method Not Allowed"}', headers=(("allow", allowed),))
        if method == "GET":
            return self._GETS[path](self, connection)
        await self._chat(request, connection)

    def _health(self, connection: Connection) -> None:
        sick = self.engine.dead or self.faults.get("unhealthy") is not None
        connection.send(503 if sick else 200, b"", "")

    def _ping(self, connection: Connection) -> None:
        self._health(connection)

    def _version(self, connection: Connection) -> None:
        connection.send(200, _json({"version": self.options.vllm_version}))

    def _server_load(self, connection: Connection) -> None:
        connection.send(200, _json({"server_load": self._load if self.options.load_tracking else 0}))

    def _models(self, connection: Connection) -> None:
        model = {
            "id": self.options.model,
            "object": "model",
            "created": int(time()),
            "owned_by": "vllm",
            "root": self.options.model,
            "parent": None,
            "max_model_len": self.options.max_model_len,
            "permission": [],
        }
        connection.send(200, _json({"object": "list", "data": [model]}))

    def _metrics(self, connection: Connection) -> None:
        connection.send(200, self.exposition.text(), "text/plain; version=1.0.0; charset=utf-8")

    _GETS: ClassVar = {
        "/health": _health,
        "/ping": _ping,
        "/version": _version,
        "/load": _server_load,
        "/v1/models": _models,
        "/metrics": _metrics,
    }

    # ---- control

    def _control(self, request: HttpRequest, connection: Connection) -> None:
        if request.path == "/sim/stats":
            tally = self.journal.tally
            shown = {**tally.shown(), "busy_slot_seconds": tally.busy_now(time()), "now": time()}
            return connection.send(200, _json(shown))
        try:
            if request.method == "POST":
                self.set_faults(json.loads(request.body or b"{}"))
            elif request.method == "DELETE":
                self.clear_faults()
        except ValueError as problem:
            return connection.send(400, _json({"error": str(problem)}))
        connection.send(200, _json(self.faults.shown()))

    def set_faults(self, wanted: dict[str, Any]) -> None:
        if not isinstance(wanted, dict):
            raise ValueError("faults are a JSON object: {name: settings or null}")
        self.faults.update(wanted)
        if "die" in wanted and (die := self.faults.get("die")) is not None:
            self._deaths_in = int(die["at_request"] or 0)
            if not die["at_request"]:
                asyncio.get_running_loop().call_later(float(die["after_seconds"]), self.die, die["manner"])
        self._apply_faults()

    def clear_faults(self) -> None:
        self.faults.clear()
        self._apply_faults()

    def _apply_faults(self) -> None:
        """Brings the engine in line with the faults that are on, and looks again when the first of them ends."""
        hang, crawl, oom = (self.faults.get(name) for name in ("hang", "crawl", "oom"))
        slowness = 0.0 if hang is not None else float(crawl["factor"]) if crawl is not None else 1.0
        self.exposition.freeze_gauges(hang is not None and hang["frozen_gauges"])
        self.engine.memory_limit = None if oom is None else int(oom["tokens"])
        self.engine.set_factor(self.options.speed * slowness)
        ends = [float(f["for_seconds"]) for f in (hang, crawl, oom) if f is not None and f["for_seconds"] is not None]
        if self._fault_timer is not None:
            self._fault_timer.cancel()
            self._fault_timer = None
        if ends:
            self._fault_timer = asyncio.get_running_loop().call_later(min(ends) + 0.001, self._apply_faults)
        if hang is None and self._dies_after_hang:
            self.die(self._dies_after_hang)

    def die(self, manner: str) -> None:
        """ "engine": those in flight get a 500, /health 503, then the process exits with code 0, as the real one does.
        "lost": the process is killed and every connection with it."""
        if self.engine.dead:
            return
        self.journal.write("death", time())
        if manner == "lost":
            os.kill(os.getpid(), signal.SIGKILL)
        self.engine.die()
        asyncio.get_running_loop().call_later(EXIT_AFTER_DEATH, os._exit, 0)

    # ---- chat

    async def _chat(self, request: HttpRequest, connection: Connection) -> None:
        self._load += 1
        try:
            canned = self._storm()
            if canned is None:
                await self._answer(request, connection)
            else:
                self.journal.write("refused", time())
                status, body, content_type, headers = canned
                connection.send(status, body, content_type, headers=headers)
        except Refusal as refusal:
            self.journal.write("refused", time())
            connection.send(refusal.status, refusal.body, close=refusal.closes)
        finally:
            self._load -= 1

    def _storm(self) -> tuple[int, bytes, str, tuple[tuple[str, str], ...]] | None:
        for name, refusal in (("storm_503", refusals.queue_full()), ("storm_429", refusals.too_many_requests())):
            if (storm := self.faults.take(name)) is not None:
                after = storm["retry_after"]
                headers = () if after is None else (("retry-after", str(after)),)
                return refusal.status, refusal.body, "application/json", headers
        if (canned := self.faults.take("canned")) is not None:
            return int(canned["status"]), str(canned["body"]).encode(), str(canned["content_type"]), ()
        return None

    async def _answer(self, request: HttpRequest, connection: Connection) -> None:
        asked = chat.parse(request.body, request.headers.get("content-type", ""), self.options)
        if self.engine.dead:
            raise refusals.engine_dead()
        limit = self.options.max_num_queued_reqs
        if limit is not None and self.engine.running + self.engine.waiting + asked.n > limit:
            self.exposition.rejections += 1
            raise refusals.queue_full()
        given_id = request.headers.get("x-request-id") or asked.request_id
        request_id = f"chatcmpl-{given_id or secrets.token_hex(8)}"
        sha256 = asked.pictures[0].sha256 if asked.pictures else ""
        said = self._say(asked, sha256)
        jobs = [
            self.engine.new_job(asked.prompt_tokens, said.completion_tokens, said.finish_reason, asked.priority, sha256)
            for _ in range(asked.n)
        ]
        try:
            for job in jobs:
                self.journal.write("asked", time(), job=job.number, sha=sha256, id=given_id or "")
                self.engine.submit(job)
            self._perhaps_die(asked, sha256)
            if asked.stream:
                await self._stream(asked, said, jobs, request_id, connection)
                return
            try:
                await asyncio.gather(*(job.answer for job in jobs))
            except EngineDead:
                raise refusals.engine_dead() from None
            for job in jobs:
                self.exposition.observe(job, asked.max_tokens, asked.n)
            await self._send(self._body(asked, said, request_id), connection)
        finally:
            for job in jobs:
                self.engine.abort(job)

    def _perhaps_die(self, asked: ChatRequest, sha256: str) -> None:
        if self._deaths_in:
            self._deaths_in -= 1
            die = self.faults.get("die")
            if self._deaths_in == 0 and die is not None:
                self.die(die["manner"])
        how = {"greedy": asked.greedy, "grounded": asked.grounded, "guarded": asked.ngram is not None}
        if asked.pictures and (poison := self.faults.strikes("poison", sha256, **how)) is not None:
            self._read_poison(poison["manner"])
        if self.options.mode == "scripted" and any(crops_sum_to_zero(picture) for picture in asked.pictures):
            self._read_poison("engine")

    def _read_poison(self, manner: str) -> None:
        if self.faults.get("hang") is not None:
            self._dies_after_hang = manner  # an engine that stands still reads no page
        else:
            self.die(manner)

    def _say(self, asked: ChatRequest, sha256: str) -> Completion:
        return completion.complete(
            self._tokens(asked, sha256),
            asked.max_tokens,
            skip_special=asked.skip_special or self.faults.take("stripped_tags") is not None,
            stop=asked.stop,
            repetition=asked.repetition,
        )

    def _tokens(self, asked: ChatRequest, sha256: str) -> Iterable[str]:
        if self.options.mode == "scripted":
            return texts.scripted(asked.text[-1:], asked.ngram, asked.window, asked.whitelist)
        guarded = asked.ngram is not None
        how = {"greedy": asked.greedy, "grounded": asked.grounded, "guarded": guarded}
        if self.faults.strikes("empty", sha256, **how) is not None:
            return ()
        if self.faults.strikes("garbage", sha256, **how) is not None:
            return texts.garbage(sha256)
        clean = texts.page(sha256, self.options.mean_tokens, grounded=asked.grounded)
        if self.faults.strikes("loops", sha256, **how) is not None:
            return texts.looping(clean, guarded=guarded)
        return clean

    def _body(self, asked: ChatRequest, said: Completion, request_id: str) -> bytes:
        def choice(index: int) -> dict[str, Any]:
            message = dict.fromkeys(("refusal", "annotations", "audio", "function_call", "reasoning"))
            return {
                "index": index,
                "message": {"role": "assistant", "content": said.text, **message},
                "logprobs": None,
                "finish_reason": said.finish_reason,
                "stop_reason": said.stop_reason,
                "token_ids": None,
                "routed_experts": None,
            }

        return _json(
            {
                "id": request_id,
                "object": "chat.completion",
                "created": int(time()),
                "model": self.options.model,
                "choices": [choice(index) for index in range(asked.n)],
                "service_tier": None,
                "system_fingerprint": self._fingerprint,
                "usage": {**_usage(asked, said), "prompt_tokens_details": None, "completion_tokens_details": None},
                "prompt_logprobs": None,
                "prompt_token_ids": None,
                "prompt_text": None,
                "kv_transfer_params": None,
                "ec_transfer_params": None,
                "metrics": None,
            }
        )

    async def _send(self, body: bytes, connection: Connection) -> None:
        if (slow := self.faults.take("slow_headers")) is not None:
            await asyncio.sleep(float(slow["delay"]))
        if (drop := self.faults.take("drop")) is not None:
            if drop["half"]:
                connection.write(_whole_head(body) + body[: len(body) // 2])
            connection.close()
            return
        if self.faults.take("half_dead") is not None:
            connection.write(_whole_head(body) + body[: len(body) // 2])
            await asyncio.get_running_loop().create_future()  # until the client goes away
        connection.send(200, body)

    async def _stream(
        self, asked: ChatRequest, said: Completion, jobs: list[Job], request_id: str, connection: Connection
    ) -> None:
        """All chunks come when the answer is complete: nothing here depends on their times."""
        connection.start_stream()

        def chunk(choices: list[dict[str, Any]], **more: Any) -> None:
            fields = {"id": request_id, "object": "chat.completion.chunk", "created": int(time())}
            fields |= {"model": self.options.model, "choices": choices, **more}
            connection.stream(f"data: {_json(fields).decode()}\n\n")

        def delta(content: dict[str, str], finish: str | None = None) -> list[dict[str, Any]]:
            return [{"index": 0, "delta": content, "logprobs": None, "finish_reason": finish}]

        chunk(delta({"role": "assistant", "content": ""}))
        try:
            await asyncio.gather(*(job.answer for job in jobs))
        except EngineDead:
            # A client that overlooks this line takes the answer for complete: [DONE] follows all the same (measured).
            connection.stream(f"data: {_json({'error': refusals.engine_dead().error}).decode()}\n\n")
        else:
            for job in jobs:
                self.exposition.observe(job, asked.max_tokens, asked.n)
            for piece in filter(None, said.pieces):
                chunk(delta({"content": piece}))
            chunk(delta({"content": ""}, said.finish_reason))
            if asked.include_usage:
                chunk([], usage=_usage(asked, said))
        connection.stream("data: [DONE]\n\n")
        connection.end_stream()


def _usage(asked: ChatRequest, said: Completion) -> dict[str, int]:
    output = said.completion_tokens * asked.n
    return {
        "prompt_tokens": asked.prompt_tokens,
        "total_tokens": asked.prompt_tokens + output,
        "completion_tokens": output,
    }


def _whole_head(body: bytes) -> bytes:
    return head(200, "application/json", (("content-length", str(len(body))),))


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


async def serve(options: Options, faults: dict[str, Any], *, until_stdin_closes: bool) -> None:
    """Serves on 127.0.0.1 until SIGTERM or SIGINT. The first line on stdout is the server's URL."""
    loop = asyncio.get_running_loop()
    server = Server(options)
    server.set_faults(faults)
    listener = await loop.create_server(lambda: Connection(server.handle), "127.0.0.1", options.port, backlog=1024)
    stopped = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopped.set)
    if until_stdin_closes:  # a test process that is killed leaves no server behind
        loop.add_reader(sys.stdin.fileno(), lambda: os.read(0, 1024) or os._exit(0))
    print(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", flush=True)
    await stopped.wait()
    # vLLM's default is --shutdown-timeout 0: those in flight get the dead engine's 500 at once.
    server.journal.write("death", time())
    server.engine.die()
    listener.close()
    await asyncio.sleep(0.05)
