"""The models that can be asked, as data: how each wants to be asked, served and understood.

Here belongs one `ModelProfile` per model and nothing that acts. A new model is a new entry in `MODELS`; where its
answers have a form of their own, a parser in `ocr/parsing/`. What a profile says goes into the recipe, so an edit of a
prompt or a sampling number asks for every page again; that is meant.

Sources: model cards and vLLM's recipes, as read for each model; the `why` of each profile names what is surprising.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ocr_pipeline.ocr.vllm.answers import Rung


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile:
    """Everything that is particular to one model. Sizes in pixels and tokens."""

    model: str  # the name it is published under
    revision: str | None = None  # the commit of its repository that is served; no part of the recipe
    licence: str
    rungs: tuple[Rung, ...]  # how a page is asked, and asked again; each changes something
    system_prompt: str | None = None  # None: no system message; "": an empty one, as some cards want
    image_first: bool = True  # in the message's parts
    max_long_side: int  # more pixels than this buy nothing
    max_short_side: int
    format: str  # how its text is parsed, see ocr/parsing/parse.py
    context_length: int  # the model's own limit, prompt and image included
    prompt_tokens: int  # the most that image and prompt take; the rest of the context is for text
    min_vllm: tuple[int, int, int] | None = None
    max_vllm: tuple[int, int, int] | None = None  # the last on which the served line below starts as it stands
    later_env: Mapping[str, str] = field(default_factory=dict)  # what makes it start on releases after max_vllm
    logits_processor: str | None = None  # the guard against loops, by name of module and class
    serve_args: tuple[str, ...] = ()  # beside the logits processor and what the GPU profile gives
    weights_gb: float  # as served
    why: Mapping[str, str] = field(default_factory=dict)  # reasons, printed by `serve-command`


# An official prompt; the tag asks for boxes. vLLM itself puts the image and a newline before it.
_GROUNDING = "<|grounding|>Convert the document to markdown."
_FREE = "Free OCR."

# Ends an answer whose tail is one pattern of up to 24 tokens 48 times over, with finish_reason "repetition". The
# n-gram guard lets exactly that through for its whitelisted <td></td>. No page has 48 equal cells without a row's
# end between them. Servers that do not know the field (before 0.18) ignore it.
_STOP_LOOPS = {"min_pattern_size": 1, "max_pattern_size": 24, "min_count": 48}


def _deepseek(*, ngram: int, window: int) -> dict[str, object]:
    """The parts of a request that are not OpenAI's. 128821 and 128822 are <td> and </td>.

    Without `ngram_size` in the request the processor does nothing. The whitelist must be a list of integers: a string
    is accepted and has no effect.
    """
    return {
        "skip_special_tokens": False,  # true, the default, strips the tags
        "vllm_xargs": {"ngram_size": ngram, "window_size": window, "whitelist_token_ids": [128821, 128822]},
        "repetition_detection": _STOP_LOOPS,
    }


_DEEPSEEK_RUNGS = (
    Rung(
        name="first",
        prompt=_GROUNDING,
        sampling={"temperature": 0.0, "max_tokens": 7000},
        extra_body=_deepseek(ngram=30, window=90),  # as run_dpsk_ocr_image.py has it
    ),
    Rung(
        # A greedy loop comes back on every greedy try: warmth leads out of it, the tighter n-gram of
        # run_dpsk_ocr_pdf.py ends what is left. The seed makes a second run say the same.
        name="warmer",
        prompt=_GROUNDING,
        sampling={"temperature": 0.3, "top_p": 0.95, "seed": 1, "max_tokens": 7000},
        extra_body=_deepseek(ngram=20, window=50),
    ),
    Rung(
        # No boxes: the answer is shorter by a third, and another path through the model.
        name="free_ocr",
        prompt=_FREE,
        sampling={"temperature": 0.0, "max_tokens": 7000},
        extra_body=_deepseek(ngram=20, window=90),
    ),
    Rung(
        # Other hardware rounds otherwise (DeepSeek-OCR issue 339: loops on one GPU generation and not on others).
        name="elsewhere",
        prompt=_GROUNDING,
        sampling={"temperature": 0.6, "top_p": 0.95, "seed": 2, "max_tokens": 7000},
        extra_body=_deepseek(ngram=20, window=50),
        other_backend=True,
    ),
)

_DEEPSEEK_WHY = {
    "vllm": "0.11.1 is the first release with the model; 0.31 to 0.33 refuse the logits processor unless "
    "VLLM_USE_V2_MODEL_RUNNER=0",
    "max_tokens": "releases up to 0.31 answer 400 when prompt and max_tokens together pass max_model_len 8192; "
    "image and prompt take under 1,200",
    "prefix_caching": "pages share no prefix: off, as the model's recipe has it",
}

_DEEPSEEK_SERVE = (
    "--no-enable-prefix-caching",
    "--mm-processor-cache-gb",
    "0",
    "--limit-mm-per-prompt",
    '{"image":1}',
)
_DEEPSEEK_PROCESSOR = "vllm.model_executor.models.deepseek_ocr:NGramPerReqLogitsProcessor"

DEEPSEEK_OCR = ModelProfile(
    model="deepseek-ai/DeepSeek-OCR",
    revision="9f30c71f441d010e5429c532364a86705536c53a",  # what others who pin it name; weights of one file, 6.7 GB
    licence="MIT",
    rungs=_DEEPSEEK_RUNGS,
    max_long_side=1920,
    max_short_side=1280,
    format="grounding",
    context_length=8192,
    prompt_tokens=1000,  # 903 for an A4 page, 933 for the worst shape, and the prompt
    min_vllm=(0, 11, 1),
    max_vllm=(0, 30, 0),
    later_env={"VLLM_USE_V2_MODEL_RUNNER": "0"},
    logits_processor=_DEEPSEEK_PROCESSOR,
    serve_args=_DEEPSEEK_SERVE,
    weights_gb=6.7,
    why=_DEEPSEEK_WHY
    | {
        "geometry": "vLLM cuts a page into 2x3 tiles of 640 and one overview: 903 tokens whatever the dpi, and pixels "
        "beyond 1280x1920 are thrown away",
    },
)

DEEPSEEK_OCR_2 = ModelProfile(
    model="deepseek-ai/DeepSeek-OCR-2",
    licence="Apache-2.0",
    rungs=_DEEPSEEK_RUNGS,
    max_long_side=2304,
    max_short_side=1536,
    format="grounding",
    context_length=8192,
    prompt_tokens=1192,  # 1,121 for an A4 page, and the prompt
    min_vllm=(0, 18, 1),
    max_vllm=(0, 30, 0),
    later_env={"VLLM_USE_V2_MODEL_RUNNER": "0"},
    logits_processor=_DEEPSEEK_PROCESSOR,
    serve_args=_DEEPSEEK_SERVE,
    weights_gb=6.8,
    why=_DEEPSEEK_WHY
    | {
        "vllm": "read in 0.18.1, not in 0.11.1; 0.31 to 0.33 refuse the logits processor unless "
        "VLLM_USE_V2_MODEL_RUNNER=0",
        "geometry": "tiles of 768: 1,121 tokens a page, and pixels beyond 1536x2304 are thrown away",
    },
)

# The layout prompt of the model's own repository (prompt_layout_all_en), word for word: the model was trained on it.
_DOTS_LAYOUT = """\
Please output the layout information from the PDF image, including each layout element's bbox, its category, and the \
corresponding text content within the bbox.

