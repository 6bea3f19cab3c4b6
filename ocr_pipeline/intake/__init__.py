"""From files and listings to batches: what is put into the inbox, what is found there, and how batches are cut of it.

No Dagster: sensor, schedule and command call this.
"""
