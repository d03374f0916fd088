"""The rest of the cluster: what lets Jobs run, Deployments start and claims go.

Containers of ours are played by name: each has its effect on the store (a set of digests) and
leaves a StageResult in its termination message, as the images do. A test says beforehand what
should fail, hang or rot.
"""

import datetime
import itertools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import TypeAdapter
from support.identities import TOOLCHAIN

from reranker_contracts import (
    EngineIdentity,
    ParityReport,
    PrepareIdentity,
    ResolvedModel,
    Runtimes,
    Stage,
    StageReason,
    StageResult,
    digest_of,
)
from reranker_contracts.base import Document
from reranker_contracts.targets import MEASURED_IN_PODS
from reranker_operator.adapters.cluster import Json
from reranker_operator.api.meta import (
    DEPLOYMENT,
    ENDPOINT_SLICE,
    EVENT,
    HTTP_ROUTE,
    JOB,
    POD,
    PVC,
    SERVICE,
)
from reranker_operator.names import STAGE_LABEL, short_hash

from .fake_cluster import FakeCluster

NAMESPACE = "shop"
START = datetime.datetime(2026, 1, 5, 12, 0, tzinfo=datetime.UTC)
PARITY = ParityReport(
    pairs=64, queries=8, kendall_tau=0.9991, ndcg10_delta=0.0004, max_abs_diff=0.0007
)
RUNTIMES = Runtimes(recipe=1, onnxruntime="1.31")
_PROTECTION = "kubernetes.io/pvc-protection"
_IDENTITY: TypeAdapter[PrepareIdentity | EngineIdentity] = TypeAdapter(
    PrepareIdentity | EngineIdentity
)


@dataclass(frozen=True)
class Fault:
    """How one run of a stage ends; `lost` lets it succeed, but its pod vanishes at once."""

    how: Literal["refused", "killed", "oom", "vanished", "lost"]
    reason: StageReason = StageReason.INTERNAL_ERROR


