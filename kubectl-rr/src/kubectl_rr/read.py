"""From the cluster to a frozen snapshot: which objects belong to a service, and what they say."""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, field

from kubectl_rr import pods
from kubectl_rr.cluster import Cluster
from kubectl_rr.errors import Forbidden
from kubectl_rr.raw import Json, at, integer, label, moment, number, owners, rows, table, text
from kubectl_rr.snapshot import (
    Activator,
    Condition,
    Engine,
    Model,
    Pod,
    Revision,
    Role,
    Scaling,
    Service,
    Serving,
    Snapshot,
    Stage,
    Step,
)
from reranker_operator import names
from reranker_operator.api.meta import (
    DEPLOYMENT,
    POD,
    RERANKER_ENGINE,
    RERANKER_SERVICE,
    Resource,
)

#: A stage of those builds only that have an adapter.
_ADAPTER = "fetch-adapter"
_STEPS = {
    "pull": (("Pulled",), ("pull",)),
    "prepare": (("Prepared",), ("fetch", _ADAPTER, "export", "publish")),
    "compile": (("Compiled", "Validated"), ("compile", "validate", "publish")),
    "push": (("Pushed",), ("push",)),
}
#: Under which name a stage's time is kept, where it is not the container's.
_RECORDED = {("prepare", "publish"): "publish-prepared"}


@dataclass(frozen=True)
class Objects:
    """What the API server sent."""

    services: list[Json]
    engines: list[Json] = field(default_factory=list)
    deployments: list[Json] = field(default_factory=list)
    pods: list[Json] = field(default_factory=list)
    notes: tuple[str, ...] = ()


def read(cluster: Cluster, namespace: str | None, name: str | None = None) -> Snapshot:
    """One service, or all of a namespace, or (None) all. Raises RrError."""
    if name is not None:
        services = [cluster.get(RERANKER_SERVICE, namespace or cluster.namespace, name)]
    else:
        services = cluster.list(RERANKER_SERVICE, namespace)
    now = datetime.datetime.now(datetime.UTC)
    if not services:
        return Snapshot(now)
    notes: list[str] = []

    def allowed(resource: Resource, selector: str | None = None) -> list[Json]:
        try:
            return cluster.list(resource, namespace, selector)
        except Forbidden as error:
            notes.append(f"{resource.plural} are not shown: {error}")
            return []

    objects = Objects(
        services,
        engines=allowed(RERANKER_ENGINE),
        deployments=allowed(DEPLOYMENT, names.MANAGED_SELECTOR),
        pods=allowed(POD, names.MANAGED_SELECTOR),
        notes=tuple(notes),
    )
    return assemble(objects, now)


def service_of(cluster: Cluster, namespace: str, name: str) -> Service:
    """One service by what its own object says, without what was made for it. Raises RrError."""
    return _service(cluster.get(RERANKER_SERVICE, namespace, name), Objects([]))


def assemble(objects: Objects, now: datetime.datetime) -> Snapshot:
    """Put the objects in order."""
    services = (_service(raw, objects) for raw in objects.services)
    ordered = sorted(services, key=lambda entry: (entry.namespace, entry.name))
    return Snapshot(now, tuple(ordered), objects.notes)


def engines_of(service: Json, engines: Iterable[Json]) -> list[Json]:
    """The engines that this service owns a part of, or that its status names."""
    uid, status = text(service, "metadata", "uid"), table(service, "status")
    named = {text(status, "engine")} | {text(row, "name") for row in rows(status, "engines")}
    return [
        raw
        for raw in _same_namespace(service, engines)
        if uid in owners(raw) or text(raw, "metadata", "name") in named
    ]


def conditions(raw: Json) -> tuple[Condition, ...]:
    """The conditions of either kind."""
    return tuple(
        Condition(
            type=text(row, "type"),
            status=text(row, "status"),
            reason=text(row, "reason"),
            message=text(row, "message"),
            since=moment(row, "lastTransitionTime"),
        )
        for row in _conditions(raw)
    )


def condition(raw: Json, kind: str) -> Condition | None:
    """The condition of this type."""
    return next((entry for entry in conditions(raw) if entry.type == kind), None)


def _conditions(raw: Json) -> list[Json]:
    return rows(raw, "status", "conditions")


def is_current(raw: Json) -> bool:
    """The status is about the newest spec.

    Of a spec that can't be read only the condition that says so is: the rest stays as it was.
    """
    seen = integer(raw, "status", "observedGeneration")
    judged = next((row for row in _conditions(raw) if text(row, "type") == "Accepted"), {})
    if text(judged, "status") == "False":
        seen = max(seen, integer(judged, "observedGeneration"))
    return seen >= integer(raw, "metadata", "generation")


