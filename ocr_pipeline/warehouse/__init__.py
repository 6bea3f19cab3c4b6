"""The tables: as Parquet files, and in a DuckDB file or MotherDuck. All that writes them is here.

`schema.py` and `migrations.py` say what the tables are, `rows.py` and `parquet.py` make files of records, `load.py`
and `rebuild.py` bring files into the tables, `connection.py` is the only way to a database. The rest are questions.
A question that one screen, metric or command asks alone stands beside it (`review/`, `metrics/`, `upkeep/`), on a
connection from here.
"""
