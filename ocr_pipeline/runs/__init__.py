"""Dagster's runs as this project needs them: asked for, looked up, found dead, and where their history is kept.

`liveness.py` and `claims.py` know no Dagster. The run launchers are named in `dagster.yaml` and in `deploy/`.
"""
