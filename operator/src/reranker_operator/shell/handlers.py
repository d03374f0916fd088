"""Events to keys. `on.event` only: no finalizers, no annotations, no state of kopf's on objects."""

from collections.abc import Callable, Mapping
from typing import Any

import kopf

from reranker_operator import names
from reranker_operator.api.meta import (
    OWNED,
    RERANKER_ENGINE,
    RERANKER_SERVICE,
    Resource,
)
from reranker_operator.runtime.queue import Key

#: Kind, type of the event and the object.
Saw = Callable[[str, str | None, Mapping[str, Any]], None]
_OWN = (RERANKER_SERVICE, RERANKER_ENGINE)


def keys_of(kind: str, meta: Mapping[str, Any]) -> list[Key]:
    """Which objects of ours should look again after an event on an object of this kind."""
    namespace, name = str(meta.get("namespace", "")), str(meta.get("name", ""))
    labels = meta.get("labels") or {}
    keys = []
    if kind in (RERANKER_SERVICE.kind, RERANKER_ENGINE.kind):
        keys.append(Key(kind, namespace, name))
    if service := labels.get(names.SERVICE_LABEL):
        keys.append(Key(RERANKER_SERVICE.kind, namespace, service))
    if engine := labels.get(names.ENGINE_LABEL):
        keys.append(Key(RERANKER_ENGINE.kind, namespace, engine))
    for owner in meta.get("ownerReferences") or []:
        if owner.get("kind") in {own.kind for own in _OWN}:
            keys.append(Key(owner["kind"], namespace, owner["name"]))
    return list(dict.fromkeys(keys))


def register(registry: kopf.OperatorRegistry, saw: Saw) -> None:
    """Watch our kinds, and what carries our label of the kinds that we make."""

    async def login(**context: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**context) or kopf.login_with_kubeconfig(**context)

    kopf.on.login(registry=registry, id="login")(login)
    for resource in (*_OWN, *OWNED):
        # By label selects the API server, as the settings tell it: of an object that has lost the
        # label it tells the end, which a filter of kopf's would keep from us.
        kopf.on.event(
            resource.group, resource.version, resource.plural,
            registry=registry, id=f"{resource.plural}-event",
        )(_reporter(resource, saw))  # fmt: skip


def _reporter(resource: Resource, saw: Saw) -> Callable[..., Any]:
    async def report(event: Mapping[str, Any], **_: Any) -> None:
        saw(resource.kind, event.get("type"), event["object"])

    return report
