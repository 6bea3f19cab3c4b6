"""The quality ladder: what is asked, what to try after a text that is not good, and which try to take in the end. Pure.

Here belong decisions about texts. A request without a text (refused, timed out, lost) is no try and never comes here:
transport has its own budget (failover.py). Every try keeps the image that was drawn; each rung changes something.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ocr_pipeline.ocr.quality.agreement import agreement
from ocr_pipeline.ocr.quality.verdict import Verdict
from ocr_pipeline.ocr.vllm.answers import Answer, Rung
from ocr_pipeline.ocr.vllm.models import ModelProfile
from ocr_pipeline.records import Geometry, Reason


def recipe(model: ModelProfile, geometry: Geometry) -> dict[str, Any]:
    """Everything that is asked for, for `recipe_id`: not who answers, and not how the answer is parsed or judged."""
    return {
        "engine": "vllm",
        "model": model.model,
        "system_prompt": model.system_prompt,
        "image_first": model.image_first,
        "rungs": [asdict(rung) for rung in model.rungs],
        "geometry": asdict(geometry),
    }


SAME_TEXT = 0.98  # agreement of two tries from which they say the same


@dataclass(frozen=True, slots=True)
class Tried:
    """One text that came back, and what it is worth."""

    rung: Rung
    backend: str
    answer: Answer
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Settled:
    """The end of the ladder: the try that is taken, and why it is not good where it is not."""

    taken: Tried
    reason: Reason | None


def next_rung(rungs: Sequence[Rung], tried: Sequence[Tried]) -> Rung | None:
    """The next way to ask, None where the ladder has ended: the text is good, confirmed, or every rung was used.

    After a text that was cut off or is empty a rung with another prompt comes first: the same prompt with other
    sampling is as long, or as empty, again.
    """
    if tried and settled(tried).reason is None:
        return None
    used = {one.rung.name for one in tried}
    left = [rung for rung in rungs if rung.name not in used]
    if tried and tried[-1].verdict.reason in (Reason.TRUNCATED, Reason.EMPTY_TEXT):
        prompts = {one.rung.prompt for one in tried}
        left.sort(key=lambda rung: rung.prompt in prompts)  # stable: else in the profile's order
    return left[0] if left else None


def settled(tried: Sequence[Tried]) -> Settled:
    """The best of at least one try: a good one before any other, then by score, the earlier where equal."""
    best = max(tried, key=lambda one: (one.verdict.reason is None, one.verdict.score))
    if best.verdict.reason is Reason.REPETITION and (twice := _said_twice(tried)):
        return Settled(twice, None)
    return Settled(best, best.verdict.reason)


def _said_twice(tried: Sequence[Tried]) -> Tried | None:
    """A text that looks like a loop, ended by itself, and came back the same from two ways of asking: a sheet of equal
    labels, a form. A loop is broken off at another place under another sampling and another n-gram guard."""
    ended = [one for one in tried if one.verdict.reason is Reason.REPETITION and one.answer.finish_reason == "stop"]
    for index, one in enumerate(ended):
        for other in ended[index + 1 :]:
            same_guard = one.rung.sampling == other.rung.sampling and one.rung.extra_body == other.rung.extra_body
            if same_guard or abs(len(one.answer.text) - len(other.answer.text)) > 0.01 * len(one.answer.text):
                continue
            if (agreement(one.answer.text, other.answer.text) or 0.0) >= SAME_TEXT:
                return one
    return None
