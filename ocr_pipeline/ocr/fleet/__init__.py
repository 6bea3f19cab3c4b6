"""Unlike servers as one transcriber.

Pure decisions: `routing`, `admission`, `health`, `failover`, `company`, `hedging`, `waiting_line`. What touches the
world: `station` (one server), `page_reading` (one page's life), `dispatcher` (where they meet), `fleet` (its face).
"""
