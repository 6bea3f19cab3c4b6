"""PDFs from a bucket become markdown in tables, Parquet and files. Start reading at `definitions.py` or `cli.py`."""
