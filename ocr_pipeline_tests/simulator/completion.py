"""A token stream cut to an answer: max_tokens, stop strings, vLLM's repetition detection, special tokens.

Pure. Not here: where the tokens come from (`texts`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from ocr_pipeline_tests.simulator.texts import SPECIAL


@dataclass(frozen=True, slots=True)
class Completion:
    tokens: list[str]  # as said
    pieces: list[str]  # as shown: without special tokens where these are skipped, cut at a stop string
    completion_tokens: int  # the end token counts too
    finish_reason: str  # "stop", "length", "repetition"
    stop_reason: str | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Repetition:
    """vLLM's `repetition_detection`: ends the answer when its tail is one pattern, `min_count` times over."""

    max_pattern_size: int
    min_pattern_size: int = 1
    min_count: int = 2


def complete(
    tokens: Iterable[str],
    max_tokens: int,
    *,
    skip_special: bool = False,
    stop: tuple[str, ...] = (),
    repetition: Repetition | None = None,
) -> Completion:
    said = list(islice(tokens, max_tokens))
    ended = len(said) < max_tokens  # the end token needs room as well
    finish, reason, used = ("stop", None, len(said) + 1) if ended else ("length", None, max_tokens)
    if repetition is not None and (at := _repeats_at(said, repetition)) is not None:
        said, finish, reason, used = said[:at], "repetition", "repetition_detected", at
    pieces = ["" if skip_special and token in SPECIAL else token for token in said]
    if stop and (cut := _stops_at(pieces, stop)) is not None:
        at, word = cut
        used = _tokens_up_to(pieces, at + len(word))
        return Completion(said[:used], ["".join(pieces)[:at]], used, "stop", word)
    return Completion(said, pieces, used, finish, reason)


def _repeats_at(said: list[str], rule: Repetition) -> int | None:
    """After how many tokens the rule fires. A pattern of p stands c times at the end when p*(c-1) tokens in a row
    each equal the token p before."""
    sizes = range(rule.min_pattern_size, rule.max_pattern_size + 1)
    runs = dict.fromkeys(sizes, 0)
    for at, token in enumerate(said):
        for size in sizes:
            if at < size:
                break
            runs[size] = runs[size] + 1 if said[at - size] == token else 0
            if runs[size] >= size * (rule.min_count - 1):
                return at + 1
    return None


def _stops_at(pieces: list[str], stop: tuple[str, ...]) -> tuple[int, str] | None:
    text = "".join(pieces)
    found = [(at, word) for word in stop if (at := text.find(word)) >= 0]
    return min(found) if found else None


def _tokens_up_to(pieces: list[str], characters: int) -> int:
    length = 0
    for index, piece in enumerate(pieces, start=1):
        length += len(piece)
        if length >= characters:
            return index
    return len(pieces)
