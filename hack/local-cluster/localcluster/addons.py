"""What runs as pods in every cluster: the DNS and the default StorageClass."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from localcluster import config, files, system_images
from localcluster.addressing import Addresses
from localcluster.api import Api, condition
from localcluster.errors import ClusterError

_LABEL = "local-cluster/addon"
_DIGEST = "local-cluster/manifests"
_ADDONS = ("dns", "storage")


@dataclass(frozen=True)
class AddonStatus:
    """One addon as the API server sees it."""

    name: str
    ready: bool


@dataclass(frozen=True)
class Manifests:
    """All addons' manifests, and the digest that is written into them."""

    text: str
    digest: str


def render(addresses: Addresses, images: Path, authority: bytes) -> Manifests:
    """Fill in the manifests; a new program, configuration or CA makes new pods."""
    values = {
        "dns_service": addresses.dns_service,
        "busybox_image": system_images.BUSYBOX,
        "coredns_image": system_images.COREDNS,
        "provisioner_image": system_images.LOCAL_PATH_PROVISIONER,
    }

    def fill(digest: str) -> str:
        templates = ("coredns.yaml", "local-path.yaml")
        filled = (config.render(name, {**values, "manifests": digest}) for name in templates)
        return "\n---\n".join(filled)

    built = [files.read_json(images / f"{image.program}.json") for image in system_images.IMAGES]
    digest = hashlib.sha256(f"{fill('')}{built}".encode() + authority).hexdigest()[:16]
    return Manifests(fill(digest), digest)


def status(api: Api, manifests: Manifests, node_started: datetime) -> list[AddonStatus]:
    """Return the state of every addon; one that is missing is not ready."""
    running = {
        pod["metadata"]["labels"][_LABEL]
        for pod in api.pods(_LABEL)
        if _is_ready(pod, manifests.digest, node_started)
    }
    return [AddonStatus(name, name in running) for name in _ADDONS]


def are_ready(api: Api, manifests: Manifests, node_started: datetime) -> bool:
    """Tell whether every addon runs in its current form."""
    try:
        return all(addon.ready for addon in status(api, manifests, node_started))
    except ClusterError:
        return False


def _is_ready(pod: dict[str, Any], digest: str, node_started: datetime) -> bool:
    """Tell whether a pod of today's manifests serves.

    After a crash the API server still tells of the time before: only what has
    been started in these namespaces counts.
    """
    metadata = pod["metadata"]
    if "deletionTimestamp" in metadata or metadata["annotations"].get(_DIGEST) != digest:
        return False
    status = pod.get("status", {})
    containers = status.get("containerStatuses", [])
    starts = [container["state"].get("running", {}).get("startedAt") for container in containers]
    return condition(status.get("conditions", []), "Ready") == "True" and all(
        start is not None and datetime.fromisoformat(start) >= node_started for start in starts
    )


def explain(api: Api) -> str:
    """Say in what state the addons' pods are, for an error message."""
    try:
        pods = api.pods(_LABEL)
    except ClusterError as error:
        return str(error)
    return "".join(f"\n    {_describe(pod)}" for pod in pods) or "no pod was made"


def _describe(pod: dict[str, Any]) -> str:
    status = pod.get("status", {})
    states = [container["state"] for container in status.get("containerStatuses", [])]
    waiting = [state["waiting"] for state in states if "waiting" in state]
    problems = [entry.get("message") or entry.get("reason", "") for entry in waiting]
    return f"pod {pod['metadata']['name']}: {status.get('phase')} {' '.join(problems)}".rstrip()
