"""Carries a plan out: actions in order, then the status, then events for what changed."""

import datetime
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from reranker_contracts.base import canonical_json
from reranker_operator import names
from reranker_operator.adapters.cluster import Cluster, Json
from reranker_operator.api.conditions import Condition, changes_worth_telling, is_failure
from reranker_operator.api.meta import (
    API_VERSION,
    DEPLOYMENT,
    RERANKER_SERVICE,
    RESOURCES,
    ApiModel,
    Resource,
)
from reranker_operator.api.v1alpha1 import RerankerEngine, RerankerService
from reranker_operator.core.adoption import adoption
from reranker_operator.core.drift import Intrusion, intrusions, matches, removal
from reranker_operator.core.plan import (
    Action,
    Apply,
    Create,
    Delete,
    DropFinalizer,
    Patch,
    Plan,
    Release,
    Scale,
    ScaleService,
)
from reranker_operator.errors import (
    Conflict,
    Forbidden,
    NamespaceTerminating,
    NameTaken,
    NotFound,
    OperatorError,
    Rejected,
)
from reranker_operator.runtime.telling import Telling
from reranker_operator.runtime.tolerance import Settled, Tolerance

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Done:
    """What came of some actions: `writes` were asked for, `changes` tell nobody else of us."""

    writes: int = 0
    changes: int = 0
    #: Nothing but applies, which take no evidence away: the same plan can be made again.
    only_applied: bool = True

    def __add__(self, other: "Done") -> "Done":
        return Done(
            self.writes + other.writes,
            self.changes + other.changes,
            self.only_applied and other.only_applied,
        )


