"""How fast the user's own servers read the user's own pages: rising concurrency, figures, a recommendation.

`steps.py` is arithmetic, `measuring.py` speaks to one server, `pages.py` makes the images, `result.py` keeps what was
found, `chart.py` draws. No Dagster, no settings; the command `ocr-pipeline benchmark` puts it together. Nothing goes to
the lake or the warehouse.
"""
