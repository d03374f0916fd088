"""The operator and its users around the controllers, so that whole stories can be played through.

`Simulation` runs the real reconciler on the keys that the real event handler makes of changes, and
owns the clock. Nothing waits: `settle` goes on until nobody has anything to do at this moment,
`converge` also jumps to the moments at which somebody asked to be woken.
"""

import asyncio
import copy
import datetime
import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from reranker_operator.adapters.cache import CachingCluster
from reranker_operator.adapters.cluster import Json
from reranker_operator.api.meta import (
    API_VERSION,
    COMPANIONS,
    DEPLOYMENT,
    EVENT,
    JOB,
    OWNED,
    POD,
    PVC,
    RERANKER_ENGINE,
    RERANKER_SERVICE,
    RESOURCES,
    SERVICE,
)
from reranker_operator.api.v1alpha1 import RerankerEngine, RerankerService
from reranker_operator.core.load import PodLoad, Sample
from reranker_operator.core.recheck import Calm, recheck
from reranker_operator.core.world import ServiceWorld
from reranker_operator.errors import OperatorError
from reranker_operator.names import (
    APP_COMPONENT,
    APP_MANAGED_BY,
    MANAGER,
    RESOLVE_AGAIN,
    REVISION_LABEL,
    SERVICE_LABEL,
)
from reranker_operator.render.defaults import Defaults
from reranker_operator.runtime.fleet import Fleet
from reranker_operator.runtime.optional_kinds import OptionalKinds
from reranker_operator.runtime.queue import Key, WorkQueue
from reranker_operator.runtime.reading import read
from reranker_operator.runtime.reconciler import Reconciler
from reranker_operator.runtime.references import References
from reranker_operator.runtime.resync import Resync
from reranker_operator.runtime.watch import Watch
from reranker_operator.shell.handlers import keys_of

from .controllers import NAMESPACE, Controllers
from .fake_metadata import FakeMetadata, change_of
from .traffic import Traffic

DEFAULTS = Defaults("builder:1", "gateway:1", "triton:1", "triton:1-gpu")
_PICTURED = (RERANKER_SERVICE, RERANKER_ENGINE, DEPLOYMENT, JOB, SERVICE, PVC, *COMPANIONS)
_CHANGING = {
    "resourceVersion", "generation", "observedGeneration", "creationTimestamp",
    "lastTransitionTime", "lastFailureTime", "readyTime", "resolvedTime", "finishedAt",
    "managedFields",
}  # fmt: skip
_OURS = {APP_MANAGED_BY: MANAGER}
WATCHED = {RERANKER_SERVICE: None, RERANKER_ENGINE: None} | dict.fromkeys(OWNED, _OURS)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:]+(Z|\+00:00)")


class _Slow:
    """A cluster whose every answer lets others go first."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self.pages = cluster.pages

    def __getattr__(self, name: str) -> Callable[..., Any]:
        ask = getattr(self._cluster, name)

        async def call(*positional: Any, **named: Any) -> Any:
            await asyncio.sleep(0)
            answer = await ask(*positional, **named)
            await asyncio.sleep(0)
            return answer

        return call


class _Scrapes:
    """What the metrics of a service's pods said in the last minute."""

    def __init__(self, sim: "Simulation") -> None:
        self._sim = sim
        self._calm: dict[Key, tuple[Calm, RerankerService]] = {}

    def of(self, service: RerankerService, pods: Iterable[Json]) -> tuple[PodLoad, ...]:
        if service.spec.autoscaling is None:
            return ()
        return tuple(self._load(pod) for pod in pods if pod["status"].get("phase") == "Running")

    def planned(self, world: ServiceWorld) -> None:
        meta, calm = world.service.metadata, recheck(world)
        if calm is not None:
            key = Key(RERANKER_SERVICE.kind, meta.namespace, meta.name)
            self._calm[key] = (calm, world.service)

    def forget(self, key: Key) -> None:
        self._calm.pop(key, None)

    def restless(self) -> list[Key]:
        """Services whose loads would change the decision."""
        now = self._sim.now.timestamp()
        return [
            key
            for key, (calm, service) in self._calm.items()
            if not calm(self.of(service, self._sim.pods_of(service.metadata.name)), now)
        ]

    def _load(self, pod: Json) -> PodLoad:
        labels, now = pod["metadata"]["labels"], self._sim.now.timestamp()
        if labels[APP_COMPONENT] == "activator":
            held = Sample(at=now, in_progress=float(self._sim.requests_held))
            return PodLoad(pod["metadata"]["name"], "activator", None, (held,))
        samples = tuple(self._sample(now - ago) for ago in range(60, -1, -10))
        return PodLoad(pod["metadata"]["name"], "serving", labels[REVISION_LABEL], samples)

    def _sample(self, at: float) -> Sample:
        """Half of what a pod can do, or nothing."""
        seconds = at % 1_000_000 if self._sim.busy else 0.0
        return Sample(
            at=at,
            tokens_per_second=1000.0,
            arrived_tokens=500 * seconds,
            tokens=500 * seconds,
            busy_seconds=0.5 * seconds,
            requests=seconds,
        )


