"""Small objects to decide about."""

import datetime

import pytest
from support.identities import TOOLCHAIN

from reranker_contracts import (
    EngineIdentity,
    PrepareIdentity,
    digest_of,
)
from reranker_operator.api.v1alpha1 import RerankerEngine, RerankerService
from reranker_operator.render.defaults import Defaults

NOW = datetime.datetime(2026, 1, 5, 12, 0, tzinfo=datetime.UTC)


@pytest.fixture
def now() -> datetime.datetime:
    return NOW


@pytest.fixture
def defaults() -> Defaults:
    return Defaults(
        "builder:1", "gateway:1", "triton:1", "triton:1-gpu", image_pull_secrets=("registry",)
    )


@pytest.fixture
def service() -> RerankerService:
    """With every optional part of the spec in use."""
    return RerankerService.model_validate(
        {
            "metadata": {"name": "rank", "namespace": "shop", "uid": "uid-1"},
            "spec": {
                "model": {
                    "source": "hf://org/tiny",
                    "revision": "$(HF_TOKEN)",
                    "secretRef": {"name": "hub", "key": "token"},
                    "servedName": "$(HOME)",
                    "aliases": ["a", "b"],
                },
                "engine": {"maxLength": 256, "resources": {"limits": {"memory": "2Gi"}}},
                "accelerator": {
                    "type": "nvidia",
                    "nodeSelector": {"gpu": "yes"},
                    "tolerations": [{"key": "gpu", "operator": "Exists"}],
                },
                "serving": {"tokenBudget": 4096, "triton": {"image": "mine:1"}},
            },
        }
    )


@pytest.fixture
def engine() -> RerankerEngine:
    toolchain = TOOLCHAIN
    prepare = PrepareIdentity(revision="0123abcd", toolchain=toolchain)
    identity = EngineIdentity(
        prepared=digest_of(prepare),
        runtime="onnxruntime",
        precision="fp32",
        accelerator="cpu",
        max_batch_size=64,
        version="1.31",
        recipe=1,
    )
    return RerankerEngine.model_validate(
        {
            "metadata": {
                "name": "tiny-onnx-cpu-fp32-0123456789",
                "namespace": "shop",
                "uid": "uid-2",
            },
            "spec": {
                "digest": digest_of(identity),
                "modelName": "tiny",
                "source": {"source": "hf://org/tiny", "secretRef": {"name": "hub"}},
                "prepare": prepare,
                "identity": identity,
                "build": {"image": "builder:1"},
                "store": {},
            },
        }
    )