class Controllers:
    """One namespace with its controllers and nodes."""

    def __init__(self) -> None:
        self.now = START
        self.cluster = FakeCluster(lambda: self.now)
        self.faults: defaultdict[str, list[Fault]] = defaultdict(list)
        self.held: set[str] = set()
        self.missing_secrets: set[str] = set()
        #: What kubelet and scheduler say of pods instead of running them, by stage or `serving`.
        self.told: dict[str, Json] = {}
        #: Of which serving pods that is so.
        self.told_of: Callable[[Json], bool] = lambda _: True
        #: How a Job of this stage ends, the store's claim, and (reason, message) of Events.
        self.job_ends: dict[str, Json] = {}
        self.claim_told: Json | None = None
        self.event_of_pods: tuple[str, str] | None = None
        self.events_of_claims: tuple[tuple[str, str], ...] = ()
        self.pods_start = self.activators_start = True
        self.pods_linger = False
        #: Whether the controller of endpoints keeps up.
        self.endpoints_follow = True
        #: Of every HTTPRoute, as it is; None: there is no Gateway.
        self.gateway_says: Literal["True", "False"] | None = None
        self.refusal: str | None = None
        self.parity = PARITY
        #: Of engines of this precision, in place of `parity`.
        self.parities: dict[str, ParityReport] = {}
        self._precision, self._runtime = "", ""
        #: Precisions of the engines in the store, by digest.
        self._precisions: dict[str, str] = {}
        #: Pods get scores from the engine that are no numbers.
        self.scores_are_numbers = True
        self.toolchain = TOOLCHAIN
        self.runtimes = RUNTIMES
        self.revisions: dict[str, str] = {}
        #: sha256 of the user's own probe set.
        self.probes = "a" * 64
        self.store = "reranker-engines"
        self.stored: defaultdict[str, set[str]] = defaultdict(set)
        self.made: dict[tuple[str, str], datetime.datetime] = {}
        self.damaged: set[str] = set()
        #: What the registry has, by reference, and what it has signed.
        self.registry: dict[str, ParityReport | None] = {}
        #: It has whatever anybody asks for.
        self.registry_is_full = False
        self.signed: set[str] = set()
        self._numbers = itertools.count(1)

    def step(self) -> bool:
        """Let every Job, Deployment and claim take one step; whether anything changed."""
        before = len(self.cluster.changed)
        # First, so that what pods do is known a step later, as it is in a cluster.
        for address in list(self.cluster.select(SERVICE, NAMESPACE)):
            self._step_service(address)
        for route in list(self.cluster.select(HTTP_ROUTE, NAMESPACE)):
            self._step_route(route)
        for job in list(self.cluster.select(JOB, NAMESPACE)):
            self._step_job(job)
        for entry in list(self.cluster.select(DEPLOYMENT, NAMESPACE)):
            self._step_deployment(entry)
        for claim in list(self.cluster.select(PVC, NAMESPACE)):
            self._protect(claim)
            if self.claim_told is not None:
                self.cluster.edit(PVC, NAMESPACE, claim["metadata"]["name"], self.claim_told)
            for reason, message in self.events_of_claims:
                self._report(claim, reason, message)
        present = {claim["metadata"]["name"] for claim in self.cluster.select(PVC, NAMESPACE)}
        for name in [name for name in self.stored if name not in present]:
            del self.stored[name]
        return len(self.cluster.changed) != before

    def _step_route(self, route: Json) -> None:
        """What a Gateway says of it."""
        meta = route["metadata"]
        if self.gateway_says is not None:
            said = {"type": "Accepted", "status": self.gateway_says}
            verdict = said | {"observedGeneration": meta["generation"]}
            parents = [{"parentRef": {"name": "gate"}, "conditions": [verdict]}]
            if (route.get("status") or {}).get("parents") != parents:
                status = {"status": {"parents": parents}}
                self.cluster.edit(HTTP_ROUTE, NAMESPACE, meta["name"], status)

    def _step_service(self, address: Json) -> None:
        """Its endpoints: the ready pods that it selects."""
        meta, selector = address["metadata"], address["spec"].get("selector")
        if not self.endpoints_follow or selector is None:
            return
        pods = sorted(
            pod["metadata"]["name"]
            for pod in self.cluster.select(POD, NAMESPACE, selector)
            if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]
        )
        entries = [
            {"conditions": {"ready": True}, "targetRef": {"kind": "Pod", "name": name}}
            for name in pods
        ]
        live = self.cluster.find(ENDPOINT_SLICE, NAMESPACE, meta["name"])
        if live is None:
            reference = {"kind": "Service", "name": meta["name"], "uid": meta["uid"]}
            self.cluster.put(
                {
                    "apiVersion": ENDPOINT_SLICE.api_version,
                    "kind": ENDPOINT_SLICE.kind,
                    "metadata": {
                        "name": meta["name"],
                        "namespace": NAMESPACE,
                        "labels": {"kubernetes.io/service-name": meta["name"]},
                        "ownerReferences": [reference | {"controller": True}],
                    },
                    "endpoints": entries,
                }
            )
        elif live["endpoints"] != entries:
            self.cluster.edit(ENDPOINT_SLICE, NAMESPACE, meta["name"], {"endpoints": entries})

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
            if self.refusal is None:
                self._add_pod(job, {"job-name": name})
            else:
                self._report(job, "FailedCreate", f"Error creating: {self.refusal}")
            return
        stage = job["metadata"]["labels"][STAGE_LABEL]
        if stage in self.told:
            self._set_pod(pods[0], self.told[stage])
            if self.told[stage]["phase"] == "Failed":
                self._end_job(job, {"type": "Failed", "status": "True"})
            return
        if stage in self.job_ends:
            self._end_job(job, self.job_ends[stage])
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
            if missing := _secrets(container) & self.missing_secrets:
                why = f'secret "{min(missing)}" not found'
                waiting = {"reason": "CreateContainerConfigError", "message": why}
                statuses.append(_status(container, {"waiting": waiting}))
                self._set_pod(pod, _pod_status("Pending", template, statuses))
                return
            if stage in self.held:
                statuses.append(_status(container, {"running": {}}))
                self._set_pod(pod, _pod_status("Running", template, statuses))
                return
            fault = self.faults[stage].pop(0) if self.faults[stage] else None
            statuses.append(_status(container, self._end(container, fault, _store_of(pod))))
            ok = statuses[-1]["state"]["terminated"]["exitCode"] == 0
            how |= {fault.how} if fault else set()
            if not ok or "vanished" in how:
                break
        ok = ok and "vanished" not in how
        phase = "Succeeded" if ok else "Failed"
        self._set_pod(pod, _pod_status(phase, template, statuses))
        if how & {"vanished", "lost"}:
            self.cluster.remove(POD, NAMESPACE, pod["metadata"]["name"])
        self._end_job(job, {"type": "Complete" if ok else "Failed", "status": "True"})

    def _end_job(self, job: Json, ended: Json) -> None:
        self.cluster.edit(
            JOB, NAMESPACE, job["metadata"]["name"], {"status": {"conditions": [ended]}}
        )

    def _end(self, container: Json, fault: Fault | None, store: str) -> Json:
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
            result = self._work(stage, container["args"], store)
        code = 0 if result.ok else 1
        return {"terminated": end | {"exitCode": code, "message": result.to_message()}}

    def _work(self, stage: str, args: list[str], store: str) -> StageResult:
        if stage == Stage.RESOLVE:
            return _result(stage, resolved=self._resolved(args))
        if stage == Stage.VALIDATE:
            return self._validate()
        if stage == Stage.PUBLISH:
            identity = _IDENTITY.validate_json(_option(args, "--identity"))
            folder = "engines" if isinstance(identity, EngineIdentity) else "prepared"
            self._tidy(args, store)
            path = f"{folder}/{digest_of(identity)}"
            self.stored[store].add(path)
            self.made[store, path] = self.now
            self.damaged.discard(path)
            if isinstance(identity, EngineIdentity):
                self._precisions[digest_of(identity)] = identity.precision
            return _result(stage, size_bytes=1000)
        if stage in (Stage.PULL, Stage.PUSH):
            return self._pull(args, store) if stage == Stage.PULL else self._push(args, store)
        if stage == Stage.COMPILE:
            self._precision = _option(args, "--precision")
            self._runtime = _option(args, "--runtime")
            return self._check(stage, _option(args, "--prepared").removeprefix("/store/"), store)
        if stage == Stage.REMOVE:
            gone = set(args[args.index("--digest") + 1 : args.index("--result")])
            kept = {path for path in self.stored[store] if path.split("/")[1] not in gone}
            self.stored[store] = kept
        return _result(stage)

    def _validate(self) -> StageResult:
        if self._runtime in MEASURED_IN_PODS:
            absent = {"reason": StageReason.TARGET_ABSENT}
            return _result(Stage.VALIDATE).model_copy(update=absent)
        return _result(Stage.VALIDATE, parity=self.parities.get(self._precision, self.parity))

    def _push(self, args: list[str], store: str) -> StageResult:
        path, reference = args[1].removeprefix("/store/"), args[2]
        self.registry[reference] = None if self._runtime in MEASURED_IN_PODS else self.parity
        self.signed |= {reference} if "--sign-key" in args else set()
        return self._check(Stage.PUSH, path, store)

    def _pull(self, args: list[str], store: str) -> StageResult:
        reference, path = args[1], f"engines/{_option(args, '--digest')}"
        if reference not in self.registry and not self.registry_is_full:
            return _result(Stage.PULL, reason=StageReason.ARTEFACT_NOT_FOUND)
        if "--key" in args and reference not in self.signed:
            return _result(Stage.PULL, reason=StageReason.SIGNATURE_INVALID)
        self._tidy(args, store)
        self.stored[store].add(path)
        self.made[store, path] = self.now
        self.damaged.discard(path)
        report = self.registry.get(reference, self.parity)
        found: dict[str, Document | int] = {"size_bytes": 1000}
        return _result(Stage.PULL, **found | ({"parity": report} if report else {}))

    def _tidy(self, args: list[str], store: str) -> None:
        """As publish does with --keep and --made-before."""
        if "--keep" not in args:
            return
        kept = set(args[args.index("--keep") + 1 : args.index("--made-before")])
        limit = datetime.datetime.fromisoformat(_option(args, "--made-before"))
        self.stored[store] = {
            path
            for path in self.stored[store]
            if path.split("/")[1] in kept or self.made[store, path] >= limit
        }

    def _resolved(self, args: list[str]) -> ResolvedModel:
        source = _option(args, "--source")
        return ResolvedModel(
            revision=self.revisions.get(source, short_hash(source, 40)),
            name=source.rsplit("/", 1)[1],
            architecture="BertForSequenceClassification",
            family="bert",
            max_length=512,
            probes=self.probes if "--probes" in args else None,
            toolchain=self.toolchain,
            runtimes=self.runtimes,
        )

    def _check(self, stage: str, path: str, store: str) -> StageResult:
        whole = path in self.stored[store] and path not in self.damaged
        return _result(stage) if whole else _result(stage, reason=StageReason.CHECKSUM_MISMATCH)

    def _step_deployment(self, entry: Json) -> None:
        pods = self._active_pods(entry)
        wanted = entry["spec"].get("replicas", 1)
        # As a ReplicaSet does: those first that don't serve yet, then those that cost least.
        for pod in sorted(pods, key=_worth, reverse=True)[wanted:]:
            self._end_pod(pod)
        refusal = self.refusal if wanted > len(pods) else None
        for _ in range(0 if refusal else wanted - len(pods)):
            self._add_pod(entry, {})
        for pod in self._active_pods(entry):
            if "serving" in self.told and pod["spec"].get("initContainers") and self.told_of(pod):
                self._set_pod(pod, self.told["serving"])
                if self.event_of_pods is not None:
                    self._report(pod, *self.event_of_pods)
            # One that failed is in its crash loop, minutes away from the next try.
            elif self._starts(pod) and pod["status"] == {"phase": "Pending"}:
                self._start_serving(pod)
        pods = self._active_pods(entry)
        ready = sum(is_ready(pod) for pod in pods)
        meta = entry["metadata"]
        status = {
            "observedGeneration": meta["generation"],
            "replicas": len(pods),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "conditions": [_replica_failure(refusal)] if refusal else [],
        }
        self.cluster.edit(DEPLOYMENT, NAMESPACE, meta["name"], {"status": status})

    def _active_pods(self, entry: Json) -> list[Json]:
        """A ReplicaSet neither keeps nor counts what is told to end."""
        return [
            pod
            for pod in self.cluster.select(POD, NAMESPACE)
            if _owned(pod, entry) and "deletionTimestamp" not in pod["metadata"]
        ]

    def _starts(self, pod: Json) -> bool:
        return self.pods_start if pod["spec"].get("initContainers") else self.activators_start

    def _end_pod(self, pod: Json) -> None:
        """Drained at once, or still there until `let_pods_go`."""
        name = pod["metadata"]["name"]
        if self.pods_linger:
            self.cluster.edit(POD, NAMESPACE, name, {"metadata": {"finalizers": ["test/drain"]}})
        self.cluster.remove(POD, NAMESPACE, name)

    def let_pods_go(self) -> None:
        """Those that were told to end have ended."""
        for pod in list(self.cluster.select(POD, NAMESPACE)):
            if "deletionTimestamp" in pod["metadata"]:
                patch: Json = {"metadata": {"finalizers": None}}
                self.cluster.edit(POD, NAMESPACE, pod["metadata"]["name"], patch)

    def _start_serving(self, pod: Json) -> None:
        if not pod["spec"].get("initContainers"):
            # An activator's: nothing goes before it.
            self._set_pod(pod, _pod_status("Running", pod["spec"], []))
            return
        verify, *others = pod["spec"]["initContainers"]
        digest = _option(verify["args"], "--digest")
        result = self._check("verify", f"engines/{digest}", _store_of(pod))
        states = [_status(verify, self._ended(result))]
        for container in others if result.ok else []:
            if container["name"] == Stage.MEASURE:
                result = self._measure(container["args"], digest)
                states.append(_status(container, self._ended(result)))
            else:
                states.append(_status(container, {"running": {}}))
        phase = "Running" if result.ok else "Pending"
        self._set_pod(pod, _pod_status(phase, pod["spec"], states))

    def _ended(self, result: StageResult) -> Json:
        end = {"exitCode": 0 if result.ok else 1, "finishedAt": _iso(self.now)}
        return {"terminated": end | {"message": result.to_message()}}

    def _measure(self, args: list[str], digest: str) -> StageResult:
        if not self.scores_are_numbers:
            return _result(Stage.MEASURE, reason=StageReason.VALIDATION_FAILED)
        report = self.parities.get(self._precisions.get(digest, ""), self.parity)
        least = next(float(a.partition("=")[2]) for a in args if a.startswith("--min-kendall-tau"))
        enough = report.kendall_tau >= least
        reason = None if enough else StageReason.PARITY_REFUSED
        return _result(Stage.MEASURE, reason=reason, parity=report)

    def _add_pod(self, owner: Json, labels: dict[str, str]) -> None:
        meta, template = owner["metadata"], owner["spec"]["template"]
        reference = {"kind": owner["kind"], "name": meta["name"], "uid": meta["uid"]}
        if owner["kind"] == DEPLOYMENT.kind:
            # The ReplicaSet in between is not played; its uid is the Deployment's here.
            reference |= {"kind": "ReplicaSet", "name": f"{meta['name']}-7d9c8b6f5"}
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
                "spec": template["spec"] | {"nodeName": "n1"},
                "status": {"phase": "Pending"},
            }
        )

    def _report(self, about: Json, reason: str, message: str) -> None:
        """An Event: the only word of controllers and kubelets about much of what holds them up."""
        meta = {"name": f"{about['metadata']['name']}.{reason.lower()}", "namespace": NAMESPACE}
        if self.cluster.find(EVENT, NAMESPACE, meta["name"]) is None:
            event = {"apiVersion": "v1", "kind": "Event", "type": "Warning", "metadata": meta}
            subject = {"kind": about["kind"], "uid": about["metadata"]["uid"]}
            words = {"reason": reason, "message": message, "lastTimestamp": _iso(self.now)}
            self.cluster.put(event | words | {"involvedObject": subject})

    def _set_pod(self, pod: Json, status: Json) -> None:
        self.cluster.edit(POD, NAMESPACE, pod["metadata"]["name"], {"status": status})

    def _is_there(self, claim: str) -> bool:
        live = self.cluster.find(PVC, NAMESPACE, claim)
        return live is not None and "deletionTimestamp" not in live["metadata"]


