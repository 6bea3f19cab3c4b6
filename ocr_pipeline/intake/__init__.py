"""From files and listings to batches: putting files into the inbox, finding what is new there, and cutting batches.

No Dagster: sensor, schedule and command call this.
"""
