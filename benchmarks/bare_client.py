"""The plainest client there is: draw pages, send them to whichever server has a free slot, keep the texts in memory.

What any program must spend, as a yardstick: no ledger, no durability, no retries, no tables. As a process:
`python -m benchmarks.bare_client PDF URL=SLOTS…`; without a URL the pages are drawn and not sent. The last line on
stdout is the seconds from the first call of poppler to the last image, the start of Python not in it.
"""

from __future__ import annotations

import asyncio
import base64
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pdf2image

WORKERS, RANGE, DPI = 2, 8, 150


def draw(pdf: str, first: int, last: int) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        paths = pdf2image.convert_from_path(
            pdf, dpi=DPI, first_page=first, last_page=last, fmt="jpeg", output_folder=folder, paths_only=True
        )
        return [Path(path).read_bytes() for path in paths]


async def main(pdf: str, servers: dict[str, int]) -> None:
    started = time.monotonic()
    pages = pdf2image.pdfinfo_from_path(pdf)["Pages"]
    images: asyncio.Queue[bytes] = asyncio.Queue(maxsize=2 * sum(servers.values()) or pages)
    client = httpx.AsyncClient(timeout=600, trust_env=False, limits=httpx.Limits(max_connections=None))
    text = {"type": "text", "text": "<|grounding|>Convert the document to markdown."}

    async def ask(url: str) -> None:
        while True:
            link = "data:image/jpeg;base64," + base64.b64encode(await images.get()).decode()
            content = [{"type": "image_url", "image_url": {"url": link}}, text]
            body = {"model": "deepseek-ai/DeepSeek-OCR", "messages": [{"role": "user", "content": content}]}
            answer = await client.post(f"{url}/v1/chat/completions", json={**body, "max_tokens": 7000})
            answer.json()["choices"][0]["message"]["content"]
            images.task_done()

    asking = [asyncio.create_task(ask(url)) for url, slots in servers.items() for _ in range(slots)]
    with ThreadPoolExecutor(WORKERS) as pool:
        loop = asyncio.get_running_loop()
        firsts = range(1, pages + 1, RANGE)
        jobs = [loop.run_in_executor(pool, draw, pdf, first, min(pages, first + RANGE - 1)) for first in firsts]
        for job in jobs:
            for image in await job:
                await images.put(image)
    drawn = time.monotonic() - started
    if servers:
        await images.join()
    for task in asking:
        task.cancel()
    print(drawn)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], {url: int(slots) for url, slots in (word.rsplit("=", 1) for word in sys.argv[2:])}))
