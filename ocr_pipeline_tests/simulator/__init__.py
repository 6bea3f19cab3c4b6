"""A simulated vLLM fleet: servers with vLLM's HTTP surface on real sockets, and faults on request.

That it does not lie is shown by `ocr_pipeline_tests/vllm_contract`, which a real vLLM passes too.
Start one by hand with `python -m ocr_pipeline_tests.simulator`, or hold it as a `SimulatedServer` or a `Fleet`.
"""

from ocr_pipeline_tests.simulator.fleet import Fleet, SimulatedServer
from ocr_pipeline_tests.simulator.tally import PageTally, Tally

__all__ = ["Fleet", "PageTally", "SimulatedServer", "Tally"]
