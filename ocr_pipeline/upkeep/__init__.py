"""What is done with results afterwards: asking again, comparing recipes, forgetting, rebuilding, finding a document.

Lake and warehouse together, without Dagster; the commands and the jobs call it.
"""