def refusal(raw: Json) -> Condition | None:
    """Why the newest spec is not carried out."""
    found = condition(raw, "Accepted")
    return found if found and found.status == "False" and is_current(raw) else None


def unsettled(raw: Json) -> str:
    """Why the rest of the status is not about the newest spec, in a sentence; empty if it is."""
    if not is_current(raw):
        return "The operator has not looked at the newest spec yet."
    refused = refusal(raw)
    return f"The newest spec is refused, {refused.reason}: {refused.message}" if refused else ""


def nothing_served(raw: Json) -> bool:
    """No revision has had the traffic for good, nor does one answer now: the first one starts."""
    told = condition(raw, "Serving")
    answers = told is not None and told.status == "True"
    return not answers and not rows(raw, "status", "history")


def pending_changes(raw: Json) -> tuple[str, ...]:
    """What would change for the pods, in the operator's words."""
    return _words(table(raw, "status"), "pendingChanges")


def _same_namespace(service: Json, objects: Iterable[Json]) -> list[Json]:
    namespace = text(service, "metadata", "namespace")
    return [raw for raw in objects if text(raw, "metadata", "namespace") == namespace]


def _service(raw: Json, objects: Objects) -> Service:
    meta, spec, status = table(raw, "metadata"), table(raw, "spec"), table(raw, "status")
    name, mine = text(meta, "name"), _same_namespace(raw, objects.pods)
    scaling = _scaling(spec, status)
    replicas = number(spec, "replicas")
    if scaling is not None and scaling.most:
        replicas = scaling.desired
    engines = (_engine(entry, mine) for entry in engines_of(raw, objects.engines))
    return Service(
        namespace=text(meta, "namespace"),
        name=name,
        model=Model(
            source=text(spec, "model", "source"),
            name=text(status, "model", "name"),
            architecture=text(status, "model", "architecture"),
            revision=text(status, "model", "revision"),
        ),
        stage=text(status, "stage"),
        conditions=conditions(raw),
        wanted=1 if replicas is None else int(replicas),
        ready_pods=integer(status, "readyReplicas"),
        url=text(status, "url"),
        seen=bool(rows(status, "conditions")),
        current=is_current(raw),
        created=moment(meta, "creationTimestamp"),
        resolve=_resolve(name, mine),
        engines=tuple(sorted(engines, key=lambda entry: entry.name)),
        revisions=_revisions(raw, objects, mine),
        activator=_activator(raw, objects, mine),
        deleting=moment(meta, "deletionTimestamp"),
        finalizers=_words(meta, "finalizers"),
        paused=at(spec, "rollout", "paused") is True,
        pending=pending_changes(raw),
        serving=_serving(table(spec, "serving")),
        scaling=scaling,
    )


def _scaling(spec: Json, status: Json) -> Scaling | None:
    bounds, decided = table(spec, "autoscaling"), table(status, "autoscaling")
    if not bounds or not decided:
        owner = text(status, "scale", "owner")
        return Scaling(owner) if owner and not bounds else None
    least = number(bounds, "min")
    return Scaling(
        owner="autoscaling",
        least=1 if least is None else int(least),
        most=integer(bounds, "max"),
        desired=integer(decided, "desired"),
        reason=text(decided, "reason"),
        why=text(decided, "why"),
        time=moment(decided, "time"),
        ignored=_ignored(table(status, "scale", "ignored")),
    )


def _ignored(noted: Json) -> str:
    """The number that somebody has set; without an author it is the default of the schema."""
    if not integer(noted, "times"):
        return ""
    who = text(noted, "by") or "somebody"
    return f"{who} set spec.replicas to {integer(noted, 'replicas')}"


def _serving(spec: Json) -> Serving:
    return Serving(
        tls=bool(text(spec, "tls", "secretName")),
        keys=bool(text(spec, "auth", "secretRef", "name")),
        dialects=_words(spec, "dialects"),
    )


def _words(node: Json, key: str) -> tuple[str, ...]:
    value = at(node, key)
    found = [text(entry) for entry in value] if isinstance(value, list) else []
    return tuple(word for word in found if word)


def _resolve(service: str, mine: list[Json]) -> Step | None:
    found = [
        raw
        for raw in mine
        if label(raw, names.SERVICE_LABEL) == service and label(raw, names.STAGE_LABEL) == "resolve"
    ]
    return _step("resolve", found) if found else None


