"""Which objects look again when something changed."""

from typing import Any

import kopf
import pytest

from reranker_operator.api.meta import OWNED
from reranker_operator.runtime.queue import Key
from reranker_operator.shell.handlers import keys_of, register
from reranker_operator.shell.settings import configure

SERVICE = Key("RerankerService", "shop", "rank")
ENGINE = Key("RerankerEngine", "shop", "tiny")
FOR_SERVICE = {"reranker.dev/service": "rank"}
FOR_ENGINE = {"reranker.dev/engine": "tiny"}


def _owner(kind: str, name: str) -> dict[str, str]:
    return {"apiVersion": "reranker.dev/v1alpha1", "kind": kind, "name": name, "uid": "u"}


@pytest.mark.parametrize(
    ("kind", "meta", "expected"),
    [
        ("RerankerService", {"name": "rank"}, [SERVICE]),
        ("RerankerEngine", {"name": "tiny"}, [ENGINE]),
        (
            "RerankerEngine",
            {
                "name": "tiny",
                "ownerReferences": [_owner("RerankerService", n) for n in ("rank", "b")],
            },
            [ENGINE, SERVICE, Key("RerankerService", "shop", "b")],
        ),
        ("Job", {"name": "x", "labels": FOR_SERVICE}, [SERVICE]),
        ("Job", {"name": "x", "labels": FOR_ENGINE}, [ENGINE]),
        ("Pod", {"name": "x", "labels": FOR_SERVICE | FOR_ENGINE}, [SERVICE, ENGINE]),
        (
            "Service",
            {
                "name": "rank",
                "labels": FOR_SERVICE,
                "ownerReferences": [_owner("RerankerService", "rank")],
            },
            [SERVICE],
        ),
        (
            "HTTPRoute",
            {"name": "rank", "ownerReferences": [_owner("RerankerService", "rank")]},
            [SERVICE],
        ),
        ("Pod", {"name": "x", "labels": None, "ownerReferences": None}, []),
        ("Deployment", {"name": "x", "labels": {"app": "other"}}, []),
        ("Pod", {"name": "x", "ownerReferences": [_owner("ReplicaSet", "r")]}, []),
    ],
)
def test_keys(kind: str, meta: dict[str, Any], expected: list[Key]) -> None:
    assert keys_of(kind, {"namespace": "shop"} | meta) == expected


def test_what_we_make_is_watched_and_selected_by_the_server() -> None:
    """Without a selector the watch would bring every such object of the cluster."""
    registry = kopf.OperatorRegistry()
    register(registry, lambda *_: None)
    watched = {selector.any_name for selector in registry._watching.get_all_selectors()}
    chosen = configure(namespaced=False).watching.label_selectors
    for resource in OWNED:
        assert resource.plural in watched
        key = (resource.group, resource.version, resource.plural)
        assert chosen[key] == "app.kubernetes.io/managed-by=reranker-operator"
