"""Configuration: environment variables with the prefix RERANKER_OPERATOR_, checked at start."""

from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from reranker_operator.render.defaults import Defaults

_REGISTRY = "localhost/reranker-operator"


class Config(BaseSettings):
    """One field per setting; the chart writes them."""

    model_config = SettingsConfigDict(env_prefix="RERANKER_OPERATOR_", extra="ignore")

    builder_image: str = Field(f"{_REGISTRY}/engine-builder:dev", description="builds engines")
    gateway_image: str = Field(f"{_REGISTRY}/gateway:dev", description="serves the API")
    triton_image: str = Field(f"{_REGISTRY}/triton:dev", description="runs engines on CPU")
    triton_gpu_image: str = Field(
        f"{_REGISTRY}/triton:dev-gpu", description="runs engines on NVIDIA GPUs"
    )
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    image_pull_secrets: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="comma-separated names, added to every pod"
    )
    hub_endpoint: str | None = Field(None, description="mirror of the Hugging Face hub")
    build_deadline_seconds: int = Field(7200, ge=60, description="of one build Job")
    resolve_deadline_seconds: int = Field(1800, ge=60, description="of one resolve Job")

    keep_hours: int = Field(
        24, ge=0, le=87600, description="files that no engine needs stay so long in our own claims"
    )
    high_water_percent: int = Field(
        85, ge=1, le=100, description="but go at once while the volume is fuller"
    )

    namespaces: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="comma-separated; empty watches all namespaces"
    )
    read_nodes: bool = Field(
        True, description="check accelerators against the nodes; off where RBAC forbids it"
    )
    watch_references: Annotated[tuple[Literal["ConfigMap", "Secret"], ...], NoDecode] = Field(
        (),
        description="comma-separated kinds, ConfigMap and Secret: look at the metadata of those "
        "that services name, and roll their pods when one changes",
    )
    workers: int = Field(12, ge=1, le=64, description="reconciles at the same time")
    resync_seconds: float = Field(600, ge=10, description="every object is looked at this often")

    scrape_seconds: float = Field(
        2.0, ge=0.5, le=60, description="between two looks at the metrics of pods, where needed"
    )
    scrape_sleeping_seconds: float = Field(
        0.5, ge=0.1, le=60, description="the same where all pods sleep and requests would be held"
    )
    scrape_deadline_seconds: float = Field(1.0, ge=0.1, le=30, description="of one pod")
    scrape_at_once: int = Field(64, ge=1, le=1024, description="pods at the same time")

    leader_election: bool = True
    lease_name: str = "reranker-operator"
    lease_namespace: str = Field("default", description="the operator's own namespace")
    lease_seconds: int = Field(15, ge=5, description="a silent leader is replaced after this")
    identity: str = Field("reranker-operator", description="this replica, usually the pod's name")

    http_port: int = Field(8080, description="/healthz, /readyz and /metrics")
    scaler_port: int | None = Field(
        None, ge=1, le=65535, description="gRPC for KEDA, an external scaler; none: off"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["text", "json"] = "json"

    @field_validator("namespaces", "image_pull_secrets", "watch_references", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @property
    def operator_namespace(self) -> str:
        """Where the operator itself runs."""
        return self.lease_namespace

    def defaults(self) -> Defaults:
        """The part that decisions and builders see."""
        return Defaults(
            builder_image=self.builder_image,
            gateway_image=self.gateway_image,
            triton_image=self.triton_image,
            triton_gpu_image=self.triton_gpu_image,
            image_pull_policy=self.image_pull_policy,
            image_pull_secrets=self.image_pull_secrets,
            hub_endpoint=self.hub_endpoint,
            build_deadline_seconds=self.build_deadline_seconds,
            resolve_deadline_seconds=self.resolve_deadline_seconds,
            keep_hours=self.keep_hours,
            high_water_percent=self.high_water_percent,
            operator_namespace=self.operator_namespace,
        )