def _engine(raw: Json, mine: list[Json]) -> Engine:
    name, status = text(raw, "metadata", "name"), table(raw, "status")
    builders = [entry for entry in mine if label(entry, names.ENGINE_LABEL) == name]
    told = conditions(raw)
    taken = {text(row, "name"): number(row, "seconds") for row in rows(status, "stages")}
    steps = []
    adapted = at(raw, "spec", "prepare", "adapter") is not None
    for step in _steps_of(told):
        needed, known = _STEPS[step]
        stages = tuple(stage for stage in known if adapted or stage != _ADAPTER)
        if all(any(c.type == k and c.status == "True" for c in told) for k in needed):
            steps.append(_finished(step, stages, taken))
            continue
        found = [entry for entry in builders if label(entry, names.STAGE_LABEL) == step]
        steps.append(_step(step, found, stages))
    return Engine(
        name=name,
        stage=text(status, "stage"),
        conditions=told,
        steps=tuple(steps),
        size_bytes=number(status, "sizeBytes"),
        kendall_tau=number(status, "parity", "kendallTau"),
        failures=integer(status, "attempts", "failures"),
        deleting=at(raw, "metadata", "deletionTimestamp") is not None,
    )


def _steps_of(told: tuple[Condition, ...]) -> list[str]:
    """What the engine goes through: one that came from a registry is not built."""
    verdicts = {entry.type: entry.status for entry in told}
    pulled = verdicts.get("Pulled", "False")
    steps = [] if pulled == "False" else ["pull"]
    steps += [] if pulled == "True" else ["prepare", "compile"]
    return [*steps, "push"] if "Pushed" in verdicts else steps


def _finished(step: str, stages: tuple[str, ...], taken: dict[str, float | None]) -> Step:
    """A step that is done is told from the engine's status: its pod may be long gone."""
    done = (Stage(name, "done", taken.get(_RECORDED.get((step, name), name))) for name in stages)
    return Step(step, tuple(done))


def _step(name: str, found: list[Json], stages: tuple[str, ...] = ()) -> Step:
    """From the newest pod; what it has not got to, and all without a pod, is waiting."""
    if not found:
        return Step(name, tuple(Stage(stage, "waiting") for stage in stages))
    newest = max(found, key=lambda raw: text(raw, "metadata", "creationTimestamp"))
    return Step(
        name,
        tuple(pods.stages(newest)),
        job=label(newest, "batch.kubernetes.io/job-name"),
        pod=pods.pod(newest),
    )


def _revisions(service: Json, objects: Objects, mine: list[Json]) -> tuple[Revision, ...]:
    name, status = text(service, "metadata", "name"), table(service, "status")
    found = sorted(
        (
            raw
            for raw in _same_namespace(service, objects.deployments)
            if label(raw, names.SERVICE_LABEL) == name and label(raw, names.REVISION_LABEL)
        ),
        key=lambda raw: text(raw, "metadata", "creationTimestamp"),
    )
    serving, result = text(status, "revision"), []
    # In the order in which they were made: before the serving one are old ones, after it new ones.
    serves = serving in {label(raw, names.REVISION_LABEL) for raw in found}
    role: Role = "old" if serves else "next"
    for raw in found:
        revision = label(raw, names.REVISION_LABEL)
        if revision == serving:
            first = nothing_served(service) and integer(raw, "spec", "replicas") > 0
            result.append(_revision(raw, revision, "starting" if first else "serving", mine))
            role = "next"
        else:
            result.append(_revision(raw, revision, role, mine))
    return tuple(result)


def _activator(service: Json, objects: Objects, mine: list[Json]) -> Activator | None:
    name = text(service, "metadata", "name")
    deployment, found = names.activator(name), _same_namespace(service, objects.deployments)
    raw = next((raw for raw in found if text(raw, "metadata", "name") == deployment), None)
    if raw is None:
        return None
    return Activator(
        deployment=deployment,
        ready=integer(raw, "status", "readyReplicas"),
        wanted=integer(raw, "spec", "replicas"),
        pods=_pods(mine, name, names.APP_COMPONENT, label(raw, names.APP_COMPONENT)),
        deleting=at(raw, "metadata", "deletionTimestamp") is not None,
    )


def _pods(mine: list[Json], service: str, key: str, value: str) -> tuple[Pod, ...]:
    """Those of a service that have this label, by name."""
    found = [
        pods.pod(raw)
        for raw in mine
        if label(raw, names.SERVICE_LABEL) == service and label(raw, key) == value
    ]
    return tuple(sorted(found, key=lambda entry: entry.name))


def _revision(raw: Json, revision: str, role: Role, mine: list[Json]) -> Revision:
    service = label(raw, names.SERVICE_LABEL)
    return Revision(
        name=revision,
        deployment=text(raw, "metadata", "name"),
        engine=label(raw, names.ENGINE_LABEL),
        role=role,
        ready=integer(raw, "status", "readyReplicas"),
        wanted=integer(raw, "spec", "replicas"),
        pods=_pods(mine, service, names.REVISION_LABEL, revision),
        deleting=at(raw, "metadata", "deletionTimestamp") is not None,
    )
