"""The review web app: look at what was read, page by page, beside its image.

A room of its own: it is given a lake and a warehouse and knows neither settings nor Dagster. It only reads; the one
thing it can set going, "ask again", is a callable that it is given.
"""
