"""What people do to ports and probes, undone on a real API server, which may refuse an apply."""

import copy
import json
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.config import new_client_from_config
from support.kubectl import Json, Kubectl

from reranker_operator import names
from reranker_operator.adapters.cache import CachingCluster
from reranker_operator.adapters.kubernetes import KubernetesCluster
from reranker_operator.api.meta import DEPLOYMENT, SERVICE
from reranker_operator.api.v1alpha1 import RerankerService
from reranker_operator.core.plan import Apply, Plan
from reranker_operator.runtime.execute import Executor

pytestmark = pytest.mark.cluster

_LABELS = {names.APP_MANAGED_BY: names.MANAGER, "app": "drift"}
_PROBE = {"httpGet": {"path": "/v1/health/ready", "port": "http"}}


def _service() -> Json:
    ports = [
        {"name": "http", "port": 8000, "targetPort": "http"},
        {"name": "grpc", "port": 8001, "targetPort": "grpc"},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "drift", "labels": _LABELS},
        "spec": {"selector": {"app": "drift"}, "ports": ports, "type": "ClusterIP"},
    }


def _deployment() -> Json:
    container = {
        "name": "gateway",
        "image": "localhost/nothing:1",
        "ports": [{"name": "http", "containerPort": 8000}, {"name": "grpc", "containerPort": 8001}],
        "readinessProbe": _PROBE,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "drift", "labels": _LABELS},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "drift"}},
            "template": {
                "metadata": {"labels": {"app": "drift"}},
                "spec": {"containers": [container]},
            },
        },
    }


def _container(path: str) -> str:
    return f"/spec/template/spec/containers/0{path}"


def _replace(path: str, value: object) -> Json:
    return {"op": "replace", "path": path, "value": value}


#: What is changed, and how, by JSON patches.
DRIFT: dict[str, tuple[Json, list[Json]]] = {
    "a port's number": (_service(), [_replace("/spec/ports/0/port", 9999)]),
    "all ports": (_service(), [_replace("/spec/ports", [{"name": "http", "port": 80}])]),
    "a port and more": (
        _service(),
        [
            _replace("/spec/ports/1/port", 9999),
            _replace("/spec/selector", {"app": "other"}),
            _replace("/spec/type", "NodePort"),
        ],
    ),
    "a container's port": (
        _deployment(),
        [_replace(_container("/ports/0/containerPort"), 8123)],
    ),
    "another kind of probe": (
        _deployment(),
        [_replace(_container("/readinessProbe"), {"exec": {"command": ["true"]}})],
    ),
}


@pytest.fixture
async def operator(api: Kubectl) -> AsyncIterator[tuple[CachingCluster, Executor]]:
    file = str(api.kubeconfig)
    client: ApiClient = await new_client_from_config(config_file=file)  # type: ignore[no-untyped-call]
    async with client:
        memory = CachingCluster(KubernetesCluster(client), {SERVICE: None, DEPLOYMENT: None})
        yield memory, Executor(memory, "test", time.time)


@pytest.fixture
def clean(api: Kubectl) -> Iterator[None]:
    yield
    api("delete", "service,deployment", "drift", "--ignore-not-found")


def _read(api: Kubectl, manifest: Json) -> Json:
    """Without what servers count, and without who has which field."""
    found: Json = json.loads(api("get", manifest["kind"], "drift", "-o", "json"))
    found["metadata"]["annotations"].pop("deployment.kubernetes.io/revision", None)
    kept = ("labels", "annotations", "uid")
    return {"spec": found["spec"], **{key: found["metadata"][key] for key in kept}}


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("name", DRIFT)
async def test_it_is_undone(
    api: Kubectl, operator: tuple[CachingCluster, Executor], name: str
) -> None:
    memory, executor = operator
    manifest, patch = copy.deepcopy(DRIFT[name])
    manifest["metadata"]["namespace"] = api.namespace
    plan = Plan(actions=(Apply(manifest),))
    subject = RerankerService.model_validate(
        {
            "metadata": {"name": "drift", "namespace": api.namespace, "uid": "1"},
            "spec": {"model": {"source": "hf://org/model"}},
        }
    )
    await executor.act(subject, plan)
    good = _read(api, manifest)
    annotate = {"op": "add", "path": "/metadata/annotations/note", "value": "mine"}
    api("patch", manifest["kind"], "drift", "--type=json", "-p", json.dumps([*patch, annotate]))
    assert _read(api, manifest)["spec"] != good["spec"]
    await memory.relist(api.namespace)
    # The second look takes away what the first apply has found there.
    for _ in range(2):
        await executor.act(subject, plan)
    after = _read(api, manifest)
    assert after["annotations"].pop("note") == "mine"
    assert after == good
    done, _ = await executor.act(subject, plan)
    assert done.writes == 0
