"""Every goal's command in turn, and the figures in `benchmarks/README.md`: `python -m benchmarks.all [--quick]`.

One sitting on one machine (about 50 minutes; each command's share stands in `SITTING`): before each command it waits
until the machine is quiet again, and a command that starts on a busy machine is marked. The tables go between the
README's markers, so that no figure there is older, from elsewhere, or without its command. A command that fails leaves
"failed" in its place, never an older figure. `--quick` takes small sizes, to see that the commands work: about 8
minutes, and the README stays as it is. `--write` makes the tables from the results that are there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from benchmarks.measure import BUSY, QUIET, RESULTS, ROOT

README = ROOT / "benchmarks" / "README.md"
BEGIN, END = "<!-- figures: written by python -m benchmarks.all -->", "<!-- end of figures -->"
PATIENCE = 240  # s that a command is held back for the machine to become quiet


@dataclass(frozen=True, slots=True)
class Command:
    """A benchmark: its module and arguments, the result it writes, and minutes on two quiet cores."""

    words: str
    result: str
    minutes: float
    quick: str = ""  # further arguments with --quick

    @property
    def line(self) -> str:
        return f"python -m benchmarks.{self.words}"


SITTING = (
    Command("client_cost", "client_cost", 2, "--pages-up-to 3"),
    Command("client_cost --without-poppler", "client_cost_without_poppler", 2, "--pages-up-to 3"),
    Command("parts", "parts", 1, "--pages-up-to 3"),
    Command("parts --without-poppler", "parts_without_poppler", 1, "--pages-up-to 3"),
    Command("peers.compare", "peers", 15, "--pages-up-to 2 --only ours"),
    Command("slots --dilate 5", "slots", 6, "--documents 10 --pages 40"),
    Command("memory", "memory", 4, "--pages 200"),
    Command("batch_cost", "batch_cost", 2, "--batches 3"),
    Command("tail", "tail", 3, "--pages 60 --seconds-per-page 1"),
    Command("latency", "latency", 3, "--times 2"),
    Command("backfill", "backfill", 10, "--batches 4 --minutes 3"),
    Command("scale_model", "scale_model", 0.2),
    Command("scale_model --check", "scale_check", 2),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    failed: list[str] = []
    if not arguments.write:
        failed = [command.line for command in SITTING if not ran(command, arguments.quick)]
    results = {command: _result(command) for command in SITTING}
    print("\n" + goal_table(results))
    if not arguments.quick:
        text = README.read_text()
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        README.write_text(f"{before}{BEGIN}\n{figures(results)}\n{END}{after}")
        print(f"written: {README.relative_to(ROOT)}")
    for line in failed:
        print(f"failed: {line}")
    return 1 if failed else 0


def ran(command: Command, quick: bool) -> bool:
    """Runs it when the machine is quiet; whether it left a result. An earlier sitting's is taken away first."""
    until = time.monotonic() + PATIENCE
    while not quick and os.getloadavg()[0] > QUIET and time.monotonic() < until:
        time.sleep(2)
    (RESULTS / f"{command.result}.json").unlink(missing_ok=True)
    words = command.words.split() + (command.quick.split() if quick else [])
    print(f"\n== python -m benchmarks.{' '.join(words)}", flush=True)
    program = [sys.executable, "-m", f"benchmarks.{words[0]}", *words[1:]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        subprocess.run(program, cwd=ROOT, env=environment, timeout=60 * (10 + 4 * command.minutes), check=False)
    except subprocess.TimeoutExpired:
        print("it did not end in time")
    return _result(command) is not None


def _result(command: Command) -> dict[str, Any] | None:
    path = RESULTS / f"{command.result}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _run(command: Command, result: dict[str, Any]) -> str:
    """The command that gave this result, with the arguments that it was given."""
    return " ".join([f"python -m benchmarks.{command.words.split()[0]}", *result["arguments"]])


def goal_table(results: dict[Command, dict[str, Any] | None]) -> str:
    rows: list[Sequence[object]] = []
    for command, result in results.items():
        if result is None:
            rows.append((f"(of {command.result})", "", "failed", "", "", "", f"`{command.line}`"))
            continue
        load = result["machine"]["load_at_start"]
        for goal in result.get("goals", []):
            verdict = "yes" if goal["met"] else "**no**"
            if result["machine"]["busy"]:
                verdict += ", busy machine"
            cells = (
                goal["what"],
                goal["asked"],
                goal["figure"],
                verdict,
                goal["note"],
                load,
                f"`{_run(command, result)}`",
            )
            rows.append(cells)
    return table(("goal", "asked", "figure", "met", "measured on", "load", "command"), rows)


def figures(results: dict[Command, dict[str, Any] | None]) -> str:
    """The generated part of the README: where and when, the goals, and each command's own table."""
    found = [result["machine"] for result in results.values() if result is not None]
    if not found:
        return "Nothing was measured yet."
    first, last = min(m["at"] for m in found), max(m["at"] for m in found)
    where = f"{found[0]['cores']} cores ({found[0]['processor']}), Python {found[0]['python']}"
    parts = [
        f"Measured {first[:16]} to {last[:16]} UTC on {where}; written {datetime.now(UTC):%Y-%m-%d}. The load is the "
        f"machine's own in the minute before the command began; above {QUIET} the row says {BUSY!r}.",
        goal_table(results),
    ]
    for command, result in results.items():
        if result is None:
            continue
        busy = f" {BUSY.capitalize()}." if result["machine"]["busy"] else ""
        told = f"`{_run(command, result)}`, about {command.minutes:g} min.{busy}"
        parts.append(f"### {result['title']}\n\n{told}")
        parts.append(table(result["columns"], result["rows"]))
        parts += [f"- {line}" for line in result.get("remarks", ())]
    return "\n\n".join(parts)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *(f"| {' | '.join(map(_cell, row))} |" for row in rows)])


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value).strip().replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
