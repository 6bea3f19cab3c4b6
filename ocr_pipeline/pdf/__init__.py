"""A PDF file on the local disk to page count, title, and page images with their text layer. No network.

`renderer.py` is the entry point. Behind it: `process.py` (the worker process, seen from here), `opinions.py` (what the
two libraries' verdicts on a file add up to), `geometry.py` (how large an image is). In the worker process: `worker.py`,
`poppler.py`, `pdfium.py`, `ink.py`. `frames.py` is the language between the two sides.
"""
