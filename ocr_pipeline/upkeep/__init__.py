"""What is done with results afterwards: retries, comparing recipes, purge and retention, rebuilding the tables, finding
a document.

Lake and warehouse together, without Dagster; the commands and the jobs call it.
"""
