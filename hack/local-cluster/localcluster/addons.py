"""What runs as pods in every cluster: the DNS and the default StorageClass."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from localcluster import config, files, system_images
from localcluster.addressing import Addresses
from localcluster.api import Api
from localcluster.errors import ClusterError

_LABEL = "local-cluster/addon"
_HASH = "local-cluster/manifests"
_DEPLOYMENTS = frozenset({"coredns", "local-path-provisioner"})


@dataclass(frozen=True)
class AddonStatus:
    """One addon as the API server sees it."""

    name: str
    available: bool
    current: bool
    """Whether it was made from today's manifests."""


@dataclass(frozen=True)
class Manifests:
    """All addons' manifests, and the digest that is written into them."""

    text: str
    digest: str


def render(addresses: Addresses, images: Path) -> Manifests:
    """Fill in the manifests; a new program or configuration makes new pods."""
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
    digest = hashlib.sha256(f"{fill('')}{built}".encode()).hexdigest()[:16]
    return Manifests(fill(digest), digest)


def status(api: Api, manifests: Manifests) -> list[AddonStatus]:
    """Return the state of every addon; one that is missing is not available."""
    listed = api.get("deployments", "--all-namespaces", f"--selector={_LABEL}")
    found = {item["metadata"]["name"]: item for item in listed.get("items", [])}
    states = []
    for name in sorted(_DEPLOYMENTS):
        item = found.get(name, {})
        meta, observed = item.get("metadata", {}), item.get("status", {})
        available = (
            observed.get("observedGeneration") == meta.get("generation", 0)
            and observed.get("updatedReplicas", 0) >= 1
            and observed.get("availableReplicas", 0) >= 1
            and not observed.get("unavailableReplicas", 0)
        )
        current = meta.get("annotations", {}).get(_HASH) == manifests.digest
        states.append(AddonStatus(name, available, current))
    return states


def are_ready(api: Api, manifests: Manifests) -> bool:
    """Tell whether every addon runs in its current form."""
    try:
        return all(addon.available and addon.current for addon in status(api, manifests))
    except ClusterError:
        return False


def explain(api: Api) -> str:
    """Say what keeps the addons from running: the pods that are not ready, and their events."""
    try:
        return "pods:\n" + api.kubectl(
            *("get", "pods", "--all-namespaces", f"--selector={_LABEL}", "--output=wide")
        )
    except ClusterError as error:
        return str(error)
