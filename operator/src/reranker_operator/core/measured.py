"""Engines that were built without their GPU, as the pods that serve them have measured them."""

from collections.abc import Iterator
from dataclasses import replace

from reranker_contracts import ParityReport, StageReason
from reranker_contracts.targets import MEASURED_IN_PODS
from reranker_operator.api.conditions import ConditionType, condition, find
from reranker_operator.core import diagnose
from reranker_operator.core.damage import is_outdated, is_trusted
from reranker_operator.core.diagnose import Measured
from reranker_operator.core.engine_progress import Progress, validated
from reranker_operator.core.world import EngineWorld


def take_over(world: EngineWorld, progress: Progress) -> Progress:
    """Keep the worst that a pod has found since the engine was published.

    GPUs of one compute capability may round differently, and it serves on all of them.
    """
    said = find(progress.judgements, ConditionType.VALIDATED)
    if said is None or said.status == "False":
        return progress
    for found in _found(world, progress):
        if found.parity is None:
            kind, reason = ConditionType.VALIDATED, StageReason.VALIDATION_FAILED
            return progress.judged(condition(kind, False, reason, found.message))
        before = progress.status.parity
        if before is None or _rank(found.parity) < _rank(before):
            status = progress.status.model_copy(update={"parity": found.parity})
            progress = replace(progress, status=status).judged(validated(found.parity))
    return progress


def _found(world: EngineWorld, progress: Progress) -> Iterator[Measured]:
    status = progress.status
    if status.ready_time is None or world.engine.spec.identity.runtime not in MEASURED_IN_PODS:
        return
    for pod in world.pods:
        found = diagnose.measured(pod)
        if found is not None and not is_outdated(pod, status) and is_trusted(world, pod):
            yield found


def _rank(report: ParityReport) -> tuple[float, float]:
    return report.kendall_tau, -report.ndcg10_delta
