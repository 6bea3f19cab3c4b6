"""py-zerox on some PDFs, one call a document as its documentation shows it; run by its own environment's Python:
`python zerox_client.py URL CONCURRENCY OUT PDF…`. Nothing of ours is imported here.
"""

import asyncio
import os
import sys

url, concurrency, out, *papers = sys.argv[1:]
# no list of prices from the network, and the server in the place of OpenAI
os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "OPENAI_API_KEY": "none", "OPENAI_API_BASE": f"{url}/v1"}

from pyzerox import zerox  # noqa: E402
from pyzerox.models import litellmmodel  # noqa: E402

# both look the model up in a list that does not have it, and the second asks it a question without an image
litellmmodel.validate_model = lambda self: None
litellmmodel.validate_access = lambda self: None


async def main() -> None:
    for paper in papers:
        # without temperature and the like: what it sends by itself
        read = await zerox(
            file_path=paper,
            model="openai/deepseek-ai/DeepSeek-OCR",
            output_dir=out,
            concurrency=int(concurrency),
            max_tokens=4096,
        )
        print(read.file_name, len(read.pages), flush=True)


asyncio.run(main())
