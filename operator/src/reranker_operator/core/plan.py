"""A plan: what should be done to the cluster, as values.

Steps return plans, the executor carries them out in the order of the fields. `details` says in
words why; it is logged and shown by failing tests.
"""

from dataclasses import dataclass, field
from typing import Any

from reranker_operator.api.conditions import Condition
from reranker_operator.api.meta import ApiModel, Resource
from reranker_operator.names import MANAGER


@dataclass(frozen=True)
class Apply:
    """Server-side apply of a whole object, or of the few fields one manager owns."""

    manifest: dict[str, Any]
    manager: str = MANAGER


@dataclass(frozen=True)
class Create:
    """Create once; an object that is there already is left as it is (Jobs are immutable)."""

    manifest: dict[str, Any]


@dataclass(frozen=True)
class Patch:
    """JSON merge patch; with a resourceVersion in it, only of the object that we saw."""

    resource: Resource
    name: str
    patch: dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """Set the replicas of a Deployment and nothing else of it."""

    name: str
    replicas: int


@dataclass(frozen=True)
class ScaleService:
    """Set `spec.replicas` of a RerankerService, through its scale subresource."""

    name: str
    replicas: int


@dataclass(frozen=True)
class Delete:
    """Delete one object, with what it owns in the background, if it still is the one we saw.

    With `version` (its resourceVersion) only if it has not changed since.
    """

    resource: Resource
    name: str
    uid: str | None = None
    version: str | None = None


@dataclass(frozen=True)
class Release:
    """Take our owner reference off a shared object."""

    resource: Resource
    name: str
    manager: str


@dataclass(frozen=True)
class DropFinalizer:
    """Let go of an object that is being deleted."""

    resource: Resource
    name: str


Action = Apply | Create | Patch | Scale | ScaleService | Delete | Release | DropFinalizer


@dataclass(frozen=True)
class Plan:
    """`first`, `actions` and `last`, each in order, then `beside`, then the status.

    `requeue_after` is in seconds. Where one of `first` is refused, the rest of `first` and `last`
    are left for later, and `alone` and `beside_alone` are done in place of `actions` and `beside`:
    those who answer requests must not wait for a build. Of what stands beside, each is tried,
    whatever becomes of the others.
    `noted`: the status tells of something that is gone once the actions are done, and so has to be
    written before anybody looks again.
    """

    first: tuple[Action, ...] = ()
    actions: tuple[Action, ...] = ()
    last: tuple[Action, ...] = ()
    beside: tuple[Action, ...] = ()
    alone: tuple[Action, ...] = ()
    beside_alone: tuple[Action, ...] = ()
    judgements: tuple[Condition, ...] = ()
    status: ApiModel | None = None
    requeue_after: float | None = None
    noted: bool = False
    #: `requeue_after` is kept also where `first` or `beside` is refused, and tried again then.
    on_time: bool = False
    details: tuple[str, ...] = field(default=())
