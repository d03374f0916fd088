"""What a decision may look at: frozen snapshots of the cluster, and the time."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from reranker_operator.api.v1alpha1 import RerankerEngine, RerankerService
from reranker_operator.core.load import PodLoad
from reranker_operator.core.nodes import Nodes
from reranker_operator.render.defaults import Defaults

#: A Kubernetes object as JSON; never changed after it was read.
Manifest = Mapping[str, Any]


def owners_of(entry: Manifest) -> frozenset[str]:
    """Uids of an object's owners."""
    return frozenset(owner["uid"] for owner in entry["metadata"].get("ownerReferences") or ())


def title_of(entry: Manifest) -> tuple[str, str]:
    """Kind and name."""
    return entry["kind"], entry["metadata"]["name"]


def is_leaving(entry: Manifest) -> bool:
    """It is being deleted, and may stay for a while: with a finalizer, or as long as it is used."""
    return "deletionTimestamp" in entry["metadata"]


class Reference(NamedTuple):
    """A Secret or ConfigMap of the service's namespace that its spec names."""

    kind: Literal["ConfigMap", "Secret"]
    name: str


@dataclass(frozen=True)
class ServiceWorld:
    """Everything that the plan of one RerankerService depends on.

    `warnings` are Events, read only about what should be further by now: Jobs without a pod, pods
    that are stuck, claims that are not bound.
    `versions` has what is known of the Secrets and ConfigMaps that the spec names: None for one
    that is not there, no entry for one that the operator may not look at.
    """

    service: RerankerService
    now: datetime.datetime
    defaults: Defaults
    #: Keys of the spec that only a newer operator knows.
    unknown: tuple[str, ...] = ()
    engines: tuple[RerankerEngine, ...] = ()
    engine_owners: Mapping[str, frozenset[str]] = field(default_factory=dict)
    jobs: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    deployments: tuple[Manifest, ...] = ()
    k8s_service: Manifest | None = None
    claims: tuple[Manifest, ...] = ()
    nodes: Nodes | None = None
    warnings: tuple[Manifest, ...] = ()
    #: What there is beside Deployment and Service: ours by label, others' by name.
    companions: tuple[Manifest, ...] = ()
    #: Kinds that the cluster does not know.
    missing_kinds: frozenset[str] = frozenset()
    #: Optional kinds that the operator has no right to.
    forbidden_kinds: frozenset[str] = frozenset()
    #: The Service that has this service's name and is not its own.
    stranger: Manifest | None = None
    versions: Mapping[Reference, str | None] = field(default_factory=dict)
    #: Names of the pods that get the traffic of a Service, by its name; of those asked for only.
    endpoints: Mapping[str, frozenset[str]] = field(default_factory=dict)
    #: What the metrics of its pods said lately; no entry for a pod that was never scraped.
    loads: tuple[PodLoad, ...] = ()


class Sibling(NamedTuple):
    """Another engine of the namespace, as far as its files are concerned."""

    claim: str
    #: Of the engine and of the prepared model that it is made from.
    digests: tuple[str, str]
    is_leaving: bool = False
    #: The prepared model was made for it, and not seen to be damaged since.
    has_prepared: bool = False


@dataclass(frozen=True)
class EngineWorld:
    """Everything that the plan of one RerankerEngine depends on; `warnings` as above."""

    engine: RerankerEngine
    now: datetime.datetime
    defaults: Defaults
    owners: frozenset[str] = frozenset()
    #: Keys of the spec that only a newer operator knows.
    unknown: tuple[str, ...] = ()
    jobs: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    claim: Manifest | None = None
    siblings: tuple[Sibling, ...] = ()
    warnings: tuple[Manifest, ...] = ()
    #: Whether `siblings` are all the others. Some of another version can't be read, and they are
    #: not looked for where no decision is about them.
    all_siblings: bool = True
    #: Only read while a pod has not found its files whole, or may measure them.
    deployments: tuple[Manifest, ...] = ()
