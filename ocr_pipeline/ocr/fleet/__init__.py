"""Several unlike servers behind one `Transcriber`: queueing, routing, admission control, failover.

Pure decisions: `routing`, `admission`, `health`, `failover`, `tenancy`, `hedging`, `fair_queue`, and what they are made
from: `server_metrics`, `speed`. With tasks and sockets: `live_backend` (one server), `watch` and `deaths` (is it
well?), `page_task` (one page from request to transcript), `dispatcher` (gives pages to servers), `fleet` (the entry).
"""
