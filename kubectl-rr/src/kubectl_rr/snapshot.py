"""What the cluster looked like at one moment, as far as people want to know it.

All texts in here are safe to print: `read` cleans them as it takes them over.
"""

import datetime
from dataclasses import dataclass
from typing import Literal

StageState = Literal["waiting", "running", "done", "failed"]
#: `starting`: it gets the traffic as soon as there is a pod for it, for the first time.
Role = Literal["serving", "starting", "next", "old"]

#: What has to be True for `Ready`, in the order in which it comes true.
ORDER = ("Accepted", "ModelResolved", "EngineReady", "Serving", "Integrated")


@dataclass(frozen=True)
class Condition:
    """One entry of `status.conditions`."""

    type: str
    status: str
    reason: str
    message: str
    since: datetime.datetime | None = None


@dataclass(frozen=True)
class Pod:
    """A pod as `kubectl get pods` shows it; `trouble` is what `container` complains about.

    `logged`: that container has begun, so it may have a log; `ended`: also one from before.
    """

    name: str
    state: str
    ready: int
    containers: int
    restarts: int
    created: datetime.datetime | None
    trouble: str = ""
    container: str = ""
    logged: bool = False
    ended: bool = False

    @property
    def all_ready(self) -> bool:
        """Every container is ready."""
        return 0 < self.containers == self.ready


@dataclass(frozen=True)
class Stage:
    """One stage of a build: how long it took, or since when it is running."""

    name: str
    state: StageState
    seconds: float | None = None
    since: datetime.datetime | None = None


@dataclass(frozen=True)
class Step:
    """One Job's part of the work, with the pod that does it or failed at it."""

    name: str
    stages: tuple[Stage, ...] = ()
    job: str = ""
    pod: Pod | None = None


@dataclass(frozen=True)
class Engine:
    """A RerankerEngine that a service uses or waits for."""

    name: str
    stage: str
    conditions: tuple[Condition, ...]
    steps: tuple[Step, ...]
    size_bytes: float | None = None
    kendall_tau: float | None = None
    failures: int = 0
    deleting: bool = False

    @property
    def ready(self) -> bool:
        """Built and proven."""
        return any(c.type == "Ready" and c.status == "True" for c in self.conditions)


@dataclass(frozen=True)
class Revision:
    """A Deployment with its pods."""

    name: str
    deployment: str
    engine: str
    role: Role
    ready: int
    wanted: int
    pods: tuple[Pod, ...] = ()
    deleting: bool = False


@dataclass(frozen=True)
class Activator:
    """What holds requests while a service has no pods."""

    deployment: str
    ready: int
    wanted: int
    pods: tuple[Pod, ...] = ()
    deleting: bool = False


@dataclass(frozen=True)
class Model:
    """What the source turned out to be; empty until it is resolved."""

    source: str
    name: str = ""
    architecture: str = ""
    revision: str = ""


@dataclass(frozen=True)
class Serving:
    """What its callers must know; no dialects are all of them."""

    tls: bool = False
    keys: bool = False
    dialects: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scaling:
    """Who decides about the number of pods; all but `owner` only where the operator does.

    `time` is when the numbers of `why` were so; `ignored` is who sets another number, in vain.
    """

    owner: str
    least: int = 0
    most: int = 0
    desired: int = 0
    reason: str = ""
    why: str = ""
    time: datetime.datetime | None = None
    ignored: str = ""


@dataclass(frozen=True)
class Service:
    """A RerankerService and everything that was made for it."""

    namespace: str
    name: str
    model: Model
    stage: str
    conditions: tuple[Condition, ...]
    wanted: int
    ready_pods: int
    url: str
    seen: bool
    current: bool
    created: datetime.datetime | None
    resolve: Step | None = None
    engines: tuple[Engine, ...] = ()
    revisions: tuple[Revision, ...] = ()
    activator: Activator | None = None
    deleting: datetime.datetime | None = None
    finalizers: tuple[str, ...] = ()
    paused: bool = False
    pending: tuple[str, ...] = ()
    serving: Serving = Serving()
    scaling: Scaling | None = None

    def condition(self, kind: str) -> Condition | None:
        """The condition of this type."""
        return next((c for c in self.conditions if c.type == kind), None)

    @property
    def deployments(self) -> tuple[Revision | Activator, ...]:
        """All that runs pods for it for good."""
        return self.revisions if self.activator is None else (*self.revisions, self.activator)

    @property
    def ready(self) -> bool:
        """The newest spec gets the traffic, as far as the operator has looked."""
        found = self.condition("Ready")
        healthy = found is not None and found.status == "True"
        return healthy and self.current and self.deleting is None

    @property
    def blocker(self) -> Condition | None:
        """The condition that keeps the service from being ready: Ready's own cause, or the first.

        The cause may stand on a later one, when it is known already that that can't become true.
        """
        ready = self.condition("Ready")
        if ready is not None and ready.status == "True":
            ready = None
        wanted = (self.condition(kind) for kind in ORDER)
        amiss = [c for c in wanted if c is not None and c.status != "True"]
        # What the rollout meets is its condition's, too; by itself it keeps nothing from serving.
        held = self.condition("Progressing")
        for entry in [*amiss, held] if held and held.status == "False" else amiss:
            if ready and (entry.reason, entry.message) == (ready.reason, ready.message):
                return entry
        return amiss[0] if amiss else ready


@dataclass(frozen=True)
class Snapshot:
    """All services that were asked for; `notes` tell what could not be read."""

    now: datetime.datetime
    services: tuple[Service, ...] = ()
    notes: tuple[str, ...] = ()