class Executor:
    """Runs the actions of one namespace's plan against a cluster."""

    def __init__(self, cluster: Cluster, identity: str, clock: Callable[[], float]) -> None:
        self._cluster = cluster
        self._telling = Telling(clock)
        self._identity = identity
        self._settled = Settled()
        self._tolerance = Tolerance()

    async def act(
        self, subject: RerankerService | RerankerEngine, plan: Plan
    ) -> tuple[Done, OperatorError | None]:
        """Do what the plan says in order; also the failure that the pods did not wait for."""
        namespace = subject.metadata.namespace
        done = Done()
        try:
            done += await self._act_all(namespace, plan.first)
        except NamespaceTerminating:
            raise
        except OperatorError as error:
            return done + await self._act_all(namespace, plan.alone), error
        done += await self._act_all(namespace, plan.actions)
        return done + await self._act_all(namespace, plan.last), None

    async def act_beside(
        self, subject: RerankerService | RerankerEngine, actions: Sequence[Action]
    ) -> tuple[Done, Forbidden | Rejected | None]:
        """Do what stands beside; also the first refusal, which holds nothing else up."""
        done, refusal = Done(), None
        for action in actions:
            try:
                done += await self._act(subject.metadata.namespace, action)
            except NamespaceTerminating:
                raise
            except (Forbidden, Rejected) as error:
                refusal = refusal or error
        return done, refusal

    async def conclude(self, subject: RerankerService | RerankerEngine, plan: Plan) -> Done:
        """Write the status, and tell of what has changed in it."""
        if plan.status is None or plan.status == subject.status:
            return Done()
        after = await self._write_status(subject, plan.status)
        await self._tell(subject, subject.status.conditions, plan.status)
        changed = after["metadata"]["resourceVersion"] != subject.metadata.resource_version
        return Done(1, int(changed))

    async def _act_all(self, namespace: str, actions: Sequence[Action]) -> Done:
        done = Done()
        for action in actions:
            done += await self._act(namespace, action)
        return done

    async def _act(self, namespace: str, action: Action) -> Done:
        match action:
            case Apply(manifest, manager):
                return await self._apply(namespace, manifest, manager)
            case Create(manifest):
                try:
                    await self._cluster.create(manifest)
                except Conflict:
                    await self._expect_ours(namespace, manifest)
                    return Done(only_applied=False)
            case Patch(resource, name, patch):
                await self._cluster.merge_patch(resource, namespace, name, patch)
            case Scale(name, replicas):
                patch = {"spec": {"replicas": replicas}}
                await self._cluster.merge_patch(DEPLOYMENT, namespace, name, patch)
            case ScaleService(name, replicas):
                await self._cluster.scale(RERANKER_SERVICE, namespace, name, replicas)
            case Delete(resource, name, uid, version):
                await self._cluster.delete(resource, namespace, name, uid, version)
                logger.info("%s", _describe(action), extra={"namespace": namespace})
                # Not a change: the watch tells of the end, and it may be a while.
                return Done(1, 0, only_applied=False)
            case Release(resource, name, manager):
                body = {
                    "apiVersion": resource.api_version,
                    "kind": resource.kind,
                    "metadata": {"name": name, "namespace": namespace},
                }
                try:
                    await self._cluster.apply(body, manager)
                except Rejected:
                    # An apply of nothing is only refused where nothing is there any more.
                    return Done(only_applied=False)
            case DropFinalizer(resource, name):
                try:
                    await self._drop_finalizer(resource.kind, namespace, name)
                except NotFound:
                    return Done(only_applied=False)
        logger.info("%s", _describe(action), extra={"namespace": namespace})
        return Done(1, 1, only_applied=False)

    async def _apply(self, namespace: str, manifest: Json, manager: str) -> Done:
        resource, name = RESOURCES[manifest["kind"]], manifest["metadata"]["name"]
        if manager != names.MANAGER:
            await self._cluster.apply(manifest, manager)
            return Done(1, 1)
        digest = names.short_hash(canonical_json(manifest), 16)
        try:
            live = await self._cluster.get(resource, namespace, name)
        except NotFound:
            live = None
        if live is not None and _is_foreign(live, manifest):
            raise NameTaken(
                f"{resource.kind} {name} exists and was not made by this operator; rename the "
                f"RerankerService or delete that {resource.kind}"
            )
        done = Done()
        if live is None or not self._unchanged(live, manifest, digest):
            try:
                live, done = await self._send(live, manifest, digest)
            except Rejected:
                live = await self._adopt(resource, live, manifest) if live else None
                if live is None:
                    raise
                live, done = await self._send(live, manifest, digest)
                done += Done(1, 1)
        return done + await self._evict(resource, live, manifest)

    def _unchanged(self, live: Json, manifest: Json, digest: str) -> bool:
        """We applied exactly this, and nobody has changed a field of it since."""
        applied = live["metadata"].get("annotations", {}).get(names.APPLIED_HASH)
        return (applied == digest and matches(live, manifest)) or self._settled.is_so(live, digest)

    async def _send(self, live: Json | None, manifest: Json, digest: str) -> tuple[Json, Done]:
        meta = manifest["metadata"]
        annotations = meta.get("annotations", {}) | {names.APPLIED_HASH: digest}
        stamped = manifest | {"metadata": meta | {"annotations": annotations}}
        after = await self._cluster.apply(stamped, names.MANAGER)
        if live is not None and _version(after) == _version(live):
            self._settled.note(after, digest)
            return after, Done(1, 0)
        where = {"namespace": meta["namespace"]}
        logger.info("applied %s %s", manifest["kind"], meta["name"], extra=where)
        return after, Done(1, 1)

    def _refused(self, live: Json, manifest: Json) -> list[Intrusion]:
        """What strangers have added, and may not; counts as removed."""
        uid = live["metadata"]["uid"]
        found = intrusions(live, manifest)
        return [entry for entry in found if self._tolerance.refuses(uid, entry)]

    async def _adopt(self, resource: Resource, live: Json, manifest: Json) -> Json | None:
        """Have the next apply take out what stands in its way; None if there is no such thing."""
        meta = live["metadata"]
        # By fields, which asks the API server: what is in memory tells of strangers' fields only.
        fields = {"metadata.name": meta["name"]}
        whole = await self._cluster.list(resource, meta["namespace"], fields=fields)
        found = self._refused(whole[0], manifest) if whole else []
        if not (patch := adoption(whole[0], found) if found else []):
            return None
        after = await self._cluster.json_patch(resource, meta["namespace"], meta["name"], patch)
        what = ", ".join(map(str, found))
        text = "removing what others have added to %s %s, which is in the way: %s"
        where = {"namespace": meta["namespace"]}
        logger.warning(text, resource.kind, meta["name"], what, extra=where)
        return after

    async def _evict(self, resource: Resource, live: Json, manifest: Json) -> Done:
        """Take out what strangers have added to an object that is all ours."""
        meta = live["metadata"]
        found = self._refused(live, manifest)
        if not found:
            return Done()
        what = ", ".join(str(entry) for entry in found)
        try:
            await self._cluster.json_patch(
                resource, meta["namespace"], meta["name"], removal(found)
            )
        except (Rejected, Conflict, NotFound) as error:
            # Changed or gone meanwhile, which the watch tells; or not to be removed, which counts.
            logger.warning("%s %s keeps %s: %s", resource.kind, meta["name"], what, error)
            return Done(only_applied=False)
        text = "removed what others have added to %s %s: %s"
        logger.warning(
            text, resource.kind, meta["name"], what, extra={"namespace": meta["namespace"]}
        )
        return Done(1, 1)

    async def _expect_ours(self, namespace: str, manifest: Json) -> None:
        """What has the name already must be what we want there, or what goes away by itself.

        That is a former owner's of the same name, which waits for garbage collection.
        """
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        wanted = _owners(manifest)
        live = await self._cluster.get(RESOURCES[kind], namespace, name)
        if wanted and not wanted & _owners(live):
            raise NameTaken(
                f"{kind} {name} exists and does not belong to {' '.join(min(wanted))}; "
                f"delete that {kind}, or rename it"
            )

    async def _drop_finalizer(self, kind: str, namespace: str, name: str) -> None:
        resource = RESOURCES[kind]
        live = await self._cluster.get(resource, namespace, name)
        meta = live["metadata"]
        kept = [entry for entry in meta.get("finalizers", []) if entry != names.FINALIZER]
        patch = {"metadata": {"finalizers": kept, "resourceVersion": meta["resourceVersion"]}}
        await self._cluster.merge_patch(resource, namespace, name, patch)

    async def _write_status(
        self, subject: RerankerService | RerankerEngine, status: ApiModel
    ) -> Json:
        body = {
            "apiVersion": API_VERSION,
            "kind": type(subject).__name__,
            "metadata": {"name": subject.metadata.name, "namespace": subject.metadata.namespace},
            "status": status.to_dict(),
        }
        return await self._cluster.apply_status(body, names.STATUS_MANAGER)

    async def _tell(
        self,
        subject: RerankerService | RerankerEngine,
        before: Sequence[Condition],
        status: Any,
    ) -> None:
        """One Event for each condition that changed in a way that people should know."""
        for entry in changes_worth_telling(before, status.conditions):
            if not self._telling.allows(subject.metadata.uid, entry):
                continue
            try:
                await self._cluster.create(self._event(subject, entry))
            except OperatorError as error:
                # The condition says it all; a refused Event must not undo it.
                logger.warning("no Event for %s: %s", subject.metadata.name, error)

    def _event(self, subject: RerankerService | RerankerEngine, entry: Condition) -> Json:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        meta = subject.metadata
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "generateName": f"{meta.name}-",
                "namespace": meta.namespace,
                "labels": {names.APP_MANAGED_BY: names.MANAGER},
            },
            "type": "Warning" if is_failure(entry) else "Normal",
            "reason": entry.reason,
            "message": f"{entry.type} is {entry.status}: {entry.message}"[:1000],
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": type(subject).__name__,
                "name": meta.name,
                "namespace": meta.namespace,
                "uid": meta.uid,
            },
            "source": {"component": names.MANAGER},
            "reportingComponent": names.MANAGER,
            "reportingInstance": self._identity,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }


