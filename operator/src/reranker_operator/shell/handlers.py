"""Events to keys. `on.event` only: no finalizers, no annotations, no state of kopf's on objects."""

from collections.abc import Callable, Mapping
from typing import Any

import kopf

from reranker_operator import names
from reranker_operator.api.meta import (
    COMPANIONS,
    DEPLOYMENT,
    GROUP,
    JOB,
    POD,
    RERANKER_ENGINE,
    RERANKER_SERVICE,
    SERVICE,
    VERSION,
)
from reranker_operator.runtime.fleet import Fleet
from reranker_operator.runtime.queue import Key

Add = Callable[[Key], None]


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
        if owner.get("kind") == RERANKER_SERVICE.kind:
            keys.append(Key(RERANKER_SERVICE.kind, namespace, owner["name"]))
    return list(dict.fromkeys(keys))


def register(registry: kopf.OperatorRegistry, add: Add, fleet: Fleet) -> None:
    """Watch our kinds, and what carries our label of the kinds that we make.

    `fleet` keeps what is seen of our own.
    """

    async def login(**context: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**context) or kopf.login_with_kubeconfig(**context)

    kopf.on.login(registry=registry, id="login")(login)
    ours = {names.APP_MANAGED_BY: names.MANAGER}

    for own in (RERANKER_SERVICE, RERANKER_ENGINE):
        kopf.on.event(GROUP, VERSION, own.plural, registry=registry, id=f"{own.plural}-event")(
            _reporter(own.kind, add, fleet)
        )
    # kopf watches the optional ones from when their definitions are there.
    for made in (JOB, DEPLOYMENT, POD, SERVICE, *COMPANIONS):
        kopf.on.event(
            made.group, made.version, made.plural,
            labels=ours, registry=registry, id=f"{made.plural}-event",
        )(_translator(made.kind, add))  # fmt: skip


def _translator(kind: str, add: Add) -> Callable[..., Any]:
    async def translate(meta: Mapping[str, Any], **_: Any) -> None:
        for key in keys_of(kind, meta):
            add(key)

    return translate


def _reporter(kind: str, add: Add, fleet: Fleet) -> Callable[..., Any]:
    translate = _translator(kind, add)

    async def report(event: Mapping[str, Any], meta: Mapping[str, Any], **_: Any) -> None:
        if event.get("type") == "DELETED":
            fleet.lost(Key(kind, str(meta.get("namespace", "")), str(meta.get("name", ""))))
        else:
            fleet.saw({**event["object"], "kind": kind})
        await translate(meta)

    return report
