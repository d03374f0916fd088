"""Specs that the API server can't judge: each gets a condition with its own reason and remedy."""

from typing import Any

import pytest
from support.services import Services, source

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("name", "spec", "kind", "reason", "remedy"),
    [
        (
            "scheme",
            {"model": {"source": "ftp://host/model"}},
            "Accepted",
            "UnknownSource",
            "hf://ORG/NAME",
        ),
        (
            "secret",
            {"model": {"source": "hf://org/model", "secretRef": {"name": "nowhere"}}},
            "ModelResolved",
            "SecretNotFound",
            "create the Secret",
        ),
        (
            "embedding",
            {"model": {"source": source("embedding")}},
            "ModelResolved",
            "NotACrossEncoder",
            "",
        ),
        (
            "too-long",
            {"model": {"source": source("first")}, "engine": {"maxLength": 100_000}},
            "ModelResolved",
            "MaxLengthTooLong",
            "256",
        ),
        (
            "no-node",
            {"model": {"source": source("first")}, "accelerator": {"type": "nvidia"}},
            "Serving",
            "NoMatchingNode",
            "nvidia.com/gpu",
        ),
        (
            "no-image",
            {"model": {"source": "oci://localhost/reranker-operator/nothing:v1"}},
            "ModelResolved",
            "ImagePullFailed",
            "check the name",
        ),
    ],
)
def test_bad_spec(
    services: Services, name: str, spec: dict[str, Any], kind: str, reason: str, remedy: str
) -> None:
    services.apply(name, spec)
    told = services.wait_for(name, kind, reason)
    assert told["status"] == "False"
    assert remedy in told["message"]
    assert services.condition(name, "Ready")["status"] == "False"