def _owned(entry: Json, owner: Json) -> bool:
    uids = {reference["uid"] for reference in entry["metadata"].get("ownerReferences", [])}
    return owner["metadata"]["uid"] in uids


def _worth(pod: Json) -> tuple[bool, int]:
    cost = pod["metadata"].get("annotations", {}).get("controller.kubernetes.io/pod-deletion-cost")
    return pod["status"]["phase"] == "Running", int(cost or 0)


def is_ready(pod: Json) -> bool:
    """It answers."""
    conditions = pod["status"].get("conditions", [])
    told = next((entry["status"] for entry in conditions if entry["type"] == "Ready"), "True")
    return bool(pod["status"]["phase"] == "Running" and told == "True")


def _claims(pod: Json) -> list[str]:
    volumes = [volume.get("persistentVolumeClaim") for volume in pod["spec"].get("volumes", [])]
    return [volume["claimName"] for volume in volumes if volume]


def _secrets(container: Json) -> set[str]:
    sources = [entry.get("valueFrom", {}) for entry in container.get("env", [])]
    return {source["secretKeyRef"]["name"] for source in sources if "secretKeyRef" in source}


def _store_of(pod: Json) -> str:
    """The claim with the engines; empty for a pod that has none."""
    for volume in pod["spec"].get("volumes", []):
        if volume["name"] in ("store", "engine"):
            return str(volume["persistentVolumeClaim"]["claimName"])
    return ""


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


def _replica_failure(text: str) -> Json:
    return {
        "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": text,
    }  # fmt: skip


def _unschedulable(claim: str) -> Json:
    text = f'0/1 nodes are available: persistentvolumeclaim "{claim}" not found.'
    return {
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": text,
    }  # fmt: skip
