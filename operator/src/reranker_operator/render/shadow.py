"""What serving pods are told where scores of a new revision are compared on live requests."""

from collections.abc import Mapping
from typing import Any, Final

from reranker_operator import names
from reranker_operator.api.rollout import ShadowGate
from reranker_operator.api.v1alpha1 import RerankerService
from reranker_operator.render.pods import Json

_URL: Final = "SHADOW_URL"
#: A pod's own revision, which is a hash of this very template.
_REVISION: Final[Json] = {
    "name": "RERANKER_REVISION",
    "valueFrom": {
        "fieldRef": {
            "apiVersion": "v1",
            "fieldPath": f"metadata.labels['{names.REVISION_LABEL}']",
        }
    },
}


def gate_of(service: RerankerService) -> ShadowGate | None:
    """What is asked of the scores; None where they are not compared."""
    return service.spec.rollout.gates.shadow


def settings(service: RerankerService, port: int) -> dict[str, object]:
    """Of the gateway: where the other revision answers, and the share that goes there."""
    asked = gate_of(service)
    if asked is None:
        return {}
    preview = names.preview_service(service.metadata.name)
    url = f"{service.spec.serving.scheme}://{preview}:{port}"
    return {_URL: url, "SHADOW_PERCENT": asked.percent}


def variables(service: RerankerService) -> list[Json]:
    """What the gateway is told of its own pod, and by what it knows others of its service.

    The latter counts where there are no API keys.
    """
    if gate_of(service) is None:
        return []
    return [_REVISION, {"name": "RERANKER_SHADOW_IDENTITY", "value": service.metadata.uid}]


def takes_part(deployment: Mapping[str, Any]) -> bool:
    """The pods of a Deployment send requests to the revision on its way."""
    return any(
        entry["name"] == f"RERANKER_{_URL}"
        for container in deployment["spec"]["template"]["spec"]["containers"]
        if container["name"] == "gateway"
        for entry in container.get("env") or ()
    )
