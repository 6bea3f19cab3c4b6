"""docling's DeepSeek-OCR pipeline on some PDFs, as its documentation sets it up; run by its own environment's Python:
`python docling_client.py URL CONCURRENCY OUT PDF…`. Nothing of ours is imported here.
"""

import sys
from pathlib import Path

from docling.datamodel.base_models import InputFormat
from docling.datamodel.pipeline_options import VlmConvertOptions, VlmPipelineOptions
from docling.datamodel.settings import settings
from docling.datamodel.vlm_engine_options import ApiVlmEngineOptions, VlmEngineType
from docling.document_converter import DocumentConverter, PdfFormatOption
from docling.pipeline.vlm_pipeline import VlmPipeline

url, concurrency, out, *papers = sys.argv[1:]
engine = ApiVlmEngineOptions(
    engine_type=VlmEngineType.API,
    url=f"{url}/v1/chat/completions",
    params={"model": "deepseek-ai/DeepSeek-OCR", "max_tokens": 4096, "skip_special_tokens": False},
    timeout=600,
    concurrency=int(concurrency),
)
options = VlmPipelineOptions(
    enable_remote_services=True, vlm_options=VlmConvertOptions.from_preset("deepseek_ocr", engine_options=engine)
)
# pages are handed to the pipeline in batches of this size: smaller than the concurrency, it would be the limit
settings.perf.page_batch_size = int(concurrency)
converter = DocumentConverter(
    format_options={InputFormat.PDF: PdfFormatOption(pipeline_cls=VlmPipeline, pipeline_options=options)}
)
for result in converter.convert_all([Path(paper) for paper in papers], raises_on_error=False):
    print(result.input.file.name, result.status.value, len(result.pages), flush=True)
    Path(out, result.input.file.stem + ".md").write_text(result.document.export_to_markdown())
