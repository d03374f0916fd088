"""What a RerankerService may ask for beside its pods: addresses, budget, network, monitoring."""

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from reranker_operator.api.fields import LabelName, Name, QualifiedName
from reranker_operator.api.meta import ApiModel

Annotations = dict[str, str]
Port = Annotated[int, Field(ge=1, le=65535)]
#: With a `*.` in front where a first label may be anything.
Host = Annotated[
    str, Field(min_length=1, max_length=253, pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
]
Path = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^/")]
Cidr = Annotated[str, Field(max_length=49, pattern=r"^[0-9A-Fa-f.:]+/[0-9]{1,3}$")]
Duration = Annotated[str, Field(max_length=16, pattern=r"^([0-9]+(h|m|s|ms))+$")]


def _amount(value: object) -> object:
    """More than 100% is only refused where it is written: it may be stored already."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and re.fullmatch("[0-9]{1,3}%", value):
        return value
    raise ValueError("must be a number of pods such as 1, or a share of them such as 50%")


IntOrPercent = Annotated[
    int | str,
    BeforeValidator(_amount),
    Field(json_schema_extra={"x-kubernetes-int-or-string": True}),
]


class ExternalService(ApiModel):
    """A second Service, NAME-external, that carries the HTTP API out of the cluster."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = Field(
        default="ClusterIP",
        description=(
            "ClusterIP serves inside the cluster only. NodePort and LoadBalancer add the Service "
            "NAME-external; the one inside stays as it is, and metrics stay inside."
        ),
    )
    port: Port = Field(default=8000, description="TCP port of the load balancer.")
    node_port: Port | None = Field(
        default=None,
        description="Port on each node. Default: one that the cluster picks, 30000 to 32767.",
    )
    annotations: Annotations | None = Field(
        default=None, description="Annotations of NAME-external, for the cloud's load balancer."
    )
    load_balancer_class: QualifiedName | None = Field(
        default=None,
        description=(
            "Which implementation makes the load balancer. Default: the cluster's. Another one "
            "makes NAME-external anew, with another address."
        ),
    )
    source_ranges: tuple[Cidr, ...] = Field(
        default=(),
        max_length=64,
        description="Client addresses that the load balancer lets in, as CIDR. Default: all.",
    )


class IngressSpec(ApiModel):
    """An Ingress that leads to the HTTP API."""

    class_name: Name | None = Field(
        default=None,
        description="IngressClass. Default: the cluster's default class.",
    )
    hosts: tuple[Host, ...] = Field(
        default=(), max_length=16, description="Host names. Default: any host."
    )
    paths: tuple[Path, ...] = Field(
        default=("/",),
        min_length=1,
        max_length=16,
        description="URL paths that lead here; the API gets them as they are. Default: /.",
    )
    path_type: Literal["Prefix", "Exact", "ImplementationSpecific"] = Field(
        default="Prefix", description="How paths match."
    )
    tls_secret: Name | None = Field(
        default=None,
        description=(
            "Secret of type kubernetes.io/tls, in the same namespace, for all hosts. Default: no "
            "TLS."
        ),
    )
    annotations: Annotations | None = Field(
        default=None, description="Annotations of the Ingress, for its controller or cert-manager."
    )


class ParentRef(ApiModel):
    """A Gateway to attach to."""

    name: Name = Field(description="Name of the Gateway.")
    namespace: LabelName | None = Field(
        default=None,
        description="Its namespace. Default: the service's own.",
    )
    section_name: Name | None = Field(
        default=None,
        description="One listener of the Gateway. Default: all that match.",
    )
    port: Port | None = Field(default=None, description="Only listeners on this port.")


class RouteSpec(ApiModel):
    """An HTTPRoute of the Gateway API that leads to the HTTP API."""

    parent_refs: tuple[ParentRef, ...] = Field(
        min_length=1, max_length=8, description="Gateways to attach to."
    )
    hostnames: tuple[Host, ...] = Field(
        default=(), max_length=16, description="Host names. Default: those of the listener."
    )
    paths: tuple[Path, ...] = Field(
        default=("/",),
        min_length=1,
        max_length=16,
        description="Prefixes of URL paths that lead here; the API gets them as they are.",
    )
    scheme: Literal["https", "http"] = Field(
        default="https", description="What the listener speaks; status.url begins with it."
    )
    annotations: Annotations | None = Field(
        default=None, description="Annotations of the HTTPRoute."
    )


class GrpcRouteSpec(ApiModel):
    """A GRPCRoute of the Gateway API that leads to the gRPC API, port 8001."""

    parent_refs: tuple[ParentRef, ...] = Field(
        min_length=1, max_length=8, description="Gateways to attach to."
    )
    hostnames: tuple[Host, ...] = Field(
        default=(), max_length=16, description="Host names. Default: those of the listener."
    )
    annotations: Annotations | None = Field(
        default=None, description="Annotations of the GRPCRoute."
    )