1. Bbox format: [x1, y1, x2, y2]

2. Layout Categories: The possible categories are ['Caption', 'Footnote', 'Formula', 'List-item', 'Page-footer', \
'Page-header', 'Picture', 'Section-header', 'Table', 'Text', 'Title'].

3. Text Extraction & Formatting Rules:
    - Picture: For the 'Picture' category, the text field should be omitted.
    - Formula: Format its text as LaTeX.
    - Table: Format its text as HTML.
    - All Others (Text, Title, etc.): Format their text as Markdown.

4. Constraints:
    - The output text must be the original text from the image, with no translation.
    - All layout elements must be sorted according to human reading order.

5. Final Output: The entire output must be a single JSON object.
"""
_DOTS_IMAGE = "<|img|><|imgpad|><|endofimg|>"  # the chat template in string mode does not put the image in by itself

DOTS_OCR = ModelProfile(
    model="rednote-hilab/dots.ocr",
    licence="MIT",
    rungs=(
        Rung(
            name="first",
            prompt=_DOTS_IMAGE + _DOTS_LAYOUT,
            sampling={"temperature": 0.1, "top_p": 0.9, "max_tokens": 16384},
        ),
        Rung(
            name="warmer",
            prompt=_DOTS_IMAGE + _DOTS_LAYOUT,
            sampling={"temperature": 0.4, "top_p": 0.95, "seed": 1, "max_tokens": 16384},
        ),
        Rung(
            name="text_only",
            prompt=_DOTS_IMAGE + "Extract the text content from this image.",
            sampling={"temperature": 0.1, "top_p": 0.9, "max_tokens": 16384},
        ),
        Rung(
            name="elsewhere",
            prompt=_DOTS_IMAGE + _DOTS_LAYOUT,
            sampling={"temperature": 0.7, "top_p": 0.95, "seed": 2, "max_tokens": 16384},
            other_backend=True,
        ),
    ),
    max_long_side=2340,  # A4 at 200 dpi; far below the model's limit of 11,289,600 pixels, so it is never resized down
    max_short_side=1656,
    format="json_layout",
    context_length=32768,
    prompt_tokens=6000,  # a token for each 28x28 pixels
    min_vllm=(0, 11, 0),
    serve_args=("--chat-template-content-format", "string", "--trust-remote-code"),
    weights_gb=6.1,
    why={"geometry": "200 dpi is what the model card renders at"},
)

OLMOCR_2 = ModelProfile(
    model="allenai/olmOCR-2-7B-1025-FP8",
    licence="Apache-2.0",
    rungs=tuple(
        Rung(
            name="first" if number == 0 else f"warmer_{number}",
            prompt="Attached is one page of a document that you must process. "
            "Just return the plain text representation of this document as if you were reading it naturally. "
            "Convert equations to LateX and tables to HTML.\n"
            "If there are any figures or charts, label them with the following markdown syntax "
            "![Alt text describing the contents of the figure](page_startx_starty_width_height.png)\n"
            "Return your output as markdown, with a front matter section on top specifying values for the "
            "primary_language, is_rotation_valid, rotation_correction, is_table, and is_diagram parameters.",
            sampling={"temperature": temperature, "max_tokens": 8000},
            other_backend=number == 3,
        )
        for number, temperature in enumerate((0.1, 0.3, 0.5, 0.8))  # every second step of the authors' own ladder
    ),
    image_first=False,
    max_long_side=1288,
    max_short_side=1288,
    format="front_matter",
    context_length=16384,
    prompt_tokens=2500,
    serve_args=("--limit-mm-per-prompt", '{"video":0}'),
    weights_gb=9.0,
    why={"geometry": "trained on a longest side of 1288"},
)

LIGHTON_OCR_2 = ModelProfile(
    model="lightonai/LightOnOCR-2-1B",
    licence="Apache-2.0",
    rungs=(
        Rung(name="first", prompt=None, sampling={"temperature": 0.2, "top_p": 0.9, "max_tokens": 4096}),
        Rung(name="warmer", prompt=None, sampling={"temperature": 0.5, "top_p": 0.9, "max_tokens": 4096}),
        Rung(
            name="elsewhere",
            prompt=None,
            sampling={"temperature": 0.8, "top_p": 0.9, "max_tokens": 4096},
            other_backend=True,
        ),
    ),
    max_long_side=1540,
    max_short_side=1540,
    format="markdown",
    context_length=8192,
    prompt_tokens=3100,
    min_vllm=(0, 11, 1),
    serve_args=(
        "--no-enable-prefix-caching",
        "--mm-processor-cache-gb",
        "0",
        "--limit-mm-per-prompt",
        '{"image":1}',
    ),
    weights_gb=2.0,
    why={"prompt": "the model wants the image and no text at all"},
)

MODELS: Mapping[str, ModelProfile] = {
    profile.model: profile for profile in (DEEPSEEK_OCR, DEEPSEEK_OCR_2, DOTS_OCR, OLMOCR_2, LIGHTON_OCR_2)
}