def _is_foreign(live: Json, manifest: Json) -> bool:
    """Somebody else's object of the same name: a forced apply would take it over."""
    meta = live["metadata"]
    have = {owner["uid"] for owner in meta.get("ownerReferences", [])}
    ours = {owner["uid"] for owner in manifest["metadata"].get("ownerReferences", [])}
    managed = meta.get("labels", {}).get(names.APP_MANAGED_BY) == names.MANAGER
    return not managed and not have & ours


def _version(entry: Json) -> str:
    return str(entry["metadata"]["resourceVersion"])


def _owners(entry: Json) -> set[tuple[str, str]]:
    """Kind and name of an object's owners."""
    owners = entry["metadata"].get("ownerReferences", [])
    return {(owner["kind"], owner["name"]) for owner in owners}


def _describe(action: Action) -> str:
    match action:
        case Create(manifest) | Apply(manifest):
            done = "created" if isinstance(action, Create) else "applied"
            return f"{done} {manifest['kind']} {manifest['metadata']['name']}"
        case Scale(name, replicas):
            return f"scaled Deployment {name} to {replicas}"
        case ScaleService(name, replicas):
            return f"put replicas of RerankerService {name} back to {replicas}"
        case Patch(resource, name) | Delete(resource, name):
            done = "changed" if isinstance(action, Patch) else "deleted"
            return f"{done} {resource.kind} {name}"
        case Release(resource, name):
            return f"released {resource.kind} {name}"
        case DropFinalizer(resource, name):
            return f"let go of {resource.kind} {name}"
