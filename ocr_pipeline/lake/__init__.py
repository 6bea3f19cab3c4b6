"""Object storage: a local folder or an S3 store such as Cloudflare R2, and what is kept in it under which key.

`storage.py` is the interface, `local.py` and `s3.py` implement it (`opening.py` picks one); `check.py` says whether it
can be worked with. `keys.py` names every object; `batches.py` and `transcripts.py` are those with a form of their own.
How new uploads are found: `listing.py`, or `queue.py` with `events.py`; what becomes a batch: `planner.py`, pure. What
is known already: `batch_index.py`, a local copy of all batch lists, with `deletions.py`; what is in the store now:
`current.py`.
"""
