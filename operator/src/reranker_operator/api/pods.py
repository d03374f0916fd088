"""The groups of a RerankerService's spec that shape its pods: pass-through, proxy, authorities."""

from typing import Annotated, Literal

from pydantic import Field

from reranker_operator.api.fields import Name
from reranker_operator.api.kubernetes import (
    Affinity,
    Container,
    Env,
    EnvFrom,
    HostAlias,
    InitContainer,
    ObjectReference,
    Open,
    ResourceRequirements,
    Toleration,
    TopologySpreadConstraint,
    Volume,
    VolumeMounts,
    by,
)
from reranker_operator.api.meta import ApiModel

_Texts = Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=64)]
_LongTexts = Annotated[dict[str, Annotated[str, Field(max_length=8192)]], Field(max_length=64)]


class ProbeSettings(ApiModel):
    """When a probe of ours asks and gives up; what it asks is fixed."""

    initial_delay_seconds: int | None = Field(
        default=None, ge=0, le=3600, description="Seconds after start. Default: the probe's own."
    )
    period_seconds: int | None = Field(
        default=None,
        ge=1,
        le=3600,
        description="Seconds between two tries. Default: the probe's own.",
    )
    timeout_seconds: int | None = Field(
        default=None, ge=1, le=3600, description="Seconds for one answer. Default: the probe's own."
    )
    failure_threshold: int | None = Field(
        default=None, ge=1, le=10000, description="Failures in a row. Default: the probe's own."
    )


class ContainerSettings(ApiModel):
    """Overrides for one container of the serving pod."""

    image: str | None = Field(
        default=None,
        min_length=1,
        max_length=1024,
        description="Image to run instead. Default: the operator's.",
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        default=None, description="When to pull the image. Default: the operator's setting."
    )
    resources: ResourceRequirements | None = Field(
        default=None, description="Requests and limits. Default: the operator's."
    )
    env: Env = ()
    env_from: EnvFrom = ()
    volume_mounts: VolumeMounts = ()


class GatewaySettings(ContainerSettings):
    """Overrides for the gateway."""

    readiness_probe: ProbeSettings | None = Field(
        default=None,
        description="When the pod gets traffic. Default: every 1 s, 2 s for an answer, 4 failures.",
    )
    liveness_probe: ProbeSettings | None = Field(
        default=None,
        description="When it is started anew. Default: every 10 s, 5 s for an answer, 6 failures.",
    )
    startup_probe: ProbeSettings | None = Field(
        default=None,
        description="Holds the other probes back until the gateway answers. Default: every 1 s, "
        "5 s for an answer, 300 failures.",
    )


class TritonSettings(ContainerSettings):
    """Overrides for Triton."""

    liveness_probe: ProbeSettings | None = Field(
        default=None,
        description="When it is started anew. Default: every 20 s, 5 s for an answer, 3 failures.",
    )
    startup_probe: ProbeSettings | None = Field(
        default=None,
        description="How long it may load the engine. Default: every 1 s, 5 s for an answer, "
        "600 failures.",
    )


class PodSettings(ApiModel):
    """What is added to the serving pods; names, ports, mounts and security of ours stay."""

    labels: _Texts | None = Field(default=None, description="Further labels. Default: none.")
    annotations: _LongTexts | None = Field(
        default=None, description="Further annotations. Default: none."
    )
    affinity: Affinity | None = Field(
        default=None, description="Which nodes attract the pods. Default: none."
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(),
        max_length=32,
        description="Taints that the pods tolerate, besides those of accelerator.tolerations.",
    )
    topology_spread_constraints: tuple[TopologySpreadConstraint, ...] = Field(
        default=(),
        max_length=8,
        json_schema_extra=by("topologyKey", "whenUnsatisfiable"),
        description="How evenly the pods are spread. Default: the cluster's default.",
    )
    priority_class_name: Name | None = Field(
        default=None, description="PriorityClass. Default: the cluster's default."
    )
    runtime_class_name: Name | None = Field(
        default=None, description="RuntimeClass, for example nvidia. Default: the node's."
    )
    scheduler_name: Name | None = Field(
        default=None, description="Who schedules. Default: default-scheduler."
    )
    service_account_name: Name | None = Field(
        default=None,
        description="ServiceAccount of the pods; no token is mounted. Default: default.",
    )
    image_pull_secrets: tuple[ObjectReference, ...] = Field(
        default=(),
        max_length=16,
        json_schema_extra=by("name"),
        description="Pull secrets for the pods' images, besides the operator's.",
    )
    termination_grace_period_seconds: int | None = Field(
        default=None,
        ge=30,
        le=86400,
        description="Seconds from SIGTERM to SIGKILL; requests in progress have 15 s less. "
        "Default: 75.",
    )
    host_aliases: tuple[HostAlias, ...] = Field(
        default=(),
        max_length=32,
        json_schema_extra=by("ip"),
        description="Lines of /etc/hosts. Default: none.",
    )
    dns_policy: Literal["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"] | None = (
        Field(default=None, description="Who answers DNS. Default: ClusterFirst.")
    )
    dns_config: Open | None = Field(
        default=None, description="Servers, searches and options of DNS. Default: none."
    )
    volumes: tuple[Volume, ...] = Field(
        default=(),
        max_length=32,
        json_schema_extra=by("name"),
        description="Further volumes, for volumeMounts of any container. Default: none.",
    )
    init_containers: tuple[InitContainer, ...] = Field(
        default=(),
        max_length=8,
        json_schema_extra=by("name"),
        description="Containers that run after the engine is verified and before Triton starts. "
        "Default: none.",
    )
    sidecars: tuple[Container, ...] = Field(
        default=(),
        max_length=8,
        json_schema_extra=by("name"),
        description="Containers that run beside the gateway. Default: none.",
    )


_URL = r"^https?://[^\s]+$"


class ProxySpec(ApiModel):
    """The way out of the cluster, for what fetches models and for the serving pods."""

    http_proxy: str | None = Field(
        default=None,
        max_length=1024,
        pattern=_URL,
        description="Proxy for http:// addresses, as http://HOST:PORT. Default: none.",
    )
    https_proxy: str | None = Field(
        default=None,
        max_length=1024,
        pattern=_URL,
        description="Proxy for https:// addresses, as http://HOST:PORT. Default: none.",
    )
    no_proxy: str | None = Field(
        default=None,
        max_length=4096,
        description="Comma-separated hosts and domains that are reached without it, besides "
        "localhost, .svc and .cluster.local. Default: no others.",
    )


class BundleKey(ApiModel):
    """A key with certificates in PEM form."""

    name: Name = Field(description="Name of the object.")
    key: str = Field(default="ca.crt", min_length=1, max_length=253, description="Key inside it.")


class CaBundle(ApiModel):
    """Certificate authorities to trust; they replace those of the images."""

    config_map: BundleKey | None = Field(default=None, description="In this ConfigMap.")
    secret: BundleKey | None = Field(default=None, description="In this Secret.")
