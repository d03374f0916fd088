"""Revisions as they are found in the cluster: their Deployments, their pods, which one serves.

A revision is the hash of what runs, in the labels of its Deployment and its pods.
"""

from collections.abc import Mapping

from reranker_operator import names
from reranker_operator.api.meta import SERVICE
from reranker_operator.core.causes.pods import has_ended
from reranker_operator.core.split import Held
from reranker_operator.core.world import Manifest, ServiceWorld, is_leaving, owners_of, title_of
from reranker_operator.render import activator
from reranker_operator.render import serving as render


def revision_of(manifest: Manifest) -> str | None:
    """The revision in an object's labels."""
    value = manifest["metadata"].get("labels", {}).get(names.REVISION_LABEL)
    return None if value is None else str(value)


def engine_of(deployment: Manifest | None) -> str | None:
    """Name of the engine that a Deployment's pods serve."""
    return deployment["metadata"]["labels"].get(names.ENGINE_LABEL) if deployment else None


def pods_of(world: ServiceWorld, revision: str | None) -> list[Manifest]:
    """The pods of one revision."""
    return [pod for pod in world.pods if revision is not None and revision_of(pod) == revision]


def live_deployments(world: ServiceWorld) -> dict[str, Manifest]:
    """Deployments by revision, those being deleted left out."""
    return {
        revision: entry
        for entry in world.deployments
        if (revision := revision_of(entry)) and not is_leaving(entry)
    }


def asked_of(deployment: Manifest | None) -> int:
    """The number of pods that a Deployment should have."""
    return int(deployment["spec"].get("replicas", 1)) if deployment else 0


def ready_of(deployment: Manifest | None) -> int:
    """The number of its pods that are ready."""
    return int(deployment.get("status", {}).get("readyReplicas", 0)) if deployment else 0


def is_activators(address: Manifest | None) -> bool:
    """A Service leads to the activator."""
    selector = (address or {}).get("spec", {}).get("selector") or {}
    return bool(selector.get(names.APP_COMPONENT) == activator.COMPONENT)


def led_to(world: ServiceWorld) -> Mapping[str, str]:
    """Labels of the pods that the address leads to, be it by way of the activator."""
    address, name = world.k8s_service, names.pods_service(world.service.metadata.name)
    if is_activators(address):
        behind = (
            entry
            for entry in world.companions
            if title_of(entry) == (SERVICE.kind, name)
            and world.service.metadata.uid in owners_of(entry)
        )
        address = next(behind, None)
    selector: Mapping[str, str] = (address or {}).get("spec", {}).get("selector") or {}
    return selector


def is_shared(world: ServiceWorld) -> bool:
    """The address leads to all revisions: one hands over to another, pod by pod."""
    selector = led_to(world)
    return bool(selector == render.pod_selector(world.service.metadata.name, None))


def serving_revision(world: ServiceWorld) -> str | None:
    """The revision that the Service selects, if its Deployment is there.

    When somebody deleted or changed the Service, or it leads to all revisions, it is the one that
    was seen to serve last: its pods still run, and the next revision may be far from ready.
    """
    selector, live = led_to(world), live_deployments(world)
    for revision in (selector.get(names.REVISION_LABEL), world.service.status.revision):
        if revision in live:
            return str(revision)
    if is_shared(world):
        return min(live, key=lambda name: _age(live[name]), default=None)
    return None


def in_traffic(world: ServiceWorld, serving: str | None) -> list[Manifest]:
    """The Deployments whose pods the address leads to."""
    live = live_deployments(world)
    if is_shared(world):
        return list(live.values())
    return [live[serving]] if serving in live else []


def running_of(world: ServiceWorld) -> int:
    """What makes up the service's number of pods now.

    Where one revision stands beside another that is complete, the pods of the other come on top of
    it, and must not be counted into it.
    """
    serving = serving_revision(world)
    if world.service.spec.rollout.strategy == "noSurge":
        return sum(map(asked_of, in_traffic(world, serving)))
    return asked_of(live_deployments(world).get(serving or ""))


def carries_out_spec(world: ServiceWorld) -> bool:
    """What serves was made from this very spec: only the operator or the source has changed."""
    entry = live_deployments(world).get(serving_revision(world) or "")
    annotations = entry["metadata"].get("annotations", {}) if entry else {}
    return bool(annotations.get(names.SPEC_HASH) == render.spec_hash(world.service))


def available_of(deployment: Manifest | None) -> int:
    """The number of its pods that have been ready for as long as is asked for."""
    return int(deployment.get("status", {}).get("availableReplicas", 0)) if deployment else 0


def is_available(deployment: Manifest, total: int) -> bool:
    """All pods that the service should have are ready ones of this Deployment."""
    return asked_of(deployment) == total and has_all(deployment)


def has_all(deployment: Manifest) -> bool:
    """All pods that it was given are ready, by what its controller observed last."""
    status = deployment.get("status", {})
    seen = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 1)
    return bool(seen and status.get("availableReplicas", 0) >= asked_of(deployment))


def held_by(world: ServiceWorld, live: Mapping[str, Manifest], revisions: set[str]) -> Held:
    """What these revisions were given, and what they have beyond it: a pod that is going holds
    its GPU until it is gone.
    """
    asked = going = 0
    for revision in revisions:
        given = asked_of(live.get(revision))
        pods = [is_leaving(pod) for pod in pods_of(world, revision) if not has_ended(pod)]
        asked += given
        going += sum(pods) + max(0, len(pods) - sum(pods) - given)
    return Held(asked, going)


def _age(deployment: Manifest) -> tuple[str, str]:
    meta = deployment["metadata"]
    return str(meta.get("creationTimestamp", "")), str(meta["name"])
