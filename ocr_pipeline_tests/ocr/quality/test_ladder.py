"""What is tried after a text that is not good, and which try is taken in the end."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_pipeline.ocr.quality.ladder import Tried, next_rung, recipe, settled
from ocr_pipeline.ocr.quality.verdict import Verdict
from ocr_pipeline.ocr.recipe import recipe_id
from ocr_pipeline.ocr.vllm.answers import Answer
from ocr_pipeline.ocr.vllm.models import DEEPSEEK_OCR, DEEPSEEK_OCR_2, MODELS, ModelProfile
from ocr_pipeline.records import Geometry, Reason

RUNGS = DEEPSEEK_OCR.rungs
BY_NAME = {rung.name: rung for rung in RUNGS}


def tried(rung: str, reason: Reason | None, score: float, text: str = "", finish: str = "stop") -> Tried:
    answer = Answer(outcome="ok", seconds=1.0, text=text, finish_reason=finish)
    return Tried(BY_NAME[rung], "rtx4090", answer, Verdict(reason, score))


def test_a_page_is_asked_the_first_way_first() -> None:
    first = next_rung(RUNGS, [])
    assert first is not None
    assert first.name == "first"


def test_after_a_good_text_nothing_more_is_asked() -> None:
    assert next_rung(RUNGS, [tried("first", None, 0.7)]) is None


@pytest.mark.parametrize(
    ("reason", "order"),
    [
        (Reason.REPETITION, ["first", "warmer", "free_ocr", "elsewhere"]),
        (Reason.GARBAGE, ["first", "warmer", "free_ocr", "elsewhere"]),
        (Reason.TRUNCATED, ["first", "free_ocr", "warmer", "elsewhere"]),
        (Reason.EMPTY_TEXT, ["first", "free_ocr", "warmer", "elsewhere"]),
    ],
)
def test_every_rung_is_used_once_and_a_shorter_prompt_comes_early_where_length_was_the_trouble(
    reason: Reason, order: list[str]
) -> None:
    done: list[Tried] = []
    while (rung := next_rung(RUNGS, done)) is not None:
        done.append(tried(rung.name, reason, 0.1 * len(done), text=rung.name * 50))
    assert [one.rung.name for one in done] == order


def test_a_good_text_is_taken_before_a_bad_one_of_a_higher_score() -> None:
    end = settled([tried("first", Reason.TRUNCATED, 0.9), tried("warmer", None, 0.4), tried("free_ocr", None, 0.3)])
    assert (end.taken.rung.name, end.reason) == ("warmer", None)


def test_of_bad_texts_the_best_is_taken_with_its_reason_and_of_equals_the_first() -> None:
    end = settled(
        [
            tried("first", Reason.EMPTY_TEXT, 0.0),
            tried("warmer", Reason.TRUNCATED, 0.5),
            tried("free_ocr", Reason.TRUNCATED, 0.5),
        ]
    )
    assert (end.taken.rung.name, end.reason) == ("warmer", Reason.TRUNCATED)


LABELS = "Council of the North, 12 River Road, Quarter Town\n\n" * 30


def test_a_text_that_looks_like_a_loop_and_comes_back_the_same_another_way_is_the_page() -> None:
    done = [tried("first", Reason.REPETITION, 0.1, LABELS), tried("warmer", Reason.REPETITION, 0.1, LABELS)]
    end = settled(done)
    assert (end.taken.rung.name, end.reason) == ("first", None)
    assert next_rung(RUNGS, done) is None


@pytest.mark.parametrize(
    "second",
    [
        tried("warmer", Reason.REPETITION, 0.1, LABELS * 2),  # broken off elsewhere
        tried("warmer", Reason.REPETITION, 0.1, LABELS, finish="length"),  # cut off
        tried("warmer", Reason.REPETITION, 0.1, LABELS.replace("River", "North")),
        tried("first", Reason.REPETITION, 0.1, LABELS),  # asked the same way, it says the same: that proves nothing
    ],
)
def test_a_loop_does_not_come_back_the_same(second: Tried) -> None:
    done = [tried("first", Reason.REPETITION, 0.1, LABELS), second]
    assert settled(done).reason is Reason.REPETITION
    assert next_rung(RUNGS, done) is not None


@given(
    st.lists(st.tuples(st.sampled_from(list(BY_NAME)), st.sampled_from([None, *Reason]), st.floats(0, 1)), max_size=6)
)
def test_the_ladder_ends_and_never_asks_the_same_way_twice(outcomes: list[tuple[str, Reason | None, float]]) -> None:
    done = [tried(*outcome) for outcome in outcomes]
    rung = next_rung(RUNGS, done)
    assert rung is None or rung.name not in {one.rung.name for one in done}
    if len({one.rung.name for one in done}) == len(RUNGS):
        assert rung is None


@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
def test_each_rung_of_each_model_changes_something(model: ModelProfile) -> None:
    assert len(model.rungs) >= 2
    assert len({rung.name for rung in model.rungs}) == len(model.rungs)
    asked = [json.dumps([rung.prompt, dict(rung.sampling), dict(rung.extra_body)]) for rung in model.rungs]
    assert len(set(asked)) == len(asked)
    for rung in model.rungs:
        assert rung.sampling["max_tokens"] + model.prompt_tokens <= model.context_length


@pytest.mark.parametrize("model", [DEEPSEEK_OCR, DEEPSEEK_OCR_2])
def test_every_rung_of_deepseek_keeps_the_tags_and_the_guard_against_loops(model: ModelProfile) -> None:
    for rung in model.rungs:
        assert rung.extra_body["skip_special_tokens"] is False
        guard = rung.extra_body["vllm_xargs"]
        assert isinstance(guard["ngram_size"], int)
        assert guard["whitelist_token_ids"] == [128821, 128822]  # as integers: texts are accepted and do nothing


def test_the_recipe_changes_with_whatever_is_asked_and_with_nothing_else() -> None:
    geometry = Geometry(dpi=150, max_long_side=1920, max_short_side=1280)

    def name(model: ModelProfile, geometry: Geometry = geometry) -> str:
        return recipe_id(recipe(model, geometry))

    same = name(DEEPSEEK_OCR)
    assert name(replace(DEEPSEEK_OCR, format="markdown", why={}, serve_args=(), max_vllm=None)) == same
    warmer = replace(RUNGS[1], sampling={**RUNGS[1].sampling, "temperature": 0.31})
    for other in (
        name(DEEPSEEK_OCR, replace(geometry, dpi=149)),
        name(DEEPSEEK_OCR_2),
        name(replace(DEEPSEEK_OCR, system_prompt="")),
        name(replace(DEEPSEEK_OCR, image_first=False)),
        name(replace(DEEPSEEK_OCR, rungs=RUNGS[:-1])),
        name(replace(DEEPSEEK_OCR, rungs=(RUNGS[0], warmer, *RUNGS[2:]))),
    ):
        assert other != same
