"""The status of one RerankerService, from what its steps found."""

from reranker_operator import names
from reranker_operator.api.conditions import (
    Condition,
    ConditionType,
    Reason,
    find,
    is_true,
    merge,
)
from reranker_operator.api.v1alpha1 import EngineSummary, RerankerServiceStatus
from reranker_operator.core.cold_start import cold_start
from reranker_operator.core.gpus import gpu_of
from reranker_operator.core.judge import Sight
from reranker_operator.core.progress import kept_engines
from reranker_operator.core.resolve import Resolution, lacks_source
from reranker_operator.core.revisions import (
    engine_of,
    in_traffic,
    is_shared,
    live_deployments,
    ready_of,
)
from reranker_operator.core.service_engine import EngineStep
from reranker_operator.core.world import ServiceWorld
from reranker_operator.render import engines as render
from reranker_operator.render import serving as serving_pods

#: What a rollout has come to, where that is more than that it goes on.
_TOLD = frozenset(
    {
        Reason.ABORTED, Reason.AWAITING_PROMOTION, Reason.GATE_FAILED, Reason.PROVING,
        Reason.ROLLED_BACK, Reason.UNDONE,
    }
)  # fmt: skip


def status_of(
    world: ServiceWorld,
    resolution: Resolution,
    engine: EngineStep,
    sight: Sight,
    *,
    judgements: list[Condition],
    outside: str | None,
) -> RerankerServiceStatus:
    """What is written to `status`."""
    service, meta, serving = world.service, world.service.metadata, sight.rollout.serving
    entry, reached = live_deployments(world).get(serving or ""), in_traffic(world, serving)
    ready = sum(map(ready_of, reached))
    selector = serving_pods.pod_selector(meta.name, None if is_shared(world) else serving)
    scheme = service.spec.serving.scheme
    inside = names.url(meta.name, meta.namespace, scheme) if world.k8s_service else None
    return RerankerServiceStatus(
        observed_generation=meta.generation,
        conditions=tuple(merge(service.status.conditions, judgements, meta.generation, world.now)),
        stage=_stage(resolution, engine, sight, judgements),
        model=resolution.model or resolution.outdated or service.status.model,
        gpu=gpu_of(world),
        resolve=resolution.attempts,
        engine=engine_of(entry) or engine.name,
        engines=_summaries(world, engine),
        revision=serving,
        history=sight.progress.history,
        rollout=sight.progress.under_way,
        failed=sight.progress.failed,
        spec_hash=serving_pods.spec_hash(service),
        pending_changes=sight.changes,
        scale=sight.scale,
        autoscaling=service.status.autoscaling if service.spec.autoscaling else None,
        cold_start=cold_start(world, serving),
        replicas=sum(entry.get("status", {}).get("replicas", 0) for entry in reached),
        ready_replicas=ready,
        ready=f"{ready}/{sight.scale.replicas}",
        selector=",".join(f"{key}={value}" for key, value in selector.items()),
        url=outside or inside,
        cluster_url=inside,
    )


def used_engines(world: ServiceWorld, engine: EngineStep) -> set[str | None]:
    """Names of the engines that run, are wanted or tell why another one is."""
    running = {engine_of(entry) for entry in live_deployments(world).values()}
    running |= kept_engines(world)
    if engine.name is not None:
        return running | {engine.name, *engine.passed_over}
    # The same source will hardly become another engine, only because it is resolved again for
    # another secret or a newer builder: its build goes on, unless its files are gone.
    source = world.service.spec.model.source
    return running | {
        entry.metadata.name
        for entry in world.engines
        if entry.spec.source.source == source and not lacks_source(entry)
    }


def _stage(
    resolution: Resolution, engine: EngineStep, sight: Sight, judgements: list[Condition]
) -> str:
    """One word for the table that `kubectl get` prints: the step that is under way."""
    accepted = [entry for entry in judgements if entry.type == ConditionType.ACCEPTED]
    steps = (*accepted, resolution.judgement, engine.judgement)
    for entry in steps:
        if entry.status == "False":
            return entry.reason
    if sight.held_back:
        return Reason.PAUSED.value
    if not is_true(steps, ConditionType.MODEL_RESOLVED):
        return "Resolving"
    if not is_true(steps, ConditionType.ENGINE_READY):
        return (engine.engine.status.stage if engine.engine else None) or "Pending"
    return _serving_stage(sight, judgements)


def _serving_stage(sight: Sight, judgements: list[Condition]) -> str:
    progressing = find(judgements, ConditionType.PROGRESSING)
    if progressing is not None and progressing.reason in _TOLD:
        return progressing.reason
    if sight.rollout.rolling and sight.rollout.serving is not None:
        return "Rolling"
    serving = find(judgements, ConditionType.SERVING)
    if serving is not None and (serving.status != "True" or serving.reason != Reason.AVAILABLE):
        return serving.reason
    return "Serving"


def _summaries(world: ServiceWorld, engine: EngineStep) -> tuple[EngineSummary, ...]:
    # Only those whose changes this service will hear of: not the ones it releases now, nor one
    # that still runs here but was made anew for somebody else.
    uid, used = world.service.metadata.uid, used_engines(world, engine)
    running = {engine_of(entry) for entry in live_deployments(world).values()}
    kept = kept_engines(world) - running - {engine.name}
    rows = []
    for entry in sorted(world.engines, key=lambda item: item.metadata.name):
        name = entry.metadata.name
        owned = uid in world.engine_owners.get(name, frozenset())
        if name not in used or not (owned or name == engine.name):
            continue
        ready = is_true(entry.status.conditions, ConditionType.READY)
        seconds = sum(stage.seconds for stage in entry.status.stages)
        rows.append(
            EngineSummary(
                name=name,
                target=render.target_of(entry.spec.identity),
                state=_state(
                    ready,
                    passed_over=name in engine.passed_over,
                    kept=name in kept,
                ),
                stage=entry.status.stage,
                size_bytes=entry.status.size_bytes,
                parity=entry.status.parity,
                seconds=round(seconds, 1) if entry.status.stages else None,
            )
        )
    return tuple(rows)


def _state(ready: bool, *, passed_over: bool, kept: bool) -> str:
    if passed_over:
        return "PassedOver"
    if ready and kept:
        return "Kept"
    return "Ready" if ready else "Building"
