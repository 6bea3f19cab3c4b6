"""A page image to text, whatever reads it. Knows neither Dagster, lake, PDFs nor tables: only `records`.

transcriber.py  the interface: one page image in, one transcript out
engines/        what reads on this machine: rapidocr, tesseract, the PDF's own text; cpu.py chooses one
vllm/           one GPU server: how it is described, asked, understood and checked
fleet/          several servers as one: routing, admission, health, failover, hedging
quality/        whether a text is the page's, and what to try when it is not
parsing/        a transcript to markdown and regions, by the format of its text
layout/         the lines of a CPU engine to a page in reading order
"""
