"""Group, version and kinds of the API, and the base of its pydantic models."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

GROUP = "reranker.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


class ApiModel(BaseModel):
    """Base of every spec and status object: camelCase and frozen.

    Unknown keys are left to the API server, which refuses or prunes them: an older operator beside
    newer definitions must go on.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="ignore",
        protected_namespaces=(),
    )

    def to_dict(self) -> dict[str, object]:
        """JSON-ready dictionary in API spelling, without absent values."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


@dataclass(frozen=True)
class Resource:
    """Where a kind lives in the Kubernetes API."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As written in a manifest: `v1`, `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version


RERANKER_SERVICE = Resource(GROUP, VERSION, "rerankerservices", "RerankerService")
RERANKER_ENGINE = Resource(GROUP, VERSION, "rerankerengines", "RerankerEngine")
DEPLOYMENT = Resource("apps", "v1", "deployments", "Deployment")
JOB = Resource("batch", "v1", "jobs", "Job")
POD = Resource("", "v1", "pods", "Pod")
SERVICE = Resource("", "v1", "services", "Service")
PVC = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
EVENT = Resource("", "v1", "events", "Event")
SECRET = Resource("", "v1", "secrets", "Secret")
CONFIG_MAP = Resource("", "v1", "configmaps", "ConfigMap")
NODE = Resource("", "v1", "nodes", "Node", namespaced=False)
INGRESS = Resource("networking.k8s.io", "v1", "ingresses", "Ingress")
NETWORK_POLICY = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
BUDGET = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
HTTP_ROUTE = Resource("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")
GRPC_ROUTE = Resource("gateway.networking.k8s.io", "v1", "grpcroutes", "GRPCRoute")
SERVICE_MONITOR = Resource("monitoring.coreos.com", "v1", "servicemonitors", "ServiceMonitor")

#: Read when they are needed, and not watched.
ENDPOINT_SLICE = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")

#: Kinds that a cluster may lack, and get or lose at any time.
OPTIONAL = (HTTP_ROUTE, GRPC_ROUTE, SERVICE_MONITOR)
#: What is made beside a Deployment and its Service, where the spec asks for it.
COMPANIONS = (INGRESS, NETWORK_POLICY, BUDGET, *OPTIONAL)

RESOURCES = {
    resource.kind: resource
    for resource in (
        RERANKER_SERVICE, RERANKER_ENGINE, DEPLOYMENT, JOB, POD, SERVICE, PVC, EVENT, NODE,
        *COMPANIONS,
        SECRET, CONFIG_MAP, ENDPOINT_SLICE,
    )
}  # fmt: skip

#: What the operator makes, or what is made of it: watched by our label and kept in memory.
#: A kind is added here, in the chart's rules and nowhere else; one that the cluster does not know
#: is watched from the moment at which it appears.
OWNED = (JOB, DEPLOYMENT, POD, SERVICE, PVC, *COMPANIONS)
