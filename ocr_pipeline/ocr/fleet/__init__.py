"""Unlike servers as one transcriber.

Pure decisions: `routing`, `admission`, `health`, `failover`, `tenancy`, `hedging`, `fair_queue`. What touches the
world: `live_backend` (one server), `page_task` (one page's life), `dispatcher` (where they meet), `fleet` (its face).
"""
