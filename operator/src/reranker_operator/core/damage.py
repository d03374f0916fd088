"""Damaged files, as serving pods find them, and how soon the engine is built again.

Whether a pod speaks of the files as they are or as they were before the last build is told by which
pod it is, never by when it spoke: its node's clock is not ours. Pods that had not found the files
whole when they were published are noted; they start over if they complain, and those in their
place have seen the new files alone.
"""

import datetime

from reranker_contracts import StageReason
from reranker_contracts.targets import MEASURED_IN_PODS
from reranker_operator import names
from reranker_operator.api.v1alpha1 import Attempts, RerankerEngineStatus
from reranker_operator.core import backoff, diagnose
from reranker_operator.core.causes.pods import is_build
from reranker_operator.core.world import EngineWorld, Manifest

#: Damage so soon after a build continues a row, and every build of a row waits longer.
_SOON = datetime.timedelta(minutes=30)
#: Pods that are noted; one more would cost a build too many, should it complain.
_MOST_NOTED = 2000


def found(world: EngineWorld) -> str | None:
    """What a serving pod says is amiss with the files that were published last."""
    status = world.engine.status
    if status.ready_time is None:
        return None
    for pod in world.pods:
        complaint = diagnose.verify_failure(pod)
        if complaint is not None and not is_outdated(pod, status) and is_trusted(world, pod):
            return complaint
    return None


def is_outdated(pod: Manifest, status: RerankerEngineStatus) -> bool:
    """The pod may speak of the files as they were before the last build."""
    return _noted_as(pod) in status.outdated_pods


def outdated(world: EngineWorld) -> tuple[str, ...]:
    """What to note of the pods at the moment at which the files are published."""
    before, spec = world.engine.status, world.engine.spec
    # What these have measured is of the files before, however whole they found them.
    measure = spec.identity.runtime in MEASURED_IN_PODS
    pods = [
        pod
        for pod in world.pods
        if not is_build(pod)
        and (measure or is_outdated(pod, before) or not diagnose.is_verified(pod))
        and is_trusted(world, pod)
    ]
    # Those that complain first: the others may never do.
    pods.sort(key=lambda pod: (diagnose.verify_failure(pod) is None, pod["metadata"]["name"]))
    return tuple(sorted(_noted_as(pod) for pod in pods[:_MOST_NOTED]))


def _noted_as(pod: Manifest) -> str:
    return names.short_hash(pod["metadata"]["uid"])


def is_trusted(world: EngineWorld, pod: Manifest) -> bool:
    """A pod of a Deployment of the engine's owners: anybody can write our labels on a pod."""
    controllers = [
        owner for owner in pod["metadata"].get("ownerReferences", []) if owner.get("controller")
    ]
    if not controllers or controllers[0]["kind"] != "ReplicaSet":
        return False
    # A ReplicaSet's name is its Deployment's and a hash.
    deployment = controllers[0]["name"].rpartition("-")[0]
    return any(
        entry["metadata"]["name"] == deployment
        and any(
            owner["uid"] in world.owners for owner in entry["metadata"].get("ownerReferences", [])
        )
        for entry in world.deployments
    )


def record(
    complaint: str, status: RerankerEngineStatus, attempts: Attempts, now: datetime.datetime
) -> tuple[RerankerEngineStatus, Attempts]:
    """Status and attempts with this damage in them."""
    soon = status.ready_time is not None and now - status.ready_time <= _SOON
    row = status.damages + 1 if soon else 1
    text = f"{complaint}; building the engine again"
    if row > 1:
        text += f" after {backoff.delay_after(row):.0f} s, for the {row}. time in a row"
    return (
        status.model_copy(update={"damages": row}),
        backoff.failed(attempts, StageReason.CHECKSUM_MISMATCH.value, text, now),
    )


def seconds_until_retry(
    status: RerankerEngineStatus, attempts: Attempts, now: datetime.datetime
) -> float | None:
    """As backoff has it, damages in a row counting like failures in a row."""
    if attempts.failures:
        row = max(attempts.failures, status.damages)
        attempts = attempts.model_copy(update={"failures": row})
    return backoff.seconds_until_retry(attempts, now)
