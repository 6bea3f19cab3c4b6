"""The user's GPU servers and routing rules, as frozen records.

Here belong the records and what follows from them. Not here: the profiles that they name (models.py, gpus.py), the file
they are read from (backends_file.py), and anything that speaks to a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import SecretStr

from ocr_pipeline.ocr.vllm.gpus import GpuProfile
from ocr_pipeline.ocr.vllm.models import ModelProfile
from ocr_pipeline.records import Geometry


def _between(least: float, most: float) -> dict[str, tuple[float, float]]:
    return {"between": (least, most)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One server. Values of variables are resolved; none of them is in the record's text."""

    name: str
    url: str  # the server's root, without a slash at the end; /v1, /health and /metrics are below it
    gpu: GpuProfile
    model: ModelProfile
    served_model: str  # the model's name on this server
    api_key: SecretStr | None = None
    headers: Mapping[str, SecretStr] = field(default_factory=dict, repr=False)
    max_in_flight: int  # pages it works on at once, where admission starts; one or two more wait there (admission.py)
    dpi: int
    max_pages: int | None = None  # longer documents go elsewhere while another backend is well
    timeout: float = field(default=600.0, metadata=_between(1.0, 86400.0))  # seconds, one whole request
    connect_timeout: float = field(default=10.0, metadata=_between(0.1, 600.0))
    max_model_len: int  # tokens the server was started with
    power_usd_per_month: float = field(default=0.0, metadata=_between(0.0, 1e9))  # the machine's cost, for the views
    hardware_usd: float = field(default=0.0, metadata=_between(0.0, 1e9))
    hardware_months: float = field(default=36.0, metadata=_between(1.0, 1200.0))  # the hardware is written off over


Policy = Literal["hybrid", "fastest"]
Stage = Literal["development", "production"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The routing rules and their numbers (deployment documents, "hybrid")."""

    policy: Policy = "hybrid"
    stage: Stage = "production"  # development: everything to the small machine
    sla: bool = False  # production with promised times: to the large machine
    large_document_pages: int = 20  # more pages than this: to the large machine
    small_document_pages: int = 10  # fewer than this: to the small one
    queue_limit: int = 5  # the small machine is overloaded above this many waiting requests
    concurrent_limit: int = 5  # more documents open at once than this: to the large machine
    low_volume_per_day: int = 100  # fewer documents a day than this: the small one is enough


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendsConfig(Rules):
    """The whole file: the rules, and who can be asked."""

    backends: tuple[Backend, ...]

    @property
    def model(self) -> ModelProfile:
        """The one model that every backend serves."""
        return self.backends[0].model


def geometry(config: BackendsConfig) -> Geometry:
    """How pages are drawn: the lowest dpi of the backends listed, under the cap of the model."""
    return Geometry(
        dpi=min(backend.dpi for backend in config.backends),
        max_long_side=config.model.max_long_side,
        max_short_side=config.model.max_short_side,
    )
