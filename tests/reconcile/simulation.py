"""The rest of the world around a `FakeCluster`, so that whole stories can be played through.

`Simulation` runs the real reconciler on the keys that the real event handler makes of changes, lets
Jobs run and Deployments start (leaving StageResults in termination messages as the images do), and
owns the clock. Nothing waits: `settle` goes on until nobody has anything to do at this moment,
`converge` also jumps to the moments at which somebody asked to be woken.
"""

import copy
import datetime
import itertools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from reranker_contracts import (
    EngineIdentity,
    ParityReport,
    PrepareIdentity,
    ResolvedModel,
    Stage,
    StageReason,
    StageResult,
    Toolchain,
    digest_of,
)
from reranker_contracts.base import Document
from reranker_operator.adapters.cluster import Json
from reranker_operator.api.meta import (
    API_VERSION,
    DEPLOYMENT,
    JOB,
    POD,
    PVC,
    RERANKER_ENGINE,
    RERANKER_SERVICE,
    SERVICE,
)
from reranker_operator.api.v1alpha1 import RerankerEngine, RerankerService
from reranker_operator.errors import OperatorError
from reranker_operator.names import APP_MANAGED_BY, MANAGER, REVISION_LABEL, short_hash
from reranker_operator.render.defaults import Defaults
from reranker_operator.runtime.queue import Key, WorkQueue
from reranker_operator.runtime.reconciler import Reconciler
from reranker_operator.runtime.resync import Resync
from reranker_operator.shell.handlers import keys_of

from .fake_cluster import FakeCluster

NAMESPACE = "shop"
START = datetime.datetime(2026, 1, 5, 12, 0, tzinfo=datetime.UTC)
DEFAULTS = Defaults("builder:1", "gateway:1", "triton:1", "triton:1-gpu")
PARITY = ParityReport(
    pairs=64, queries=8, kendall_tau=0.9991, ndcg10_delta=0.0004, max_abs_diff=0.0007
)
TOOLCHAIN = Toolchain(recipe=1, torch="2.6", transformers="5.23", onnx="1.19", onnxruntime="1.31")
_CHANGING = {
    "resourceVersion", "generation", "observedGeneration", "creationTimestamp",
    "lastTransitionTime", "lastFailureTime", "readyTime", "finishedAt",
}  # fmt: skip
_PROTECTION = "kubernetes.io/pvc-protection"
_IDENTITY: TypeAdapter[PrepareIdentity | EngineIdentity] = TypeAdapter(
    PrepareIdentity | EngineIdentity
)


@dataclass(frozen=True)
class Fault:
    """How one run of a stage ends; `lost` lets it succeed, but its pod vanishes at once."""

    how: Literal["refused", "killed", "oom", "vanished", "lost"]
    reason: StageReason = StageReason.INTERNAL_ERROR


