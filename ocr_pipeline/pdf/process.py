"""The worker process as the renderer sees it: started, asked, waited for with a deadline, killed with its children.

Here belongs the life of the process and its pipes. Not here: what is asked (`renderer.py`), what it does
(`worker.py`).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ocr_pipeline.pdf import frames

_START_SECONDS = 120.0  # 0.2 s on an idle machine
_READ_BYTES = 1 << 20
_STDERR_TAIL = 300

_INHERITED = (
    *("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE"),
    *("PYTHONPATH", "VIRTUAL_ENV", "FONTCONFIG_FILE", "FONTCONFIG_PATH", "XDG_CACHE_HOME", "SYSTEMROOT"),
)
"""All of the environment that the worker gets: what reads hostile files holds no token of the lake or a server."""


class WorkerLost(Exception):
    """The worker died, was killed because it took too long, or spoke nonsense. The next request starts another."""

    def __init__(self, detail: str, *, timed_out: bool = False, killed: bool = False) -> None:
        super().__init__(detail)
        self.detail = detail
        self.timed_out = timed_out
        self.killed = killed  # by somebody else's SIGKILL: the system short of memory, a person


class WorkerProcess:
    """One running worker. It belongs to one thread, but for `kill`. After WorkerLost it is gone."""

    def __init__(self, memory_bytes: int) -> None:
        """Starts it; `wait_until_ready` before the first request. Raises OSError."""
        self._selector = selectors.DefaultSelector()
        self._scratch = Path(tempfile.mkdtemp(prefix="ocr-pipeline-pdf-"))
        self._stderr = self._scratch / "stderr"
        try:
            self._process = self._start(memory_bytes)
        except BaseException:
            self._selector.close()
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise
        self._finalizer = weakref.finalize(self, _terminate, self._process, self._selector, self._scratch)
        self._requests, self._answers = _pipes(self._process)
        os.set_blocking(self._answers.fileno(), False)
        self._selector.register(self._answers, selectors.EVENT_READ)
        self._buffer = bytearray()

    def _start(self, memory_bytes: int) -> subprocess.Popen[bytes]:
        package_root = Path(__file__).resolve().parents[2]
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(package_root), environment.get("PYTHONPATH")]))
        # Each thread's arena would reserve 64 MB of the address space that is limited, and hold on to what it freed.
        environment["MALLOC_ARENA_MAX"] = "1"
        with self._stderr.open("wb") as stderr:
            return subprocess.Popen(
                # -P: the current folder may be anyone's; nothing is imported from it.
                [sys.executable, "-P", "-m", "ocr_pipeline.pdf.worker", str(self._scratch), str(memory_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                start_new_session=True,  # one group with its poppler children, to be killed as one; no Ctrl-C from us
            )

    def wait_until_ready(self) -> None:
        """Raises WorkerLost."""
        self._next_frame(_START_SECONDS)

    def ask(self, request: frames.Header, seconds: float) -> Iterator[frames.Frame]:
        """The frames of the answer. `seconds` is the longest wait for each. Raises WorkerLost."""
        try:
            self._requests.write(frames.pack(request))
            self._requests.flush()
        except OSError:
            raise self._lost("died before the request") from None
        while True:
            frame = self._next_frame(seconds)
            if frame[0].get("end"):
                return
            yield frame

    def kill(self) -> None:
        """End the worker and its children, from any thread: who waits for an answer gets WorkerLost. The pipes stay
        open until `close`: the waiting thread reads from them."""
        if self._finalizer.alive:
            _kill_group(self._process)

    def close(self) -> None:
        """Kill the worker and its children, and remove its folder."""
        self._finalizer()

    def _next_frame(self, seconds: float) -> frames.Frame:
        deadline = time.monotonic() + seconds
        while True:
            try:
                frame = frames.take(self._buffer)
            except frames.BadFrame as error:
                raise self._lost(f"spoke nonsense ({error})") from error
            if frame is not None:
                return frame
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._lost(f"took longer than {seconds:g} s", timed_out=True)
            if not self._selector.select(left):
                continue
            try:
                data = os.read(self._answers.fileno(), _READ_BYTES)
            except BlockingIOError:
                continue
            if not data:
                raise self._lost("died")
            self._buffer += data

    def _lost(self, what: str, *, timed_out: bool = False) -> WorkerLost:
        code = 0
        if not timed_out:
            # Its pipe is closed, so it is ending: learn how, before it is killed.
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(1)
                what = f"{what} ({_cause(code)})"
        said = ""
        with contextlib.suppress(OSError):
            said = self._stderr.read_bytes()[-_STDERR_TAIL:].decode("utf-8", "replace").strip()
        last = said.splitlines()[-1] if said else ""
        self.close()
        if last and not timed_out:
            what = f"{what}: {last}"
        return WorkerLost(what, timed_out=timed_out, killed=code == -signal.SIGKILL)


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the worker was started without pipes")
    return process.stdin, process.stdout


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # Where the process was not waited for yet its id is still its own, so the group cannot be somebody else's; where
    # it was, poppler children may be left in the group, which then keeps the id from being given out again.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _terminate(process: subprocess.Popen[bytes], selector: selectors.BaseSelector, scratch: Path) -> None:
    _kill_group(process)
    process.wait()
    selector.close()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()
    shutil.rmtree(scratch, ignore_errors=True)
