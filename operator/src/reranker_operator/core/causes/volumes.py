"""Volumes that do not come: claims that are missing, lost, unbound, elsewhere or in use."""

import re
from collections.abc import Iterable

from reranker_operator import names
from reranker_operator.api.conditions import Reason
from reranker_operator.core.causes.finding import Finding, clue, finding, recognise
from reranker_operator.core.causes.pods import about, claims_of
from reranker_operator.core.wording import quote
from reranker_operator.core.world import Manifest

_MISSING = re.compile(r'persistentvolumeclaim "([^"]+)" not found')
_LEAVING = re.compile(r'persistentvolumeclaim "([^"]+)" is being deleted')
_LOST = re.compile(r'persistentvolumeclaim "([^"]+)" bound to non-existent')
_NO_CLASS = re.compile(r'storageclass\S* "[^"]+" not found')
_REACHABLE = "with a class that has it (accessMode ReadWriteMany)"
_PLACES = (
    clue(
        "Multi-Attach error|ReadWriteOncePod access mode already in-use",
        Reason.VOLUME_IN_USE,
        f"wait for the other pod to end, or set spec.engine.store {_REACHABLE}",
    ),
    clue(
        "didn't match persistentvolume's node affinity|volume node affinity conflict|"
        "no available volume zone",
        Reason.VOLUME_ON_OTHER_NODE,
        f"make room on a node that reaches the volume, or set spec.engine.store {_REACHABLE}",
    ),
)
_MOUNTS = (
    _PLACES[0],
    clue(
        'secret "[^"]+" not found|references non-existent secret key',
        Reason.SECRET_NOT_FOUND,
        "create the Secret, or correct it in {fields}",
    ),
    clue(
        'configmap "[^"]+" not found|references non-existent config key',
        Reason.CONFIG_MAP_NOT_FOUND,
        "create the ConfigMap, or correct it in {fields}",
    ),
    clue("", Reason.MOUNT_FAILED, "check the storage behind it and the node's driver"),
)


def unbindable(
    pod: Manifest, text: str, claims: Iterable[Manifest], events: Iterable[Manifest]
) -> Finding | None:
    """The scheduler's words on the pod's volumes, explained by the claims themselves."""
    lower = text.lower()
    if "volume" not in lower and "non-existent pv" not in lower:
        return None
    if found := _MISSING.search(text):
        return _missing(pod, found[1])
    if found := _LEAVING.search(text):
        what = f"PersistentVolumeClaim {found[1]} is being deleted"
        remedy = "wait until the pods that still use it have ended, or delete them"
        return finding(Reason.VOLUME_PENDING, what, remedy)
    if found := _LOST.search(text):
        return _lost(found[1])
    placed = recognise(_PLACES, text, f"the volume can't be had: {quote(text)}")
    return (
        placed
        or _unbound(pod, claims, list(events))
        or finding(Reason.VOLUME_PENDING, quote(text), "check the claim and spec.engine.store")
    )


def unmountable(text: str, fields: str) -> Finding | None:
    """The kubelet's Event about a volume that it can't attach or mount, named in `fields`."""
    return recognise(_MOUNTS, text, f"a volume can't be mounted: {quote(text)}", fields=fields)


def _unbound(pod: Manifest, claims: Iterable[Manifest], events: list[Manifest]) -> Finding | None:
    by_name = {claim["metadata"]["name"]: claim for claim in claims}
    for _, name in claims_of(pod):
        claim = by_name.get(name, {})
        phase = claim.get("status", {}).get("phase")
        if phase == "Lost":
            return _lost(name)
        if phase == "Pending":
            return _pending(claim, about(claim, events))
    return None


def _pending(claim: Manifest, events: list[Manifest]) -> Finding:
    spec, what = claim.get("spec", {}), f"PersistentVolumeClaim {claim['metadata']['name']}"
    wanted, told = spec.get("storageClassName"), {e.get("reason"): e for e in reversed(events)}
    failed = quote(told.get("ProvisioningFailed", {}).get("message"))
    if _NO_CLASS.search(failed):
        return finding(
            Reason.STORAGE_CLASS_NOT_FOUND,
            f"{what} asks for StorageClass {wanted}, which does not exist",
            "create the class, or correct spec.engine.store.storageClassName and delete the claim",
        )
    if failed:
        remedy = "see to the provisioner, or set spec.engine.store.storageClassName"
        return finding(Reason.PROVISIONING_FAILED, f"{what} gets no volume: {failed}", remedy)
    if not wanted and not spec.get("volumeName"):
        return finding(
            Reason.STORAGE_CLASS_NOT_FOUND,
            f"{what} names no StorageClass and the cluster has no default one",
            "make a class the default, or set spec.engine.store.storageClassName",
        )
    text, remedy = f"{what} is not bound to a volume", f"check StorageClass {wanted}"
    if "ExternalProvisioning" in told:
        text = f"{what} waits for the provisioner of StorageClass {wanted}"
        remedy = "see that it runs"
    return finding(Reason.VOLUME_PENDING, text, f"{remedy}, or change spec.engine.store")


def _missing(pod: Manifest, claim: str) -> Finding:
    field = _field(pod, claim)
    if claim.startswith(names.STORE_CLAIM):
        remedy = f"the operator makes it again; if it does not, see its log, or set {field}"
        return finding(
            Reason.CLAIM_NOT_FOUND, f"PersistentVolumeClaim {claim} is not there", remedy
        )
    return finding(
        Reason.CLAIM_NOT_FOUND,
        f"PersistentVolumeClaim {claim} is not there",
        f"create it, or correct {field}",
    )


def _lost(claim: str) -> Finding:
    return finding(
        Reason.CLAIM_LOST,
        f"PersistentVolumeClaim {claim} has lost its volume, and what was on it",
        "delete the claim, and engines are built again on a new one",
    )


def _field(pod: Manifest, claim: str) -> str:
    """Where the spec names a claim."""
    volume = next((volume for volume, name in claims_of(pod) if name == claim), "store")
    if volume == "source":
        return "spec.model.source"
    if volume in ("store", "engine"):
        return "spec.engine.store.existingClaim"
    return "spec.serving.pod.volumes"
