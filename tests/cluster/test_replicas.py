"""Who owns `spec.replicas` on a real API server: what the operator's view of it is built on."""

import json

import pytest
from support.kubectl import Json, Kubectl

from reranker_operator.core.replicas import only_replicas, owners_of_replicas

pytestmark = pytest.mark.cluster


def _apply(api: Kubectl, manager: str, **spec: object) -> Json:
    """As GitOps does, then the object with its managers."""
    manifest = {
        "apiVersion": "reranker.dev/v1alpha1",
        "kind": "RerankerService",
        "metadata": {"name": "scaled"},
        "spec": {"model": {"source": "hf://org/model"}} | spec,
    }
    api("apply", "--server-side", "--force-conflicts", f"--field-manager={manager}", "-f", "-",
        stdin=json.dumps(manifest))  # fmt: skip
    return _read(api)


def _read(api: Kubectl) -> Json:
    found: Json = json.loads(api("get", "rr", "scaled", "-o", "json", "--show-managed-fields"))
    return found


def _scale(api: Kubectl) -> Json:
    path = f"/apis/reranker.dev/v1alpha1/namespaces/{api.namespace}/rerankerservices/scaled/scale"
    found: Json = json.loads(api("get", "--raw", path))
    return found


def _owners(raw: Json) -> list[tuple[str, str]]:
    entries = owners_of_replicas(raw["metadata"]["managedFields"])
    assert only_replicas(only_replicas(entries)) == only_replicas(entries)
    return sorted((entry["manager"], entry.get("subresource", "")) for entry in entries)


def test_replicas_are_owned_by_who_takes_them_and_the_default_by_nobody(api: Kubectl) -> None:
    try:
        made = _apply(api, "gitops")
        assert (made["spec"]["replicas"], _owners(made)) == (1, [])
        # An HPA gets an answer, which it would not if the schema had no default.
        assert _scale(api)["spec"]["replicas"] == 1

        # Of a number that nobody owns it is not recorded who sets it.
        api("scale", "rr", "scaled", "--replicas=4")
        assert _owners(_read(api)) == []
        again = _apply(api, "gitops", serving={"truncate": "END"})
        assert (again["spec"]["replicas"], _owners(again)) == (4, [])

        # A manifest takes the number, and lets it go again: the default, and nobody's.
        taken = _apply(api, "gitops", replicas=3)
        assert (taken["spec"]["replicas"], _owners(taken)) == (3, [("gitops", "")])
        left = _apply(api, "gitops")
        assert (left["spec"]["replicas"], _owners(left)) == (1, [])

        # Of one that somebody owns it is, and the manifest has it no more.
        _apply(api, "gitops", replicas=3)
        api("scale", "rr", "scaled", "--replicas=5")
        ((_, subresource),) = _owners(_read(api))
        assert subresource == "scale"
        left = _apply(api, "gitops")
        assert left["spec"]["replicas"] == 5
    finally:
        api("delete", "rr", "scaled", "--ignore-not-found")
