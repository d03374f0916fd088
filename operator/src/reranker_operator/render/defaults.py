"""What the operator's own configuration gives to every object."""

from dataclasses import dataclass
from typing import Any


def _resources(cpu: str, memory: str, limit: str) -> dict[str, Any]:
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": limit}}


@dataclass(frozen=True)
class Defaults:
    """Images and resources where the spec says nothing."""

    builder_image: str
    gateway_image: str
    triton_image: str
    triton_gpu_image: str
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    hub_endpoint: str | None = None
    build_deadline_seconds: int = 7200
    resolve_deadline_seconds: int = 1800
    keep_hours: int = 0
    high_water_percent: int = 85
    #: Where the operator itself runs.
    operator_namespace: str = "default"

    @property
    def builder_resources(self) -> dict[str, Any]:
        """Of every build stage."""
        return _resources("250m", "512Mi", "8Gi")

    @property
    def gateway_resources(self) -> dict[str, Any]:
        """Of the gateway container."""
        return _resources("100m", "128Mi", "1Gi")

    @property
    def triton_resources(self) -> dict[str, Any]:
        """Of the Triton container."""
        return _resources("250m", "512Mi", "4Gi")