class ExposeSpec(ApiModel):
    """Addresses outside the cluster; inside it is always http://NAME.NAMESPACE.svc:8000."""

    service: ExternalService = Field(
        default=ExternalService(), description="By a Service: NodePort or LoadBalancer."
    )
    ingress: IngressSpec | None = Field(default=None, description="By an Ingress. Default: none.")
    route: RouteSpec | None = Field(
        default=None,
        description=(
            "By the Gateway API; TLS is the listener's. Its definitions may be installed later. "
            "Default: none."
        ),
    )
    grpc_route: GrpcRouteSpec | None = Field(
        default=None,
        description=(
            "For gRPC by the Gateway API; serving.dialects must have grpc, or be left out. "
            "Default: none."
        ),
    )


class DisruptionSpec(ApiModel):
    """How many pods a node drain or another voluntary eviction may take at a time.

    It is about the pods that get the traffic. With fewer than two replicas there is no budget,
    which could only block drains.
    """

    enabled: bool = Field(
        default=True, description="Make a PodDisruptionBudget when replicas is 2 or more."
    )
    min_available: IntOrPercent | None = Field(
        default=None,
        description=(
            "Pods, or percent of them, that stay. At most one pod fewer than replicas counts, so "
            "that a drain gets on."
        ),
    )
    max_unavailable: IntOrPercent | None = Field(
        default=None,
        description="Pods, or percent of them, that may go at a time, at least 1. Default: 1.",
    )


class LabelRequirement(ApiModel):
    """One requirement of a label selector."""

    key: str = Field(min_length=1, max_length=317, description="Label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(description="Comparison.")
    values: tuple[Annotated[str, Field(max_length=63)], ...] | None = Field(
        default=None, max_length=32, description="For In and NotIn."
    )


class LabelSelector(ApiModel):
    """A Kubernetes label selector; an empty one selects everything."""

    match_labels: dict[str, str] | None = Field(default=None, description="Labels to have.")
    match_expressions: tuple[LabelRequirement, ...] | None = Field(
        default=None, max_length=16, description="Requirements to meet."
    )


class IpBlock(ApiModel):
    """A range of addresses."""

    cidr: Cidr = Field(description="For example 10.0.0.0/8.")
    except_: tuple[Cidr, ...] | None = Field(
        default=None, alias="except", max_length=32, description="Ranges inside it to leave out."
    )


class Peer(ApiModel):
    """Who may talk: pods, by their own and their namespace's labels, or addresses."""

    pod_selector: LabelSelector | None = Field(
        default=None, description="Pods with these labels, in the namespaces selected beside it."
    )
    namespace_selector: LabelSelector | None = Field(
        default=None, description="Namespaces with these labels. Default: the service's own."
    )
    ip_block: IpBlock | None = Field(default=None, description="Addresses outside the cluster.")


class NetworkPort(ApiModel):
    """A destination port."""

    protocol: Literal["TCP", "UDP", "SCTP"] = Field(default="TCP", description="Protocol.")
    port: Port = Field(description="Port number.")
    end_port: Port | None = Field(default=None, description="Last port of a range.")


class EgressRule(ApiModel):
    """Connections that pods may open."""

    to: tuple[Peer, ...] | None = Field(
        default=None, max_length=16, description="Destinations. Default: anywhere."
    )
    ports: tuple[NetworkPort, ...] | None = Field(
        default=None, max_length=16, description="Ports. Default: all."
    )


class NetworkPolicySpec(ApiModel):
    """NetworkPolicies for the pods that serve and for those that build.

    They take effect where the cluster's network plugin enforces them.
    """

    enabled: bool = Field(
        default=False,
        description=(
            "Make NetworkPolicies. Off by default, since sidecars of a service mesh and monitoring "
            "have needs that only you know."
        ),
    )
    clients: tuple[Peer, ...] | None = Field(
        default=None,
        max_length=32,
        description=(
            "Who may reach the API, ports 8000 and 8001. Default: pods of the same namespace, or "
            "everybody when spec.expose makes an address outside. An empty list: nobody."
        ),
    )
    monitoring: tuple[Peer, ...] | None = Field(
        default=None,
        max_length=32,
        description=(
            "Who may reach the metrics, port 8002. Default: pods of the namespace named "
            "monitoring. An empty list: nobody."
        ),
    )
    egress: tuple[EgressRule, ...] = Field(
        default=(),
        max_length=16,
        description=(
            "Connections that serving pods may open, for sidecars; with any, DNS is open too. "
            "Default: none, since serving needs none."
        ),
    )
    builder_egress: tuple[EgressRule, ...] | None = Field(
        default=None,
        max_length=16,
        description=(
            "Connections that building pods may open, beside DNS, such as to the hub or its "
            "mirror. Default: all. Nobody may connect to them in any case."
        ),
    )


class ServiceMonitorSpec(ApiModel):
    """A ServiceMonitor of the Prometheus operator."""

    labels: dict[str, str] | None = Field(
        default=None,
        description="Labels by which Prometheus selects it, such as release: prometheus.",
    )
    interval: Duration | None = Field(
        default=None, description="Time between scrapes, such as 15s. Default: that of Prometheus."
    )
    scrape_timeout: Duration | None = Field(
        default=None, description="Longest scrape, such as 10s. Default: that of Prometheus."
    )


class MonitoringSpec(ApiModel):
    """Scraping of the metrics on port 8002."""

    service_monitor: ServiceMonitorSpec | None = Field(
        default=None,
        description=(
            "Make a ServiceMonitor; {} will do. Its definition may be installed later. Leave it "
            "out where the operator's chart has one for all services. Default: none."
        ),
    )
