"""What Prometheus is told about this pipeline: the tables' figures, what waits, whether each GPU server may be asked.

A room that is given the warehouse, the fleet's configuration and a way to ask for runs; it reads no settings and does
not import Dagster. What vLLM and the GPUs say of themselves Prometheus scrapes from them.
"""