class Simulation(Controllers):
    """One namespace with its users and our operator, on top of the controllers."""

    def __init__(self, defaults: Defaults = DEFAULTS, *, workers: int = 1) -> None:
        super().__init__()
        self.defaults, self._worker_count = defaults, workers
        self.errors: list[OperatorError] = []
        #: Of the operator itself; a worker survives them and tries again.
        self.defects_are_expected = False
        self.garbage_is_collected = True
        self.watched_references = ("ConfigMap", "Secret")
        self.after_step: Callable[[], None] = lambda: None
        self._deadlines: dict[Key, datetime.datetime] = {}
        #: What scrapes find: requests that each activator holds, and whether pods have work.
        self.requests_held, self.busy = 0, True
        self.traffic: Traffic | None = None
        self.restart_operator()

    def fork(self) -> "Simulation":
        """The same world with a freshly started operator, going its own way from here."""
        twin = Simulation(self.defaults, workers=self._worker_count)
        twin.now, twin.pods_start, twin.parity = self.now, self.pods_start, self.parity
        twin.activators_start, twin.endpoints_follow = self.activators_start, self.endpoints_follow
        twin.gateway_says = self.gateway_says
        twin.requests_held, twin.busy = self.requests_held, self.busy
        twin.refusal, twin.toolchain = self.refusal, self.toolchain
        twin.runtimes = self.runtimes
        twin.revisions, twin.store = dict(self.revisions), self.store
        twin.held, twin.damaged = set(self.held), set(self.damaged)
        twin.missing_secrets = set(self.missing_secrets)
        twin.probes = self.probes
        twin.registry_is_full = self.registry_is_full
        twin.registry, twin.signed = dict(self.registry), set(self.signed)
        twin.told, twin.job_ends = dict(self.told), dict(self.job_ends)
        twin.claim_told, twin.event_of_pods = self.claim_told, self.event_of_pods
        twin.events_of_claims = self.events_of_claims
        twin.faults = copy.deepcopy(self.faults)
        twin.stored, twin.made = copy.deepcopy(self.stored), dict(self.made)
        twin._numbers = itertools.count(next(self._numbers))
        twin.cluster = self.cluster.fork(lambda: twin.now)
        twin.restart_operator()
        return twin

    def send(self, per_second: float, name: str = "rank") -> Traffic:
        """From now on somebody asks the service, and its pods tell of it."""
        self.traffic = Traffic(self, per_second, name)
        self.restart_operator()
        return self.traffic

    # What people do.

    def create_service(self, name: str = "rank", **spec: Any) -> None:
        spec = {"model": {"source": "hf://org/tiny"}} | spec
        # As the API server does with the null of a field that has a default.
        spec = {field: value for field, value in spec.items() if value is not None}
        self.cluster.put(
            {
                "apiVersion": API_VERSION,
                "kind": RERANKER_SERVICE.kind,
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": spec,
            }
        )

    def apply_service(self, manager: str = "gitops", name: str = "rank", **spec: Any) -> None:
        """As GitOps does: server-side, forced, with nothing but what the manifest says."""
        manifest = {
            "apiVersion": API_VERSION,
            "kind": RERANKER_SERVICE.kind,
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"model": {"source": "hf://org/tiny"}} | spec,
        }
        self.cluster._apply("apply", manifest, manager, "")

    def scale_service(self, replicas: int, by: str = "kube-controller-manager") -> None:
        """As an HPA or `kubectl scale rr` does."""
        self.cluster.scale_by(RERANKER_SERVICE, NAMESPACE, "rank", replicas, by)

    def edit_service(self, name: str = "rank", **spec: Any) -> None:
        self.cluster.edit(RERANKER_SERVICE, NAMESPACE, name, {"spec": spec})

    def resolve_again(self, value: str, name: str = "rank") -> None:
        patch = {"metadata": {"annotations": {RESOLVE_AGAIN: value}}}
        self.cluster.edit(RERANKER_SERVICE, NAMESPACE, name, patch)

    def annotate(self, key: str, value: str | None, name: str = "rank") -> None:
        """As people and GitOps do."""
        patch = {"metadata": {"annotations": {key: value}}}
        self.cluster.edit(RERANKER_SERVICE, NAMESPACE, name, patch)

    def delete_service(self, name: str = "rank") -> None:
        self.cluster.remove(RERANKER_SERVICE, NAMESPACE, name)

    def put_file(self, kind: str, name: str, text: str = "1") -> None:
        """A Secret or ConfigMap, new or with other contents."""
        if self.cluster.find(RESOURCES[kind], NAMESPACE, name) is not None:
            self.cluster.edit(RESOURCES[kind], NAMESPACE, name, {"data": {"ca.crt": text}})
            return
        meta = {"name": name, "namespace": NAMESPACE}
        self.cluster.put(
            {"apiVersion": "v1", "kind": kind, "metadata": meta, "data": {"ca.crt": text}}
        )

    def add_claim(self, name: str, mode: str = "ReadWriteOnce") -> None:
        """A claim of the user's own."""
        self.cluster.put(
            {
                "apiVersion": "v1",
                "kind": PVC.kind,
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": {"accessModes": [mode]},
            }
        )

    # What can be seen.

    def service(self, name: str = "rank") -> RerankerService:
        found = self.cluster.find(RERANKER_SERVICE, NAMESPACE, name)
        assert found is not None
        return read(RerankerService, found)[0]

    def engines(self) -> list[RerankerEngine]:
        found = self.cluster.select(RERANKER_ENGINE, NAMESPACE)
        return [read(RerankerEngine, entry)[0] for entry in found]

    def names(self, kind: str) -> list[str]:
        resource = RESOURCES[kind]
        return [entry["metadata"]["name"] for entry in self.cluster.select(resource, NAMESPACE)]

    def condition(self, kind: str, name: str = "rank") -> tuple[str, str]:
        """Status and reason of one condition of a service."""
        entry = next(c for c in self.service(name).status.conditions if c.type == kind)
        return entry.status, entry.reason

    def message(self, kind: str, name: str = "rank") -> str:
        """What one condition of a service says."""
        return next(c for c in self.service(name).status.conditions if c.type == kind).message

    def selected(self, name: str = "rank") -> Json | None:
        """The Deployment that the address of a service leads to."""
        address = self.cluster.find(SERVICE, NAMESPACE, name)
        if address is None:
            return None
        selector = address["spec"]["selector"]
        return next(iter(self.cluster.select(DEPLOYMENT, NAMESPACE, selector)), None)

    def events(self) -> list[Json]:
        """Events of the namespace."""
        return list(self.cluster.select(EVENT, NAMESPACE))

    def engine_of(self, deployment: Json) -> str:
        return str(deployment["metadata"]["labels"]["reranker.dev/engine"])

    def picture(self) -> dict[str, Any]:
        """Everything but Events, without what differs from run to run: uids, versions, times."""
        entries = [
            entry for resource in _PICTURED for entry in self.cluster.select(resource, NAMESPACE)
        ]
        known = {entry["metadata"]["uid"]: _title(entry) for entry in entries}
        return {_title(entry): _timeless(entry, known) for entry in entries} | self._pods()

    def _pods(self) -> dict[str, list[str]]:
        """Phases by owner: a pod's name ends in a number that differs from run to run."""
        pods: defaultdict[str, list[str]] = defaultdict(list)
        for pod in self.cluster.select(POD, NAMESPACE):
            pods[f"Pods/{pod['metadata']['name'].rpartition('-')[0]}"].append(
                pod["status"]["phase"]
            )
        return dict(pods)

    # How time goes on.

    def restart_operator(self) -> None:
        """A new process: nothing but the cluster is remembered."""
        clock = lambda: self.now.timestamp()  # noqa: E731, PLW0108 - `now` is another one each time
        self.queue = WorkQueue(clock=clock, jitter=lambda: 1.0)
        self._deadlines.clear()
        self._listed = False
        self._shown: set[str] = set()
        self.fleet = Fleet()
        live = self.cluster if self._worker_count == 1 else _Slow(self.cluster)
        self.cache = CachingCluster(live, WATCHED, clock)
        self.watch = Watch(
            self.cache, self.queue, self.fleet, keys_of, (), child_delay=0.0, clock=clock
        )
        self._kinds = OptionalKinds(self.cluster, clock=clock)
        self.references = References(
            FakeMetadata(self.cluster), self.queue.add, kinds=self.watched_references
        )
        self._scrapes = _Scrapes(self)
        self._reconciler = Reconciler(
            self.cache,
            self.defaults,
            references=self.references,
            clock=lambda: self.now,
            kinds=self._kinds,
            loads=self.traffic or self._scrapes,  # type: ignore[arg-type]  # what is called of it
        )

    async def resync(self) -> None:
        """Queue everything, as at the start of a process."""
        resync = Resync(
            self.cache,
            self.queue,
            self.fleet,
            (),
            seconds=600,
            missed=self.watch.missed,
            kinds=self._kinds,
        )
        await resync.once()

    async def settle(self) -> None:
        """Until nobody has anything to do at this moment."""
        for _ in range(300):
            did = await self.reconcile_pending()
            did |= self.step()
            did |= self.garbage_is_collected and self.cluster.collect_garbage()
            self.after_step()
            if not did:
                return
        raise AssertionError(f"never at rest; last calls: {self.cluster.calls[-12:]}")

    async def advance(self, seconds: float) -> None:
        """Let time pass, then settle."""
        self.now += datetime.timedelta(seconds=seconds)
        self._fall_due()
        await self.settle()

    def _fall_due(self) -> None:
        for key in [key for key, due in self._deadlines.items() if due <= self.now]:
            del self._deadlines[key]
            self.queue.add(key)
        for key in self._scrapes.restless():
            self.queue.add(key)

    def pods_of(self, service: str) -> list[Json]:
        """Pods that a service's own are read from."""
        return self.cluster.select(POD, NAMESPACE, {SERVICE_LABEL: service})

    async def survive(self, seconds: float) -> None:
        """Let time pass while the API server does not answer; the controllers go on."""
        self.now += datetime.timedelta(seconds=seconds)
        self._fall_due()
        await self.reconcile_pending()
        self.step()
        self.cluster.collect_garbage()

    async def converge(self, jumps: int = 40) -> None:
        """Settle, then jump from one requested moment to the next until none is left."""
        await self.settle()
        for _ in range(jumps):
            if not self._deadlines:
                return
            wait = (min(self._deadlines.values()) - self.now).total_seconds()
            await self.advance(max(0.0, wait))
        raise AssertionError(f"still waiting for {self._deadlines}; {self.errors[-3:]}")

    @property
    def next_wake(self) -> float | None:
        """Seconds to the next moment that somebody asked for."""
        due = min(self._deadlines.values(), default=None)
        return None if due is None else (due - self.now).total_seconds()

    async def reconcile_pending(self) -> bool:
        """Work on the keys of everything that has changed."""
        did = False
        if not self._listed:
            try:
                await self.resync()
            except OperatorError as error:
                self.errors.append(error)
                return False
            self._listed = True
        self._notice()
        working: set[asyncio.Task[None]] = set()
        while self.queue.waiting or working:
            while self.queue.waiting and len(working) < self._worker_count:
                key = await self.queue.get()
                assert key is not None
                self._deadlines.pop(key, None)
                working.add(asyncio.create_task(self._reconcile(key)))
            # Between any two calls of one worker the others do one of theirs.
            done, working = await asyncio.wait(
                working, timeout=0 if self._worker_count > 1 else None,
                return_when=asyncio.FIRST_COMPLETED,
            )  # fmt: skip
            if any(task.exception() for task in done):
                for task in working:
                    task.cancel()
            for task in done:
                task.result()
            did = True
            self._notice()
        return did

    async def _reconcile(self, key: Key) -> None:
        try:
            after = await self._reconciler.reconcile(key)
        except OperatorError as error:
            self.errors.append(error)
            after = 1.0
        except Exception:
            if not self.defects_are_expected:
                raise
            after = 1.0
        self.queue.done(key)
        if after == 0:
            self.queue.add(key)
        elif after is not None:
            self._deadlines[key] = self.now + datetime.timedelta(seconds=after)

    def _notice(self) -> None:
        """Changes as events, as kopf would: of an object's versions in a moment the last one."""
        changed = list(self.cluster.changed)
        self.cluster.changed.clear()
        last = {entry["metadata"]["uid"]: number for number, entry in enumerate(changed)}
        for number, entry in enumerate(changed):
            kind, meta = entry["kind"], entry["metadata"]
            if last[meta["uid"]] != number:
                continue
            if kind in self.watched_references:
                self.references.observe(kind, change_of(self.cluster, entry))
            resource = RESOURCES[kind]
            labels = WATCHED.get(resource, {"": ""})
            if labels and not labels.items() <= meta.get("labels", {}).items():
                # To a watch that selects by label the object is deleted.
                if meta["uid"] in self._shown:
                    self._shown.remove(meta["uid"])
                    self.watch.saw(kind, "DELETED", entry)
                continue
            self._shown.add(meta["uid"])
            live = self.cluster.find(resource, meta["namespace"], meta["name"])
            gone = live is None or live["metadata"]["uid"] != meta["uid"]
            self.watch.saw(kind, "DELETED" if gone else "MODIFIED", entry)


def revision_of(deployment: Json) -> str:
    """The revision's label."""
    return str(deployment["metadata"]["labels"][REVISION_LABEL])


def _title(entry: Json) -> str:
    return f"{entry['kind']}/{entry['metadata']['name']}"


def _timeless(node: Any, known: dict[str, str]) -> Any:
    if isinstance(node, list):
        return [_timeless(entry, known) for entry in node]
    if isinstance(node, dict):
        return {key: _timeless(value, known) for key, value in node.items() if key not in _CHANGING}
    if isinstance(node, str):
        return known.get(node, _TIME.sub("a time", node))
    return node
