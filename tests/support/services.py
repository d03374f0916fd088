"""RerankerServices as a user handles them: apply, look at conditions, ask."""

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from support.kubectl import Json, Kubectl, eventually

#: A build on two busy cores; far above what it takes, far below a hang.
BUILD_SECONDS = 300


def source(model: str) -> str:
    """The oci:// source of one of the test models."""
    return f"oci://localhost/reranker-operator/test-{model}:v1"


class Services:
    """The services of one namespace."""

    def __init__(self, kubectl: Kubectl) -> None:
        self.kubectl = kubectl

    def apply(self, name: str, spec: Json) -> None:
        """Create or change; in FP32 unless told otherwise, so that all CPUs build the same."""
        engine = {"precision": "fp32"} | spec.get("engine", {})
        self.kubectl.apply(
            {
                "apiVersion": "reranker.dev/v1alpha1",
                "kind": "RerankerService",
                "metadata": {"name": name},
                "spec": spec | {"engine": engine},
            }
        )

    def condition(self, name: str, kind: str) -> Json:
        """A condition as last observed; empty while there is none for the present spec."""
        service = self.kubectl.get("rr", name)
        status = service.get("status", {})
        if status.get("observedGeneration") != service["metadata"]["generation"]:
            return {}
        return next((c for c in status.get("conditions", []) if c["type"] == kind), {})

    def wait_for(self, name: str, kind: str, reason: str, within: float = 60) -> Json:
        """Until this condition has this reason."""

        def told() -> Json:
            now = self.condition(name, kind)
            return now if now.get("reason") == reason else {}

        return eventually(
            told,
            within=within,
            describe=lambda: f"{kind}/{reason}; now {self.condition(name, kind)}",
        )

    def wait_ready(self, name: str, within: float = BUILD_SECONDS) -> Json:
        """Until Ready is True for the newest spec; returns the object."""
        eventually(
            lambda: self.condition(name, "Ready").get("status") == "True",
            within=within,
            describe=lambda: str(self.kubectl.get("rr", name).get("status")),
        )
        return self.kubectl.get("rr", name)

    def base_url(self, name: str) -> str:
        """Where the Service is reached from this machine."""
        address = self.kubectl.get("service", name)["spec"]["clusterIP"]
        return f"http://{address}:8000"

    def rank(self, name: str, query: str, texts: Sequence[str], **more: Any) -> Json:
        """POST /v1/ranking. Raises urllib.error.HTTPError."""
        return post(
            f"{self.base_url(name)}/v1/ranking",
            {
                "model": self.kubectl.get("rr", name)["status"]["model"]["name"],
                "query": {"text": query},
                "passages": [{"text": text} for text in texts],
            }
            | more,
        )


def post(url: str, body: Json) -> Json:
    """JSON in, JSON out."""
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        result: Json = json.load(answer)
        return result


def order(answer: Json) -> list[int]:
    """Passage indices from best to worst."""
    return [row["index"] for row in answer["rankings"]]


def error_of(error: urllib.error.HTTPError) -> Json:
    """The body of a refused request."""
    with error:
        result: Json = json.load(error)
        return result
