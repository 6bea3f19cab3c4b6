"""Is a backend ready to read pages? Asked by `doctor`, each failure with its mend.

Here belong the questions and the mends. What watches a server while it works is health.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ocr_pipeline.ocr.parsing.parse import parse_text
from ocr_pipeline.ocr.quality.verdict import judge
from ocr_pipeline.ocr.vllm.answers import Answer, Ask, Fault, Rung
from ocr_pipeline.ocr.vllm.backends import Backend
from ocr_pipeline.ocr.vllm.client import ServedModels, VllmClient
from ocr_pipeline.ocr.vllm.serve import dotted, serve_command
from ocr_pipeline.records import PageImage

SAMPLE_SECONDS = 180.0  # a server that has just started compiles at its first page


@dataclass(frozen=True, slots=True)
class Check:
    """One question. `mend` is what to do where it is not ok."""

    name: str
    ok: bool
    detail: str
    mend: str = ""


async def preflight(backend: Backend, sample_jpeg: bytes) -> list[Check]:
    """All checks in order; what makes the later ones senseless is the last. Sends two pages at most. Never raises.

    `sample_jpeg` is a page with text.
    """
    client = VllmClient(backend)
    try:
        return await _checks(backend, sample_jpeg, client)
    finally:
        await client.aclose()


async def _checks(backend: Backend, sample_jpeg: bytes, client: VllmClient) -> list[Check]:
    health = await client.health()
    if health.fault is not None:
        return [Check("reachable", False, f"{health.outcome}: {health.detail}", _mend(backend, health.outcome))]
    served = await client.models()
    if served.fault is not None:
        said = f"{served.outcome}: {served.detail}"
        return [Check("reachable", False, said, _mend(backend, served.outcome))]
    checks = [Check("reachable", True, backend.url), model_check(backend, served)]
    if not checks[-1].ok:
        return checks
    checks.append(length_check(backend, served))
    version = await client.version()
    checks.append(version_check(backend, version))
    first = backend.model.rungs[0]
    if backend.model.logits_processor:
        # The processor refuses a size of 0; where it is not loaded, nobody looks at the number.
        wrong = replace(
            first,
            sampling={**first.sampling, "max_tokens": 1},
            extra_body={**first.extra_body, "vllm_xargs": {"ngram_size": 0}},
        )
        checks.append(processor_check(backend, await _ask(client, sample_jpeg, wrong), version))
    answer = await _ask(client, sample_jpeg, first)
    sample = sample_check(backend, answer)
    if answer.fault is not None or backend.model.format != "grounding":
        return [*checks, sample]
    tags = tags_check(answer)
    if not tags.ok:
        return [*checks, tags]  # which is why the sample is garbage, too
    return [*checks, sample, tags] if sample.ok else [*checks, sample]


async def _ask(client: VllmClient, jpeg: bytes, rung: Rung) -> Answer:
    return await client.ask(Ask(jpeg=jpeg, rung=rung, request_id=f"preflight-{rung.name}", timeout=SAMPLE_SECONDS))


def model_check(backend: Backend, served: ServedModels) -> Check:
    names = [model.id for model in served.models]
    if backend.served_model in names:
        return Check("model", True, backend.served_model)
    shown = ", ".join(names[:10]) or "no model"
    mend = f'write served_model = "{names[0]}"' if len(names) == 1 else "write one of these as served_model"
    return Check(
        "model",
        False,
        f"the server has {shown}, not {backend.served_model}",
        f"{mend} for {backend.name!r} if that is {backend.model.model}, or serve the model: {_line(backend)}",
    )


def length_check(backend: Backend, served: ServedModels) -> Check:
    """Prompt, image and the longest answer must fit; and the client must not count on more than there is."""
    needed = backend.model.prompt_tokens + max(int(rung.sampling["max_tokens"]) for rung in backend.model.rungs)
    there = next((model.max_model_len for model in served.models if model.id == backend.served_model), None)
    if there is None:
        return Check("max_model_len", True, "the server does not tell")
    if there < backend.max_model_len and there < needed:
        return Check(
            "max_model_len",
            False,
            f"{there} tokens, of which a page's image takes up to {backend.model.prompt_tokens}: dense pages are cut",
            f"start the server with --max-model-len {backend.model.context_length}; or, to live with it, write "
            f"max_model_len = {there} for {backend.name!r}",
        )
    if needed > backend.max_model_len:
        return Check("max_model_len", True, f"{there}; answers end at {backend.max_model_len} as the file has it")
    return Check("max_model_len", True, str(there))


def version_check(backend: Backend, version: str | None) -> Check:
    model = backend.model
    number = version_number(version)
    if number is None:
        return Check("vLLM", True, f"version not told ({version})" if version else "version not told")
    least = max(filter(None, (model.min_vllm, backend.gpu.min_vllm)))
    if number < least:
        return Check(
            "vLLM",
            False,
            f"{version}; {model.model} on {backend.gpu.name} needs {dotted(least)} or later",
            f"install vLLM {backend.gpu.pinned_vllm}",
        )
    if model.max_vllm is not None and number > model.max_vllm:
        env = " ".join(f"{name}={value}" for name, value in model.later_env.items())
        return Check("vLLM", True, f"{version}; after {dotted(model.max_vllm)} it must be started with {env}")
    return Check("vLLM", True, str(version))


def version_number(version: str | None) -> tuple[int, int, int] | None:
    """`0.11.1`, `v0.30.0rc1`, `0.32.0+cpu` as three numbers; None for anything else."""
    match = re.match(r"v?(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?", version or "")
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def processor_check(backend: Backend, answer: Answer, version: str | None) -> Check:
    """`answer` is to a request with `ngram_size` 0."""
    name = "logits processor"
    processor = backend.model.logits_processor or ""
    if answer.fault is Fault.CONFIG and "ngram_size" in answer.detail:
        return Check(name, True, processor.rpartition(":")[2])
    if answer.fault is not None:
        return Check(name, False, f"{answer.outcome}: {answer.detail}", _mend(backend, answer.outcome))
    number = version_number(version)
    later = backend.model.max_vllm is not None and number is not None and number > backend.model.max_vllm
    env = " and ".join(f"{key}={value} in its environment" for key, value in backend.model.later_env.items())
    return Check(
        name,
        False,
        "not loaded: nothing guards this server against loops",
        f"start it with --logits-processors {processor}" + (f" and {env}" if later else ""),
    )


def sample_check(backend: Backend, answer: Answer) -> Check:
    name = "sample page"
    if answer.fault is not None:
        return Check(name, False, f"{answer.outcome}: {answer.detail}", _mend(backend, answer.outcome))
    verdict = judge(answer.text, answer.finish_reason, _SAMPLE, backend.model.format)
    if verdict.reason is not None:
        return Check(
            name,
            False,
            f"{verdict.reason.value}: {verdict.detail or 'no good text'} (finish_reason {answer.finish_reason})",
            f"the server answers but does not read: is {backend.served_model} really {backend.model.model}, and was it "
            f"started with: {_line(backend)}",
        )
    parsed = parse_text(answer.text, backend.model.format, _SAMPLE.width, _SAMPLE.height)
    tokens = f", {answer.completion_tokens} tokens" if answer.completion_tokens is not None else ""
    return Check(name, True, f"{len(parsed.markdown)} characters{tokens} in {answer.seconds:.1f} s")


# What the judge must know of the sample page: it has text, and nobody knows which.
_SAMPLE = PageImage(
    document_id="preflight",
    page_number=1,
    pages_in_document=1,
    urgent=False,
    jpeg=b"",
    sha256="",
    width=1000,
    height=1000,
    ink=0.05,
    text_layer="",
)


def tags_check(answer: Answer) -> Check:
    if "<|det|>" in answer.text or "[[" not in answer.text:
        boxes = answer.text.count("<|det|>")
        return Check("tags", True, f"{boxes} box(es)" if boxes else "the sample has none")
    return Check(
        "tags",
        False,
        "the tags are stripped from the answer, and table cells with them",
        "something between here and the server drops skip_special_tokens: let the url point at vLLM itself",
    )


def _mend(backend: Backend, outcome: str) -> str:
    mends = {
        "connect_failed": f"is the server running, and {backend.url} right? Start it with: {_line(backend)}",
        "connect_timeout": f"nothing answers at {backend.url}: look at firewall, tunnel and address",
        "timeout": "the server is there and does not answer: look at its log, restart it if it hangs",
        "tls_failed": "give the server a certificate that this machine trusts, or use http:// within your own network",
        "unauthorized": f"put the server's API key into a variable and name it as api_key_env of {backend.name!r}",
        "forbidden": f"a proxy refuses: check the variables under headers_env of {backend.name!r}",
        "access_login": "create a service token in Cloudflare Access, name the variables that hold it as "
        "CF-Access-Client-Id and CF-Access-Client-Secret under [backend.headers_env]",
        "not_found": f"{backend.url} is not vLLM's root: write it without /v1 or any other path",
        "redirect": f"{backend.url} is not vLLM's root: write the address it sends on to, if that is the server",
        "not_vllm": f"{backend.url} answers, but is not vLLM",
        "bad_request": f"the server is set up otherwise than {backend.name!r} says; start it with: {_line(backend)}",
        "unknown_model": "write the name the server uses as served_model",
        "engine_dead": "the engine died: look at the server's log; let its supervisor restart it always",
        "engine_error": "the engine gave this request up: look at the server's log, out of memory among the causes",
        "connection_lost": "the server died or a proxy cut the connection: look at its log",
    }
    return mends.get(outcome, "look at the server's log")


def _line(backend: Backend) -> str:
    served = None if backend.served_model == backend.model.model else backend.served_model
    return serve_command(backend.gpu, backend.model, served_model=served).line()
