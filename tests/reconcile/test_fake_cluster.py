"""The fake keeps the rules of the API server that the operator leans on."""

import pytest

from reranker_operator.adapters.cluster import Cluster, Json
from reranker_operator.api.meta import DEPLOYMENT, PVC, RERANKER_ENGINE
from reranker_operator.errors import Conflict, Rejected

from .controllers import NAMESPACE, START
from .fake_cluster import FakeCluster


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster(lambda: START)


def _claim(**meta: object) -> Json:
    names = {"name": "store", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": PVC.kind, "metadata": names | meta}


def _owner(uid: str) -> Json:
    return _claim(ownerReferences=[{"kind": "RerankerEngine", "name": uid, "uid": uid}])


async def test_each_manager_adds_and_takes_back_its_own(cluster: FakeCluster) -> None:
    asked: Cluster = cluster
    await asked.apply(_claim() | {"spec": {"size": 1, "class": "fast"}}, "main")
    await asked.apply(_owner("a"), "of-a")
    both = await asked.apply(_owner("b"), "of-b")
    assert [owner["uid"] for owner in both["metadata"]["ownerReferences"]] == ["a", "b"]
    same = await asked.apply(_owner("b"), "of-b")
    assert same["metadata"]["resourceVersion"] == both["metadata"]["resourceVersion"]
    left = await asked.apply(_claim(), "of-a")
    assert [owner["uid"] for owner in left["metadata"]["ownerReferences"]] == ["b"]
    less = await asked.apply(_claim() | {"spec": {"size": 2}}, "main")
    assert less["spec"] == {"size": 2}
    assert (less["metadata"]["generation"], left["metadata"]["generation"]) == (2, 1)


async def test_a_finalizer_holds_until_it_is_dropped(cluster: FakeCluster) -> None:
    await cluster.create(_claim(finalizers=["f"]) | {"spec": {"size": 1}})
    await cluster.delete(PVC, NAMESPACE, "store", uid="another")
    assert "deletionTimestamp" not in (await cluster.get(PVC, NAMESPACE, "store"))["metadata"]
    await cluster.delete(PVC, NAMESPACE, "store")
    held = (await cluster.get(PVC, NAMESPACE, "store"))["metadata"]
    assert held["deletionTimestamp"]
    stale = {"metadata": {"finalizers": [], "resourceVersion": "0"}}
    with pytest.raises(Conflict):
        await cluster.merge_patch(PVC, NAMESPACE, "store", stale)
    stale["metadata"]["resourceVersion"] = held["resourceVersion"]
    await cluster.merge_patch(PVC, NAMESPACE, "store", stale)
    assert await cluster.list(PVC, NAMESPACE) == []


async def test_garbage_is_what_has_lost_its_last_owner(cluster: FakeCluster) -> None:
    body = {"apiVersion": "reranker.dev/v1alpha1", "kind": RERANKER_ENGINE.kind, "spec": {"x": 1}}
    for name in ("a", "b"):
        await cluster.create(body | {"metadata": {"name": name, "namespace": NAMESPACE}})
    await cluster.apply(_claim() | {"spec": {"size": 1}}, "main")
    for name in ("a", "b"):
        uid = (await cluster.get(RERANKER_ENGINE, NAMESPACE, name))["metadata"]["uid"]
        await cluster.apply(_owner(uid), f"of-{name}")
    for name, owners in (("a", 1), ("b", 0)):
        await cluster.delete(RERANKER_ENGINE, NAMESPACE, name)
        while cluster.collect_garbage():
            pass
        claims = await cluster.list(PVC, NAMESPACE)
        assert sum(len(claim["metadata"]["ownerReferences"]) for claim in claims) == owners
    assert claims == []


async def test_what_the_api_server_refuses_or_rewrites(cluster: FakeCluster) -> None:
    with pytest.raises(Rejected, match="spec"):
        await cluster.apply(_owner("a"), "of-a")
    limits = {"resources": {"limits": {"cpu": 0.5, "memory": 1024}}}
    body = {"apiVersion": "apps/v1", "kind": DEPLOYMENT.kind, "spec": {"containers": [limits]}}
    meta = {"name": "x", "namespace": NAMESPACE}
    live = await cluster.apply(body | {"metadata": meta}, "main")
    assert live["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "500m", "memory": "1024"}
    before = live["metadata"]["resourceVersion"]
    live["spec"]["containers"].clear()
    assert (await cluster.get(DEPLOYMENT, NAMESPACE, "x"))["spec"]["containers"]
    assert (await cluster.get(DEPLOYMENT, NAMESPACE, "x"))["metadata"]["resourceVersion"] == before
