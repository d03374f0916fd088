"""What is there before the measurement: nodes, namespaces, stores and engines that are built."""

import asyncio
import datetime
from collections.abc import Iterator
from functools import partial
from typing import Any

import yaml
from api import Api, Json, in_parallel
from control_plane import ROOT
from support.identities import TOOLCHAIN

from reranker_contracts import ParityReport, Runtimes
from reranker_operator import names
from reranker_operator.api.conditions import ConditionType, Reason, condition, merge, summarise
from reranker_operator.api.v1alpha1 import (
    RerankerEngineStatus,
    RerankerService,
    RerankerServiceStatus,
    ResolvedStatus,
    StageStatus,
)
from reranker_operator.config import Config
from reranker_operator.render import engines, pods

_GPU = "nvidia.com/gpu"
_RUNTIMES = Runtimes(recipe=1, onnxruntime="1.31")
_PARITY = ParityReport(
    pairs=64, queries=8, kendall_tau=0.9991, ndcg10_delta=0.0004, max_abs_diff=0.0007
)
_STEPS = (ConditionType.PREPARED, ConditionType.COMPILED, ConditionType.VALIDATED)


def namespaces(count: int) -> list[str]:
    return [f"team-{number:02}" for number in range(count)]


def node(number: int) -> Json:
    """A machine with eight GPUs, as feature discovery labels it."""
    name = f"gpu-{number:03}"
    amounts = {"cpu": "128", "memory": "1Ti", "pods": "110", _GPU: "8"}
    labels = {
        "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "type": "kwok",
        f"{_GPU}.product": "NVIDIA-H100-80GB-HBM3", f"{_GPU}.count": "8",
    }  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}},
        "status": {"capacity": amounts, "allocatable": amounts},
    }


def service(namespace: str, name: str, model: int, replicas: int = 1) -> Json:
    """A service on a GPU whose source is a fixed revision."""
    source = {"source": f"hf://bench/model-{model}", "revision": f"{model:040x}"}
    return {
        "apiVersion": "reranker.dev/v1alpha1",
        "kind": "RerankerService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"model": source, "accelerator": {"type": "nvidia"}, "replicas": replicas},
    }


async def add_nodes(api: Api, count: int) -> None:
    await in_parallel(partial(api.create, "nodes", node(number)) for number in range(count))


async def prepare(api: Api, nodes: int, spaces: list[str], models: int) -> None:
    """Definitions, nodes, and in each namespace a store with engines that one service has built."""
    for file in sorted((ROOT / "crds").glob("reranker*.yaml")):
        await api.create("customresourcedefinitions", yaml.safe_load(file.read_text()))
    await add_nodes(api, nodes)
    for space in spaces:
        await api.create("namespaces", {"metadata": {"name": space}})
    for space in spaces:
        await _prepare_namespace(api, space, models)


async def _prepare_namespace(api: Api, space: str, models: int) -> None:
    for model in range(models):
        # The engine's first owner serves nothing any more.
        owner = await _patiently(api, service(space, f"first-{model}", model, replicas=0))
        await _add_engine(api, owner, model)
    claim = pods.store_claim_name(RerankerService.model_validate(owner).spec.engine.store)
    for plural, body in _volume(space, claim):
        await api.create(plural, body)


async def _patiently(api: Api, body: Json) -> Json:
    """A definition is served a moment after it was made."""
    for _ in range(50):
        try:
            return await api.create("rerankerservices", body)
        except RuntimeError as error:
            if "404" not in str(error):
                raise
            await asyncio.sleep(0.2)
    raise RuntimeError("the definitions are not served")


async def _add_engine(api: Api, owner: Json, model: int) -> None:
    """As the operator leaves it behind after a build; named and hashed by the operator's code."""
    parent = RerankerService.model_validate(owner)
    resolved = ResolvedStatus(
        key="",
        revision=f"{model:040x}",
        name=f"model-{model}",
        architecture="BertForSequenceClassification",
        family="bert",
        max_length=512,
        toolchain=TOOLCHAIN,
        runtimes=_RUNTIMES,
    )
    defaults = Config().defaults()
    status = RerankerServiceStatus(model=resolved)
    identity, *_ = engines.identities(parent, status)
    body: Any = engines.engine(parent, status, identity, defaults)
    body["metadata"]["ownerReferences"] = [pods.owner_reference(parent, controller=False)]
    made = await api.create("rerankerengines", body)
    built = _built(datetime.datetime.now(datetime.UTC).replace(microsecond=0))
    meta = {"name": made["metadata"]["name"], "namespace": made["metadata"]["namespace"]}
    change = {"metadata": meta, "status": built.to_dict()}
    await api.patch("rerankerengines", change, subresource="/status")


def _built(now: datetime.datetime) -> RerankerEngineStatus:
    steps = [condition(kind, True, Reason.DONE, "done") for kind in _STEPS]
    judgements = [*steps, summarise(steps, _STEPS)]
    return RerankerEngineStatus(
        observed_generation=1,
        conditions=tuple(merge((), judgements, 1, now)),
        stage="Ready",
        stages=(StageStatus(name="compile", seconds=60.0),),
        ready_time=now,
        parity=_PARITY,
        size_bytes=1_000_000_000,
    )


def _volume(space: str, claim: str) -> Iterator[tuple[str, Json]]:
    """The store's claim with a volume: without one no pod is scheduled."""
    size = {"storage": "20Gi"}
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    yield (
        "persistentvolumes",
        {
            "metadata": {"name": f"store-{space}"},
            "spec": spec | {"capacity": size, "hostPath": {"path": "/none"},
                            "claimRef": {"namespace": space, "name": claim}},
        },
    )  # fmt: skip
    yield (
        "persistentvolumeclaims",
        {
            "metadata": {"name": claim, "namespace": space, "labels": names.labels("store", claim)},
            "spec": spec | {"resources": {"requests": size}, "volumeName": f"store-{space}"},
        },
    )
