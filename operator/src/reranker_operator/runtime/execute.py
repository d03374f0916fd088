"""Carries a plan out: actions in order, then the status, then events for what changed."""

import datetime
import logging
import operator
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from reranker_contracts.base import canonical_json
from reranker_operator import names
from reranker_operator.adapters.cluster import Cluster, Json
from reranker_operator.api.conditions import Condition, changes_worth_telling
from reranker_operator.api.meta import API_VERSION, DEPLOYMENT, RESOURCES, ApiModel
from reranker_operator.api.v1alpha1 import RerankerEngine, RerankerService
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
)
from reranker_operator.errors import Conflict, NameTaken, NotFound, OperatorError, Rejected

logger = logging.getLogger(__name__)


class Executor:
    """Runs the actions of one namespace's plan against a cluster."""

    def __init__(self, cluster: Cluster, identity: str) -> None:
        self._cluster = cluster
        self._identity = identity

    async def execute(self, subject: RerankerService | RerankerEngine, plan: Plan) -> int:
        """Do what the plan says; returns the number of writes."""
        namespace, writes = subject.metadata.namespace, 0
        for action in plan.actions:
            writes += await self._act(namespace, action)
        if plan.status is not None and plan.status != subject.status:
            await self._write_status(subject, plan.status)
            writes += 1
            await self._tell(subject, subject.status.conditions, plan.status)
        return writes

    async def _act(self, namespace: str, action: Action) -> int:
        match action:
            case Apply(manifest, manager):
                return await self._apply(namespace, manifest, manager)
            case Create(manifest):
                try:
                    await self._cluster.create(manifest)
                except Conflict:
                    await self._expect_ours(namespace, manifest)
                    return 0
            case Patch(resource, name, patch):
                await self._cluster.merge_patch(resource, namespace, name, patch)
            case Scale(name, replicas):
                patch = {"spec": {"replicas": replicas}}
                await self._cluster.merge_patch(DEPLOYMENT, namespace, name, patch)
            case Delete(resource, name, uid, version):
                await self._cluster.delete(resource, namespace, name, uid, version)
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
                    return 0
            case DropFinalizer(resource, name):
                try:
                    await self._drop_finalizer(resource.kind, namespace, name)
                except NotFound:
                    return 0
        logger.info("%s", _describe(action), extra={"namespace": namespace})
        return 1

    async def _apply(self, namespace: str, manifest: Json, manager: str) -> int:
        resource, name = RESOURCES[manifest["kind"]], manifest["metadata"]["name"]
        if manager != names.MANAGER:
            await self._cluster.apply(manifest, manager)
            return 1
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
        if live is not None and _unchanged(live, manifest, digest):
            return 0
        meta = manifest["metadata"]
        annotations = meta.get("annotations", {}) | {names.APPLIED_HASH: digest}
        stamped = manifest | {"metadata": meta | {"annotations": annotations}}
        await self._cluster.apply(stamped, manager)
        logger.info("applied %s %s", resource.kind, name, extra={"namespace": namespace})
        return 1

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
    ) -> None:
        body = {
            "apiVersion": API_VERSION,
            "kind": type(subject).__name__,
            "metadata": {"name": subject.metadata.name, "namespace": subject.metadata.namespace},
            "status": status.to_dict(),
        }
        await self._cluster.apply_status(body, names.STATUS_MANAGER)

    async def _tell(
        self,
        subject: RerankerService | RerankerEngine,
        before: Sequence[Condition],
        status: Any,
    ) -> None:
        """One Event for each condition that changed in a way that people should know."""
        for entry in changes_worth_telling(before, status.conditions):
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
            "type": "Warning" if entry.status == "False" else "Normal",
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


def _owners(entry: Json) -> set[tuple[str, str]]:
    """Kind and name of an object's owners."""
    owners = entry["metadata"].get("ownerReferences", [])
    return {(owner["kind"], owner["name"]) for owner in owners}


def _unchanged(live: Json, manifest: Json, digest: str) -> bool:
    """We applied exactly this, and nobody has changed a field of it since."""
    applied = live["metadata"].get("annotations", {}).get(names.APPLIED_HASH)
    return applied == digest and _contains(live, manifest)


def _contains(live: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(
            _COMPARED.get(key, _contains)(live[key], value) if key in live else _is_left_out(value)
            for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(live, list)
            and len(live) == len(wanted)
            and all(_contains(have, want) for have, want in zip(live, wanted, strict=True))
        )
    return bool(live == wanted)


def _is_left_out(value: Any) -> bool:
    """The API server gives most fields without a value not back; users may write such."""
    return value in (None, "", False, 0, [])


def _same_quantity(live: Any, wanted: Any) -> bool:
    return _same_quantities({"": live}, {"": wanted})


def _same_quantities(live: Any, wanted: Any) -> bool:
    """The API server rewrites quantities: `0.5` comes back as `500m`, 1 as `"1"`."""
    try:
        return isinstance(live, dict) and all(
            _amount(live[name]) == _amount(amount) for name, amount in wanted.items()
        )
    except (KeyError, ValueError):
        return False


#: Not every map may hold more than we put there: one key more and a selector leads nowhere.
_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "requests": _same_quantities,
    "limits": _same_quantities,
    "selector": operator.eq,
    "sizeLimit": _same_quantity,
    "divisor": _same_quantity,
}


def _amount(quantity: object) -> Decimal:
    amount: Decimal = parse_quantity(quantity)  # type: ignore[no-untyped-call]
    return amount


def _describe(action: Action) -> str:
    match action:
        case Create(manifest) | Apply(manifest):
            done = "created" if isinstance(action, Create) else "applied"
            return f"{done} {manifest['kind']} {manifest['metadata']['name']}"
        case Scale(name, replicas):
            return f"scaled Deployment {name} to {replicas}"
        case Patch(resource, name) | Delete(resource, name):
            done = "changed" if isinstance(action, Patch) else "deleted"
            return f"{done} {resource.kind} {name}"
        case Release(resource, name):
            return f"released {resource.kind} {name}"
        case DropFinalizer(resource, name):
            return f"let go of {resource.kind} {name}"