class Simulation:
    """One namespace with its controllers, nodes, users and our operator."""

    def __init__(self, defaults: Defaults = DEFAULTS) -> None:
        self.now = START
        self.cluster = FakeCluster(lambda: self.now)
        self.defaults = defaults
        self.faults: defaultdict[str, list[Fault]] = defaultdict(list)
        self.held: set[str] = set()
        self.pods_start = True
        self.parity = PARITY
        self.stored: defaultdict[str, set[str]] = defaultdict(set)
        self.damaged: set[str] = set()
        self.revisions: dict[str, str] = {}
        self.store = "reranker-engines"
        self.garbage_is_collected = True
        self.errors: list[OperatorError] = []
        self.after_step: Callable[[], None] = lambda: None
        self._deadlines: dict[Key, datetime.datetime] = {}
        self._numbers = itertools.count(1)
        self.restart_operator()

    def fork(self) -> "Simulation":
        """The same world with a freshly started operator, going its own way from here."""
        twin = Simulation(self.defaults)
        twin.now, twin.pods_start, twin.parity = self.now, self.pods_start, self.parity
        twin.revisions, twin.store = dict(self.revisions), self.store
        twin.held, twin.damaged = set(self.held), set(self.damaged)
        twin.faults = copy.deepcopy(self.faults)
        twin.stored = copy.deepcopy(self.stored)
        twin._numbers = itertools.count(next(self._numbers))
        twin.cluster = self.cluster.fork(lambda: twin.now)
        twin.restart_operator()
        return twin

    # What people do.

    def create_service(self, name: str = "rank", **spec: Any) -> None:
        spec = {"model": {"source": "hf://org/tiny"}} | spec
        self.cluster.put(
            {
                "apiVersion": API_VERSION,
                "kind": RERANKER_SERVICE.kind,
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": spec,
            }
        )

    def edit_service(self, name: str = "rank", **spec: Any) -> None:
        self.cluster.edit(RERANKER_SERVICE, NAMESPACE, name, {"spec": spec})

    def delete_service(self, name: str = "rank") -> None:
        self.cluster.remove(RERANKER_SERVICE, NAMESPACE, name)

    # What can be seen.

    def service(self, name: str = "rank") -> RerankerService:
        found = self.cluster.find(RERANKER_SERVICE, NAMESPACE, name)
        return RerankerService.model_validate(found)

    def engines(self) -> list[RerankerEngine]:
        found = self.cluster.select(RERANKER_ENGINE, NAMESPACE)
        return [RerankerEngine.model_validate(entry) for entry in found]

    def names(self, kind: str) -> list[str]:
        resource = {"Job": JOB, "Deployment": DEPLOYMENT, "Pod": POD, "PVC": PVC}[kind]
        return [entry["metadata"]["name"] for entry in self.cluster.select(resource, NAMESPACE)]

    def condition(self, kind: str, name: str = "rank") -> tuple[str, str]:
        """Status and reason of one condition of a service."""
        entry = next(c for c in self.service(name).status.conditions if c.type == kind)
        return entry.status, entry.reason

    def selected(self, name: str = "rank") -> Json | None:
        """The Deployment that the address of a service leads to."""
        address = self.cluster.find(SERVICE, NAMESPACE, name)
        if address is None:
            return None
        selector = address["spec"]["selector"]
        return next(iter(self.cluster.select(DEPLOYMENT, NAMESPACE, selector)), None)

    def engine_of(self, deployment: Json) -> str:
        return str(deployment["metadata"]["labels"]["reranker.dev/engine"])

    def picture(self) -> dict[str, Any]:
        """Everything but Events, without what differs from run to run: uids, versions, times."""
        entries = [
            entry
            for resource in (RERANKER_SERVICE, RERANKER_ENGINE, DEPLOYMENT, JOB, SERVICE, PVC)
            for entry in self.cluster.select(resource, NAMESPACE)
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
        self._reconciler = Reconciler(self.cluster, self.defaults, clock=lambda: self.now)

    async def resync(self) -> None:
        """Queue everything, as at the start of a process."""
        await Resync(self.cluster, self.queue, (), seconds=600).once()

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
        for key in [key for key, due in self._deadlines.items() if due <= self.now]:
            del self._deadlines[key]
            self.queue.add(key)
        await self.settle()

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
        self._notice()
        while len(self.queue):
            key = await self.queue.get()
            assert key is not None
            self._deadlines.pop(key, None)
            try:
                after = await self._reconciler.reconcile(key)
            except OperatorError as error:
                self.errors.append(error)
                after = 1.0
            self.queue.done(key)
            if after is not None:
                self._deadlines[key] = self.now + datetime.timedelta(seconds=after)
            did = True
            self._notice()
        return did

    def _notice(self) -> None:
        """Changes to keys, as the watches would."""
        for entry in self.cluster.changed:
            kind, meta = entry["kind"], entry["metadata"]
            ours = meta.get("labels", {}).get(APP_MANAGED_BY) == MANAGER
            watched = {JOB.kind, DEPLOYMENT.kind, POD.kind, SERVICE.kind}
            own = {RERANKER_SERVICE.kind, RERANKER_ENGINE.kind}
            if kind in own or (kind in watched and ours):
                for key in keys_of(kind, meta):
                    self.queue.add(key)
        self.cluster.changed.clear()

    # Controllers and kubelet.

    def step(self) -> bool:
        """Let every Job, Deployment and claim take one step; whether anything changed."""
        before = len(self.cluster.changed)
        for job in list(self.cluster.select(JOB, NAMESPACE)):
            self._step_job(job)
        for entry in list(self.cluster.select(DEPLOYMENT, NAMESPACE)):
            self._step_deployment(entry)
        for claim in list(self.cluster.select(PVC, NAMESPACE)):
            self._protect(claim)
        present = {claim["metadata"]["name"] for claim in self.cluster.select(PVC, NAMESPACE)}
        for name in [name for name in self.stored if name not in present]:
            del self.stored[name]
        return len(self.cluster.changed) != before

    def _protect(self, claim: Json) -> None:
        meta, name = claim["metadata"], claim["metadata"]["name"]
        used = any(
            name in _claims(pod)
            for pod in self.cluster.select(POD, NAMESPACE)
            if pod.get("status", {}).get("phase") == "Running"
        )
        leaving = "deletionTimestamp" in meta
        wanted = [] if leaving and not used else [_PROTECTION]
        if meta.get("finalizers", []) != wanted:
            self.cluster.edit(PVC, NAMESPACE, name, {"metadata": {"finalizers": wanted}})

    def _step_job(self, job: Json) -> None:
        name = job["metadata"]["name"]
        if job.get("status", {}).get("conditions"):
            return
        pods = [pod for pod in self.cluster.select(POD, NAMESPACE) if _owned(pod, job)]
        if not pods:
            self._add_pod(job, {"job-name": name})
            return
        missing = [claim for claim in _claims(pods[0]) if not self._is_there(claim)]
        if missing:
            why = [_unschedulable(missing[0])]
            self._set_pod(pods[0], {"phase": "Pending", "conditions": why})
        else:
            self._run_job(job, pods[0])

    def _run_job(self, job: Json, pod: Json) -> None:
        template = pod["spec"]
        statuses: list[Json] = []
        how: set[str] = set()
        for container in [*template.get("initContainers", []), *template["containers"]]:
            stage = container["name"]
            if stage in self.held:
                statuses.append(_status(container, {"running": {}}))
                self._set_pod(pod, _pod_status("Running", template, statuses))
                return
            fault = self.faults[stage].pop(0) if self.faults[stage] else None
            statuses.append(_status(container, self._end(container, fault)))
            ok = statuses[-1]["state"]["terminated"]["exitCode"] == 0
            how |= {fault.how} if fault else set()
            if not ok or "vanished" in how:
                break
        ok = ok and "vanished" not in how
        phase = "Succeeded" if ok else "Failed"
        self._set_pod(pod, _pod_status(phase, template, statuses))
        if how & {"vanished", "lost"}:
            self.cluster.remove(POD, NAMESPACE, pod["metadata"]["name"])
        ended = {"type": "Complete" if ok else "Failed", "status": "True"}
        self.cluster.edit(
            JOB, NAMESPACE, job["metadata"]["name"], {"status": {"conditions": [ended]}}
        )

    def _end(self, container: Json, fault: Fault | None) -> Json:
        """The terminated state of a container, after its effect on the store."""
        end: Json = {"exitCode": 0, "reason": "Completed", "finishedAt": _iso(self.now)}
        if fault is not None and fault.how == "killed":
            return {"terminated": end | {"exitCode": 137, "reason": "Error"}}
        if fault is not None and fault.how == "oom":
            return {"terminated": end | {"exitCode": 137, "reason": "OOMKilled"}}
        stage = container["name"]
        if stage not in set(Stage):
            return {"terminated": end}
        if fault is not None and fault.how == "refused":
            result = _result(stage, reason=fault.reason)
        else:
            result = self._work(stage, container["args"])
        code = 0 if result.ok else 1
        return {"terminated": end | {"exitCode": code, "message": result.to_message()}}

    def _work(self, stage: str, args: list[str]) -> StageResult:
        if stage == Stage.RESOLVE:
            return _result(stage, resolved=self._resolved(_option(args, "--source")))
        if stage == Stage.VALIDATE:
            return _result(stage, parity=self.parity)
        if stage == Stage.PUBLISH:
            identity = _IDENTITY.validate_json(_option(args, "--identity"))
            folder = "engines" if isinstance(identity, EngineIdentity) else "prepared"
            path = f"{folder}/{digest_of(identity)}"
            self.stored[self.store].add(path)
            self.damaged.discard(path)
            return _result(stage, size_bytes=1000)
        if stage == Stage.COMPILE:
            return self._check(stage, _option(args, "--prepared").removeprefix("/store/"))
        if stage == Stage.REMOVE:
            gone = set(args[args.index("--digest") + 1 : args.index("--result")])
            kept = {path for path in self.stored[self.store] if path.split("/")[1] not in gone}
            self.stored[self.store] = kept
        return _result(stage)

    def _resolved(self, source: str) -> ResolvedModel:
        return ResolvedModel(
            revision=self.revisions.get(source, short_hash(source, 40)),
            name=source.rsplit("/", 1)[1],
            architecture="BertForSequenceClassification",
            family="bert",
            max_length=512,
            toolchain=TOOLCHAIN,
        )

    def _check(self, stage: str, path: str) -> StageResult:
        whole = path in self.stored[self.store] and path not in self.damaged
        return _result(stage) if whole else _result(stage, reason=StageReason.CHECKSUM_MISMATCH)

    def _step_deployment(self, entry: Json) -> None:
        pods = [pod for pod in self.cluster.select(POD, NAMESPACE) if _owned(pod, entry)]
        wanted = entry["spec"].get("replicas", 1)
        for pod in pods[wanted:]:
            self.cluster.remove(POD, NAMESPACE, pod["metadata"]["name"])
        for _ in range(wanted - len(pods)):
            self._add_pod(entry, {})
        pods = [pod for pod in self.cluster.select(POD, NAMESPACE) if _owned(pod, entry)]
        for pod in pods:
            # One that failed is in its crash loop, minutes away from the next try.
            if self.pods_start and pod["status"] == {"phase": "Pending"}:
                self._start_serving(pod)
        ready = sum(pod["status"]["phase"] == "Running" for pod in pods)
        meta = entry["metadata"]
        status = {
            "observedGeneration": meta["generation"],
            "replicas": len(pods),
            "readyReplicas": ready,
            "availableReplicas": ready,
        }
        self.cluster.edit(DEPLOYMENT, NAMESPACE, meta["name"], {"status": status})

    def _start_serving(self, pod: Json) -> None:
        verify = pod["spec"]["initContainers"][0]
        result = self._check("verify", f"engines/{_option(verify['args'], '--digest')}")
        end = {
            "exitCode": 0 if result.ok else 1,
            "finishedAt": _iso(self.now),
            "message": result.to_message(),
        }
        states = [_status(verify, {"terminated": end})]
        phase = "Running" if result.ok else "Pending"
        self._set_pod(pod, _pod_status(phase, pod["spec"], states))

    def _add_pod(self, owner: Json, labels: dict[str, str]) -> None:
        meta, template = owner["metadata"], owner["spec"]["template"]
        reference = {"kind": owner["kind"], "name": meta["name"], "uid": meta["uid"]}
        self.cluster.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": f"{meta['name']}-{next(self._numbers)}",
                    "namespace": NAMESPACE,
                    "labels": template["metadata"]["labels"] | labels,
                    "ownerReferences": [reference | {"controller": True}],
                },
                "spec": template["spec"],
                "status": {"phase": "Pending"},
            }
        )

    def _set_pod(self, pod: Json, status: Json) -> None:
        self.cluster.edit(POD, NAMESPACE, pod["metadata"]["name"], {"status": status})

    def _is_there(self, claim: str) -> bool:
        live = self.cluster.find(PVC, NAMESPACE, claim)
        return live is not None and "deletionTimestamp" not in live["metadata"]


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
    return known.get(node, node) if isinstance(node, str) else node


