"""The tables: as Parquet files, and in a DuckDB file or MotherDuck. All SQL on them is here.

`schema.py` and `migrations.py` say what the tables are, `rows.py` and `parquet.py` make files of records, `load.py`
and `rebuild.py` bring files into the tables, `connection.py` is the only way to a database. The rest are questions.
"""
