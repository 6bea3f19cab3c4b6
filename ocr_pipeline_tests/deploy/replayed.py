"""Stand-ins of the exporters that need a GPU machine: fixed texts in the format of NVIDIA's dcgm-exporter and of
node_exporter, served again and again.

Not recorded on a GPU: written by hand after the exporters' default counters, with numbers as the two machines should
show them. On the Spark there are no frame buffer metrics, as users of GB10 report.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_DCGM = """\
# HELP DCGM_FI_DEV_GPU_TEMP GPU temperature (in C).
# TYPE DCGM_FI_DEV_GPU_TEMP gauge
DCGM_FI_DEV_GPU_TEMP{{{labels}}} {temperature}
# HELP DCGM_FI_DEV_POWER_USAGE Power draw (in W).
# TYPE DCGM_FI_DEV_POWER_USAGE gauge
DCGM_FI_DEV_POWER_USAGE{{{labels}}} {watts}
# HELP DCGM_FI_DEV_GPU_UTIL GPU utilization (in %).
# TYPE DCGM_FI_DEV_GPU_UTIL gauge
DCGM_FI_DEV_GPU_UTIL{{{labels}}} {utilisation}
# HELP DCGM_FI_DEV_XID_ERRORS Value of the last XID error encountered.
# TYPE DCGM_FI_DEV_XID_ERRORS gauge
DCGM_FI_DEV_XID_ERRORS{{{labels}}} 0
"""
_FRAME_BUFFER = """\
# HELP DCGM_FI_DEV_FB_USED Framebuffer memory used (in MiB).
# TYPE DCGM_FI_DEV_FB_USED gauge
DCGM_FI_DEV_FB_USED{{{labels}}} {used}
# HELP DCGM_FI_DEV_FB_FREE Framebuffer memory free (in MiB).
# TYPE DCGM_FI_DEV_FB_FREE gauge
DCGM_FI_DEV_FB_FREE{{{labels}}} {free}
"""
_4090 = 'gpu="0",UUID="GPU-00000000-0000-0000-0000-000000000001",device="nvidia0",modelName="NVIDIA GeForce RTX 4090"'
_GB10 = 'gpu="0",UUID="GPU-00000000-0000-0000-0000-000000000002",device="nvidia0",modelName="NVIDIA GB10"'

DCGM = {
    "rtx-4090": _DCGM.format(labels=_4090, temperature=61, watts=312.4, utilisation=74)
    + _FRAME_BUFFER.format(labels=_4090, used=22107, free=2010),
    "dgx-spark": _DCGM.format(labels=_GB10, temperature=58, watts=71.9, utilisation=91),
}
NODE = {
    machine: "# TYPE node_memory_MemTotal_bytes gauge\n"
    f"node_memory_MemTotal_bytes {total}\n"
    "# TYPE node_memory_MemAvailable_bytes gauge\n"
    f"node_memory_MemAvailable_bytes {available}\n"
    for machine, total, available in (("rtx-4090", 67.4e9, 51.0e9), ("dgx-spark", 130.66e9, 80.3e9))
}


@contextmanager
def replayed(text: str) -> Iterator[str]:
    """Serves `text` at /metrics on loopback; gives host:port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
