"""What the model says: lists of tokens, made from the image's hash or from the prompt's last character.

A text is a list of strings, one a token, so that every count in usage and metrics is exact. Not here: when it is
said (`engine`), and how it is cut to max_tokens and stop strings (`completion`).
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path

SPECIAL = frozenset({"<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|grounding|>", "<image>"})
"""Tokens that `skip_special_tokens` (vLLM's default) takes out of the text."""


# The lab's tiny model (make_model.py of the vllm-lab): its output follows from the prompt's last character alone.
_SCRIPT = [
    "<|ref|>", "title", "<|/ref|>", "<|det|>", "[[56, 48, 941, 102]]", "<|/det|>", "\n# Tiny title", "\n\n",
    "<|ref|>text<|/ref|><|det|>[[60, 120, 930, 300]]<|/det|>\nTiny paragraph, größer 中文.\n\n",
    "<|ref|>table<|/ref|><|det|>[[60, 320, 930, 500]]<|/det|>\n<table>", "<tr>", "<td>a</td>", "</tr></table>",
]  # fmt: skip
_LOOP = [f" loop{i}" for i in range(1, 8)]
_NEXT = {"!": _LOOP[0], **dict(zip(_LOOP, [*_LOOP[1:], _LOOP[0]], strict=True)), "?": "<td>", "<td>": "</td>",
         "</td>": "<td>", ".": _SCRIPT[0], **dict(pairwise(_SCRIPT))}  # fmt: skip
_SECOND = {**dict.fromkeys(_LOOP, " [loop broken]"), "</td>": _SCRIPT[9]}
_TOKEN_IDS = {"<td>": 128821, "</td>": 128822}


@functools.cache
def _words() -> list[str]:
    return Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split()


def scripted(last: str, ngram: int | None, window: int, whitelist: frozenset[int]) -> Iterator[str]:
    """The tiny model with the n-gram processor: ends at EOS, or never. Characters other than . ! ? loop."""
    said: list[str] = []
    token: str | None = _NEXT.get(last, _LOOP[4])
    while token is not None:
        if ngram and token in _banned(said, ngram, window) and _TOKEN_IDS.get(token) not in whitelist:
            token = _SECOND.get(said[-1] if said else last)
            if token is None:
                return
        said.append(token)
        yield token
        token = _NEXT.get(token)


def _banned(said: list[str], ngram: int, window: int) -> set[str]:
    """Tokens that would repeat an n-gram of the window. Source: vLLM, NoRepeatNGramLogitsProcessor."""
    if len(said) < ngram:
        return set()
    prefix = said[-(ngram - 1) :]
    starts = range(max(0, len(said) - window), len(said) - ngram + 1)
    return {said[at + ngram - 1] for at in starts if said[at : at + ngram - 1] == prefix}


def page(sha256: str, mean_tokens: int, *, grounded: bool) -> list[str]:
    """The text of one page: title, paragraphs, on a third of the pages a table. The same for the same image, always.

    About `mean_tokens` tokens, between a half and one and a half of it. Without grounding the same words, no tags.
    """
    dice = random.Random(sha256)
    target = dice.randint(mean_tokens // 2, mean_tokens * 3 // 2)
    tokens: list[str] = []
    top = 40
    for index in count():
        kind = "title" if index == 0 else ("table" if index == 2 and dice.random() < 1 / 3 else "text")
        body = _BLOCKS[kind](dice, min(130, max(8, target - len(tokens) - 20)))
        bottom = min(995, top + 20 + len(body) // 4)
        if grounded:
            box = [60, top, 935, bottom]
            tokens += ["<|ref|>", kind, "<|/ref|>", "<|det|>", f"[[{box[0]},", *(f" {n}," for n in box[1:3])]
            tokens += [f" {box[3]}", "]]", "<|/det|>", "\n"]
        tokens += body
        if len(tokens) >= target - 20:
            return tokens
        tokens.append("\n\n")
        top = min(980, bottom + 10)
    raise AssertionError("unreachable")


def _title(dice: random.Random, room: int) -> list[str]:
    return ["# ", *_sentence(dice, 4)[:-1]]


def _text(dice: random.Random, room: int) -> list[str]:
    tokens = _sentence(dice, 11)
    while len(tokens) < room:
        tokens += [" ", *_sentence(dice, dice.randint(6, 14))]
    return tokens


def _table(dice: random.Random, room: int) -> list[str]:
    tokens = ["<table>"]
    for _ in range(dice.randint(2, 5)):
        cells = ([cell, str(dice.randint(1, 9999))] for cell in dice.choices(_words(), k=2))
        tokens += ["<tr>", *(t for name, value in cells for t in ("<td>", name, "</td>", "<td>", value, "</td>"))]
        tokens.append("</tr>")
    return [*tokens, "</table>"]


def _sentence(dice: random.Random, words: int) -> list[str]:
    first, *rest = dice.choices(_words(), k=words)
    return [first.capitalize(), *(f" {word}" for word in rest), "."]


_BLOCKS = {"title": _title, "text": _text, "table": _table}


def looping(clean: list[str], *, guarded: bool) -> Iterator[str]:
    """A page that runs into a loop after a third of its text and never ends.

    With the n-gram guard the lines are numbered, which is what such a guard lets through.
    """
    yield from clean[: len(clean) // 3]
    for number in count(1):
        yield from ("\n", f"{number}." if guarded else "-", " the", " same", " line", " of", " the", " same", " list")


def garbage(sha256: str) -> Iterator[str]:
    """Characters that are no text, until the end of a short page."""
    dice = random.Random("garbage" + sha256)
    return (dice.choice(["\ufffd", "\x00", "\x07", "%", "¤", "~|", "}{", "\u200b", "ÿÿ"]) for _ in range(300))
