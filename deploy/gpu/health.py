"""Whether a vLLM server is well, told from its own /metrics: exit code 0 well, 1 not.

Run inside the container by Docker's health check or Kubernetes' liveness probe; needs nothing but Python 3.8.
/health is 200 for a hung engine (vllm issue 39863), so progress is what is looked at: requests are held, and the number
of generated tokens has not moved for `--hung-after` seconds; or the server answered once and has been silent for so
long, as when its HTTP front end is stuck. What was seen is kept in a file between two runs.
Docker restarts a container that ended, never one that is unhealthy: `--end-a-hung-server` kills the `vllm serve`
processes of a hung server, so that `restart: always` starts it again. A server that starts up is never ended.
Of a server that is well it tells whether its engine has loaded vLLM's Flash Attention; that informs and judges nothing.
"""

import argparse
import contextlib
import http.client
import json
import os
import signal
import sys
import time
import urllib.request

RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"
GENERATED = "vllm:generation_tokens_total"


def total(metrics, name):
    """The sum of a family's samples in Prometheus text over all engines; None where it is not there."""
    found = None
    for line in metrics.splitlines():
        rest = line[len(name) :]
        if line.startswith(name) and rest[:1] in ("{", " "):
            try:
                value = float(rest.rpartition("}")[2].split()[0])
            except (ValueError, IndexError):
                continue
            found = value if found is None else found + value
    return found


def judge(before, held, generated, now, hung_after):
    """`(what to remember, None or what is wrong)`. `before` is what the last look remembered, or {}.

    `held`: requests that run or wait; a stuck server whose memory is full may run none. Remembered: the token count
    and since when it stands while requests are held. Another count than before: it moves, or is a new server.
    """
    if held is None or generated is None:
        return {}, f"/metrics has no {RUNNING} or {GENERATED}: is this vLLM?"
    since = before.get("since") if before.get("generated") == generated else None
    if held <= 0:
        return {"generated": generated, "since": None}, None
    since = now if since is None else since
    if now - since >= hung_after:
        wrong = f"hung: {held:.0f} requests are held and no token came for {now - since:.0f} s"
        return {"generated": generated, "since": since}, wrong
    return {"generated": generated, "since": since}, None


def judge_silence(before, now, hung_after):
    """As `judge`, for a look that got no answer. A server that never answered starts up, however long that takes."""
    if not before.get("answered"):
        return before, None
    since = before.get("silent_since") or now
    wrong = f"hung: it has answered nothing for {now - since:.0f} s" if now - since >= hung_after else None
    return {**before, "silent_since": since}, wrong


def life():
    """Tells one start of the container from the next, which may find the file of the last one: when process 1 began."""
    try:
        with open("/proc/1/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def ask(url, timeout):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=timeout) as answer:
        return answer.read().decode("utf-8", "replace")


def remembered(path):
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("life") == life() else {}


def remember(path, what):
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump({**what, "life": life()}, file)
    os.replace(path + ".new", path)


def server_processes(marker, proc="/proc"):
    """Process ids whose command line holds `marker`, oldest first; never this process or process 1."""
    found = []
    for name in os.listdir(proc):
        if not name.isdigit() or int(name) in (1, os.getpid()):
            continue
        try:
            with open(os.path.join(proc, name, "cmdline"), "rb") as file:
                words = file.read().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        if marker in " ".join(words) and "health.py" not in " ".join(words):
            found.append(int(name))
    return sorted(found)


def flash_attention(proc="/proc"):
    """The library of vLLM's Flash Attention (`_vllm_fa2_C…`, `_vllm_fa3_C…`) that a process here has loaded, or None.

    vLLM's log names the attention code, but no program inside the container can read that log.
    """
    for name in os.listdir(proc):
        if name.isdigit():
            with contextlib.suppress(OSError), open(os.path.join(proc, name, "maps"), encoding="utf-8") as file:
                for line in file:
                    library = line.rstrip("\n").rpartition("/")[2]
                    if library.startswith("_vllm_fa"):
                        return library
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument(
        "--hung-after", type=float, default=120.0, help="seconds without a token while requests are held"
    )
    parser.add_argument("--timeout", type=float, default=5.0)
    # in memory: no trace in the image, and gone with the container
    parser.add_argument("--state", default="/dev/shm/ocr-vllm-progress.json")  # noqa: S108
    parser.add_argument("--end-a-hung-server", action="store_true")
    parser.add_argument("--server", default="vllm serve", help="what the server's command line holds")
    options = parser.parse_args()
    before = remembered(options.state)
    try:
        ask(options.url + "/health", options.timeout)
        metrics = ask(options.url + "/metrics", options.timeout)
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        state, wrong = judge_silence(before, time.time(), options.hung_after)
        wrong = wrong or f"no answer: {error}"
    else:
        running = total(metrics, RUNNING)
        held = None if running is None else running + (total(metrics, WAITING) or 0)
        state, wrong = judge(before, held, total(metrics, GENERATED), time.time(), options.hung_after)
        state["answered"] = True
    remember(options.state, state)
    if wrong is None:
        library = flash_attention()
        print(f"well; Flash Attention: {library or 'not loaded, other attention code is slower and not wrong'}")
        return 0
    print(wrong)
    if options.end_a_hung_server and wrong.startswith("hung"):
        for pid in server_processes(options.server):
            print(f"ending process {pid}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        remember(options.state, {})
    return 1


if __name__ == "__main__":
    sys.exit(main())