def _owned(entry: Json, owner: Json) -> bool:
    uids = {reference["uid"] for reference in entry["metadata"].get("ownerReferences", [])}
    return owner["metadata"]["uid"] in uids


def _claims(pod: Json) -> list[str]:
    volumes = [volume.get("persistentVolumeClaim") for volume in pod["spec"].get("volumes", [])]
    return [volume["claimName"] for volume in volumes if volume]


def _option(args: list[str], name: str) -> str:
    return args[args.index(name) + 1]


def _iso(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _result(stage: str, reason: StageReason | None = None, **found: Document | int) -> StageResult:
    return StageResult.model_validate(
        {
            "stage": stage,
            "ok": reason is None,
            "reason": reason or StageReason.SUCCEEDED,
            "message": f"{stage} has ended",
            "seconds": 1.5,
        }
        | found
    )


def _status(container: Json, state: Json) -> Json:
    return {"name": container["name"], "image": container["image"], "state": state}


def _pod_status(phase: str, template: Json, statuses: list[Json]) -> Json:
    first = len(template.get("initContainers", []))
    return {
        "phase": phase,
        "conditions": [],
        "initContainerStatuses": statuses[:first],
        "containerStatuses": statuses[first:],
    }


def _unschedulable(claim: str) -> Json:
    text = f'0/1 nodes are available: persistentvolumeclaim "{claim}" not found.'
    return {
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": text,
    }  # fmt: skip
