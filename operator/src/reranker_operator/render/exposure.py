"""Addresses outside the cluster: a second Service, an Ingress, an HTTPRoute, a GRPCRoute.

All lead to the pods behind the service's own address. The Service for outside is an object of its
own, so that metrics never leave the cluster, and a load balancer can be made anew (its class is
immutable) while clients inside notice nothing.
"""

from collections.abc import Mapping

from reranker_operator import names
from reranker_operator.api.meta import GRPC_ROUTE, HTTP_ROUTE, INGRESS, SERVICE, Resource
from reranker_operator.api.v1alpha1 import RerankerService
from reranker_operator.render import security
from reranker_operator.render.pods import Json, owner_reference
from reranker_operator.render.serving import GRPC_PORT, HTTP_PORT, service_object


def head(
    service: RerankerService,
    resource: Resource,
    name: str,
    component: str,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Json:
    """Kind and metadata of an object that the service owns; our labels win."""
    meta = service.metadata
    ours = names.labels(component, meta.name) | {names.SERVICE_LABEL: meta.name}
    metadata: Json = {
        "name": name,
        "namespace": meta.namespace,
        "labels": {**(labels or {}), **ours},
        "ownerReferences": [owner_reference(service, controller=True)],
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}


def external_service(service: RerankerService, selector: Mapping[str, str]) -> Json | None:
    """For NodePort and LoadBalancer; it carries the HTTP API only."""
    asked = service.spec.expose.service
    if asked.type == "ClusterIP":
        return None
    port: Json = {
        "name": "http", "protocol": "TCP", "port": asked.port, "targetPort": "http",
    }  # fmt: skip
    port |= security.protocol(service.spec.serving, "http")
    if asked.node_port:
        port["nodePort"] = asked.node_port
    spec: Json = {"type": asked.type, "selector": dict(selector), "ports": [port]}
    if asked.load_balancer_class:
        spec["loadBalancerClass"] = asked.load_balancer_class
    if asked.source_ranges:
        spec["loadBalancerSourceRanges"] = list(asked.source_ranges)
    made_with = {names.BALANCER_ANNOTATION: asked.load_balancer_class or ""}
    name = names.external_service(service.metadata.name)
    annotations = {**(asked.annotations or {}), **made_with}
    return head(service, SERVICE, name, "external", annotations=annotations) | {"spec": spec}


def preview_service(service: RerankerService, revision: str) -> Json:
    """Leads to the revision that is on its way, for those who look at it and for routes."""
    name = names.preview_service(service.metadata.name)
    address = service_object(service, revision)["spec"]
    return head(service, SERVICE, name, "preview") | {"spec": address}


def _backends(service: RerankerService, port: int, weight: int | None) -> list[Json]:
    """The service's own address; with `weight`, of so many percent the revision on its way."""
    name = service.metadata.name
    if weight is None:
        return [{"name": name, "port": port}]
    preview = names.preview_service(name)
    return [
        {"name": name, "port": port, "weight": 100 - weight},
        {"name": preview, "port": port, "weight": weight},
    ]


def ingress(service: RerankerService) -> Json | None:
    """Leads to the service's own address, whichever revision is behind it."""
    asked, name = service.spec.expose.ingress, service.metadata.name
    if asked is None:
        return None
    backend = {"service": {"name": name, "port": {"name": "http"}}}
    paths = [
        {"path": path, "pathType": asked.path_type, "backend": backend} for path in asked.paths
    ]
    hosts: list[Json] = [{"host": host} for host in asked.hosts] or [{}]
    spec: Json = {"rules": [host | {"http": {"paths": paths}} for host in hosts]}
    if asked.class_name:
        spec["ingressClassName"] = asked.class_name
    if asked.tls_secret:
        spec["tls"] = [{"hosts": list(asked.hosts), "secretName": asked.tls_secret}]
    return head(service, INGRESS, name, "ingress", annotations=asked.annotations) | {"spec": spec}


def http_route(service: RerankerService, weight: int | None = None) -> Json | None:
    """As the Ingress; TLS is the listener's. `weight`: percent for the revision on its way."""
    asked, name = service.spec.expose.route, service.metadata.name
    if asked is None:
        return None
    matches = [{"path": {"type": "PathPrefix", "value": path}} for path in asked.paths]
    rule = {"matches": matches, "backendRefs": _backends(service, HTTP_PORT, weight)}
    spec: Json = {"parentRefs": [ref.to_dict() for ref in asked.parent_refs], "rules": [rule]}
    if asked.hostnames:
        spec["hostnames"] = list(asked.hostnames)
    return head(service, HTTP_ROUTE, name, "route", annotations=asked.annotations) | {"spec": spec}


def grpc_route(service: RerankerService, weight: int | None = None) -> Json | None:
    """For port 8001; whatever method is asked for. `weight` as above."""
    asked, name = service.spec.expose.grpc_route, service.metadata.name
    if asked is None or not service.spec.serving.grpc:
        return None
    rule = {"backendRefs": _backends(service, GRPC_PORT, weight)}
    spec: Json = {"parentRefs": [ref.to_dict() for ref in asked.parent_refs], "rules": [rule]}
    if asked.hostnames:
        spec["hostnames"] = list(asked.hostnames)
    annotations = asked.annotations
    return head(service, GRPC_ROUTE, name, "grpc-route", annotations=annotations) | {"spec": spec}
