"""Damaged files, as serving pods find them, and how soon the engine is built again."""

import datetime

from reranker_contracts import StageReason
from reranker_operator.api.v1alpha1 import Attempts, RerankerEngineStatus
from reranker_operator.core import backoff, diagnose
from reranker_operator.core.diagnose import Damage
from reranker_operator.core.world import EngineWorld, Manifest

#: Damage so soon after a build continues a row, and every build of a row waits longer.
_SOON = datetime.timedelta(minutes=30)


def found(world: EngineWorld) -> Damage | None:
    """What a serving pod complained of since the engine was last published."""
    published = world.engine.status.ready_time
    if published is None:
        return None
    for pod in world.pods:
        damage = diagnose.verify_failure(pod)
        if damage is not None and damage.seen_at > published and is_trusted(world, pod):
            return damage
    return None


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
    damage: Damage, status: RerankerEngineStatus, attempts: Attempts, now: datetime.datetime
) -> tuple[RerankerEngineStatus, Attempts]:
    """Status and attempts with this damage in them."""
    soon = status.ready_time is not None and damage.seen_at - status.ready_time <= _SOON
    row = status.damages + 1 if soon else 1
    text = f"{damage.message}; building the engine again"
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
