"""One batch from uploads to rows, without Dagster: the rooms lake, pdf and ocr put together.

`stream.py` is the whole way in one picture. The assets, the command and the benchmarks call it.
"""
