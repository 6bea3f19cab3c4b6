"""`python -m ocr_pipeline_tests.simulator --port 0 --profile rtx-4090 …`: one simulated server. Its URL is printed."""

from __future__ import annotations

import argparse
import asyncio
import json

from ocr_pipeline_tests.simulator.faults import Faults
from ocr_pipeline_tests.simulator.options import PROFILES, Options
from ocr_pipeline_tests.simulator.server import serve


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ocr_pipeline_tests.simulator", description=__doc__)
    add = parser.add_argument
    default = Options()
    add("--port", type=int, default=default.port, help="0: a free one")
    add("--profile", choices=PROFILES, default=default.profile)
    add("--mode", choices=("page", "scripted"), default=default.mode)
    add("--speed", type=float, default=default.speed, help="all model times are divided by this")
    add("--seconds-per-page", type=float, help="each page holds its slot exactly this long, divided by --speed")
    add("--mean-tokens", type=int, default=default.mean_tokens, help="of a page's text")
    add("--model", default=default.model)
    add("--max-model-len", type=int, default=default.max_model_len)
    add("--max-num-seqs", type=int, help="slots; default: the profile's")
    add("--kv-tokens", type=int, help="KV memory; default: the profile's")
    add("--max-num-queued-reqs", type=int, help="503 above this many, waiting and running together")
    add("--images-per-prompt", type=int)
    add("--api-key")
    add("--scheduling-policy", choices=("fcfs", "priority"), default=default.scheduling_policy)
    add("--no-logits-processor", dest="logits_processor", action="store_false")
    add("--load-tracking", action="store_true")
    add("--vllm-version", default=default.vllm_version)
    add("--journal", help="file that every event is appended to")
    add("--faults", default="{}", help="JSON, as POST /sim/faults takes it")
    add("--until-stdin-closes", action="store_true", help="exit with the process that holds the other end of stdin")
    return parser


def main() -> None:
    parser = _parser()
    arguments = vars(parser.parse_args())
    until_stdin_closes = arguments.pop("until_stdin_closes")
    try:
        faults = json.loads(arguments.pop("faults"))
        options = Options(**arguments)
        options.check()
        Faults().update(faults)
    except ValueError as problem:
        parser.error(str(problem))
    try:
        import uvloop  # comes with dagster-webserver's uvicorn[standard]; halves the CPU time of a request
    except ImportError:
        asyncio.run(serve(options, faults, until_stdin_closes=until_stdin_closes))
    else:
        uvloop.run(serve(options, faults, until_stdin_closes=until_stdin_closes))


if __name__ == "__main__":
    main()
