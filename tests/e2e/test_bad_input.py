"""Specs that the API server can't judge: each gets a condition with its own reason and remedy."""

import urllib.error
from typing import Any

import pytest
from support.services import Services, error_of, source

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


#: name: spec, condition, its reason, words of the remedy
CASES: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "scheme": (
        {"model": {"source": "hf://org/name/extra"}},
        "Accepted",
        "UnknownSource",
        "hf://ORG/NAME",
    ),
    "secret": (
        {"model": {"source": "hf://org/model", "secretRef": {"name": "nowhere"}}},
        "ModelResolved",
        "SecretNotFound",
        "create the Secret",
    ),
    "embedding": (
        {"model": {"source": source("embedding")}},
        "ModelResolved",
        "EmbeddingModel",
        "BertModel",
    ),
    "too-long": (
        {"model": {"source": source("first")}, "engine": {"maxLength": 100_000}},
        "ModelResolved",
        "MaxLengthTooLong",
        "256",
    ),
    "no-node": (
        {"model": {"source": source("first")}, "accelerator": {"type": "nvidia"}},
        "Serving",
        "NoMatchingNode",
        "nvidia.com/gpu",
    ),
    "no-image": (
        {"model": {"source": "oci://localhost/reranker-operator/nothing:v1"}},
        "ModelResolved",
        "RegistryUnreachable",
        "way to the registry",
    ),
}


def test_bad_specs_are_told_with_reason_and_remedy(services: Services) -> None:
    for name, (spec, *_) in CASES.items():
        services.apply(name, spec)
    for name, (_, kind, reason, remedy) in CASES.items():
        told = services.wait_for(name, kind, reason)
        assert told["status"] == "False"
        assert remedy in told["message"]
        assert services.condition(name, "Ready")["status"] == "False"


def test_bad_requests_are_refused_in_the_nim_way(services: Services) -> None:
    services.apply("strict", {"model": {"source": source("first")}})
    services.wait_ready("strict")
    for more, code, words in (
        ({"top_k": 3}, 422, "top_k"),
        ({"passages": []}, 422, "passages"),
        ({"model": "other"}, 404, "other"),
        ({"passages": [{"text": "long " * 300}]}, 422, "exceeds maximum allowed token size 256"),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            services.rank("strict", "query", ["passage"], **more)
        assert refused.value.code == code
        body = error_of(refused.value)
        assert words in body["message"]
        assert body["detail"] is not None
