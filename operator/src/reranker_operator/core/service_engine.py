"""Step 3 of a service: the engine that it needs, shared with every other service that needs it."""

from dataclasses import dataclass, replace
from typing import Any

from reranker_contracts import EngineIdentity, Runtimes, StageReason, digest_of
from reranker_contracts.stages import OF_THE_TARGET
from reranker_contracts.targets import COMPILED, MEASURED_IN_PODS, PRECISIONS, builds_for
from reranker_operator import names
from reranker_operator.api.conditions import Condition, ConditionType, Reason, condition, find
from reranker_operator.api.engine import AcceleratorSpec
from reranker_operator.api.meta import API_VERSION, RERANKER_ENGINE
from reranker_operator.api.v1alpha1 import RerankerEngine, RerankerServiceStatus
from reranker_operator.core import gpus, references
from reranker_operator.core.plan import Action, Apply, Create, Patch
from reranker_operator.core.resolve import Resolution
from reranker_operator.core.revisions import engine_of, live_deployments
from reranker_operator.core.wording import advise
from reranker_operator.core.world import ServiceWorld
from reranker_operator.render import engines as render
from reranker_operator.render.pods import store_claim_name

#: Characters of a condition's message that the API server takes.
_LONGEST = 4096
_PULLED, _PUSHED = ConditionType.PULLED, ConditionType.PUSHED


@dataclass(frozen=True)
class EngineStep:
    """`engine` is None before it was made, `name` before the model is resolved.

    `planned` is the engine as this service asks for it, made or not. While the service is paused
    nothing new is built: `name` is None then, too. `passed_over` are engines for faster targets
    that turned out not to be for this service; it goes on to own them, because they are what says
    so.
    """

    judgement: Condition
    engine: RerankerEngine | None = None
    name: str | None = None
    planned: RerankerEngine | None = None
    passed_over: tuple[str, ...] = ()
    actions: tuple[Action, ...] = ()


def waiting_for_model() -> Condition:
    """`EngineReady` before anything is known of the engine."""
    text = "waits for the model to be resolved"
    return condition(ConditionType.ENGINE_READY, "Unknown", Reason.WAITING_FOR_MODEL, text)


def engine_step(world: ServiceWorld, resolution: Resolution) -> EngineStep:
    """Ask for the engine and own it; judge how far it is."""
    if resolution.model is None:
        return EngineStep(waiting_for_model())
    status = RerankerServiceStatus(model=resolution.model, gpu=gpus.gpu_of(world))
    targets = render.identities(world.service, status)
    if not targets:
        return EngineStep(_no_target(world, resolution.model.runtimes))
    left_out = _left_out(world, resolution.model.runtimes)
    refusals: dict[str, str] = {}
    kept: list[Action] = []
    for identity in targets:
        name = render.engine_name(world.service, status, identity)
        engine = next((entry for entry in world.engines if entry.metadata.name == name), None)
        if engine is not None and not _is_for(world, engine, identity):
            return replace(_taken(world, status, identity, engine), actions=tuple(kept))
        refusal = _refusal(world, engine)
        if refusal is None or identity == targets[-1]:
            step = _ask_for(world, status, identity, name, engine)
            return replace(
                step,
                judgement=_with_refusals(step.judgement, [*left_out, *refusals.values()]),
                passed_over=tuple(refusals),
                actions=(*kept, *step.actions),
            )
        refusals[name] = refusal
        # Other settings, or a GPU with more memory, may make it one for this service after all.
        kept += _ask_for(world, status, identity, name, engine).actions
    raise AssertionError("the last target is always asked for")


def _is_for(world: ServiceWorld, engine: RerankerEngine, identity: EngineIdentity) -> bool:
    """The engine of this name is the one that is meant, which the name alone does not say."""
    spec, digest = engine.spec, digest_of(identity)
    return (
        (spec.digest, spec.identity) == (digest, identity)
        and digest_of(spec.prepare) == identity.prepared
        and store_claim_name(spec.store) == store_claim_name(world.service.spec.engine.store)
    )


def _taken(
    world: ServiceWorld,
    status: RerankerServiceStatus,
    identity: EngineIdentity,
    engine: RerankerEngine,
) -> EngineStep:
    """Whoever made it: neither its files nor its word are taken for the ones asked for."""
    name = engine.metadata.name
    text = advise(
        f"RerankerEngine {name} exists and is not what its name says: it was made from something "
        "else, or for another store",
        f"delete it (kubectl delete rre {name}), and see who may create RerankerEngines",
    )
    judgement = condition(ConditionType.ENGINE_READY, False, Reason.FOREIGN_OWNER, text)
    manifest = render.engine(world.service, status, identity, world.defaults)
    return EngineStep(judgement, planned=_planned(manifest))


def _left_out(world: ServiceWorld, runtimes: Runtimes) -> list[str]:
    """What `auto` would take on GPUs of one kind, and why it does not here."""
    spec = world.service.spec
    wanted = spec.accelerator.type == "nvidia" and spec.engine.runtime == "auto"
    if not wanted or runtimes.tensorrt is None or gpus.gpu_of(world) is not None:
        return []
    what, remedy = gpus.why_unknown(world)
    return [f"tensorrt: {what} ({remedy})"]


def _no_target(world: ServiceWorld, runtimes: Runtimes) -> Condition:
    wanted, kind = world.service.spec.engine, world.service.spec.accelerator.type
    gpu, runtime = gpus.gpu_of(world), wanted.runtime
    compiled = runtime in COMPILED or (runtime == "auto" and runtimes.tensorrt is not None)
    if compiled and kind == "nvidia" and gpu is None:
        text = advise(*gpus.why_unknown(world))
    elif gpu and runtime != "auto" and not builds_for(runtime, gpu.compute_capability):
        what = f"the GPUs are of compute capability {gpu.compute_capability}"
        text = advise(*gpus.not_for(world, what))
    else:
        text = advise(
            f"spec.engine.runtime {runtime} with precision {wanted.precision} can't be built for "
            f"spec.accelerator.type {kind}",
            f"set both to auto, or to what there is: {_choices(world.service.spec.accelerator)}",
        )
    return condition(ConditionType.ENGINE_READY, False, StageReason.TARGET_UNSUPPORTED, text)


def _choices(accelerator: AcceleratorSpec) -> str:
    """What can be asked for, in words."""
    return ", ".join(
        f"{runtime} in {' or '.join(precisions)}"
        for (runtime, place), precisions in PRECISIONS.items()
        if place == accelerator.target
    )


#: Failures in a row after which a compiler is taken not to be able to.
_ENOUGH_FAILURES = 3


def _refusal(world: ServiceWorld, engine: RerankerEngine | None) -> str | None:
    """Why this engine will not serve this service, once that is known for good."""
    if engine is None or engine.metadata.deletion_timestamp is not None:
        return None
    name = engine.metadata.name
    judgement = judge_engine(world, name, engine)
    if judgement.status != "False" or judgement.reason not in OF_THE_TARGET:
        return None
    attempts = engine.status.attempts
    if judgement.reason == StageReason.COMPILE_FAILED.value and (
        attempts is None or attempts.failures < _ENOUGH_FAILURES
    ):
        return None
    # Without the remedy: nothing is to be done while the next target serves.
    cause = judgement.message.removeprefix(name).lstrip(": ").rsplit("; ", 1)[0]
    return f"{engine.spec.identity.runtime} {engine.spec.identity.precision}: {cause}"


def _with_refusals(judgement: Condition, refusals: list[str]) -> Condition:
    """Says what was tried before, so that nobody wonders at a slower target."""
    if not refusals:
        return judgement
    text = f"{judgement.message}; passed over {'; '.join(refusals)}"
    return judgement.model_copy(update={"message": text[:_LONGEST]})


def _ask_for(
    world: ServiceWorld,
    status: RerankerServiceStatus,
    identity: EngineIdentity,
    name: str,
    engine: RerankerEngine | None,
) -> EngineStep:
    service = world.service
    before, shared = (engine.spec.source, engine.spec.build.registry) if engine else (None, None)
    manifest = render.engine(
        service,
        status,
        identity,
        world.defaults,
        references=references.of_source(world, before.references if before else None),
        registry_references=references.of_registry(world, shared.references if shared else None),
    )
    planned = _planned(manifest)
    owned = service.metadata.uid in world.engine_owners.get(name, frozenset())
    if service.spec.rollout.paused and not owned and not _serves(world, name):
        judgement = judge_engine(world, name, engine) if engine else _held_back(name)
        return EngineStep(judgement, engine, planned=planned)
    actions: list[Action] = []
    if engine is None and name not in world.engine_owners:
        actions.append(Create(manifest))
    if not owned:
        body = render.owner_claim("RerankerEngine", API_VERSION, name, service)
        actions.append(Apply(body, manager=names.owner_manager(service.metadata.uid)))
    if engine is not None:
        actions += _change_settings(world, engine, manifest)
    return EngineStep(
        judge_engine(world, name, engine), engine, name, planned, actions=tuple(actions)
    )


def _planned(manifest: dict[str, Any]) -> RerankerEngine:
    """The engine that this manifest will be."""
    return RerankerEngine.model_validate(
        manifest | {"metadata": manifest["metadata"] | {"uid": ""}}
    )


def _serves(world: ServiceWorld, name: str) -> bool:
    """Pods of this service run the engine of this name, so it is needed, paused or not."""
    return name in {engine_of(entry) for entry in live_deployments(world).values()}


def _held_back(name: str) -> Condition:
    text = f"{name} is not built while spec.rollout.paused is true"
    return condition(ConditionType.ENGINE_READY, "Unknown", Reason.PAUSED, text)


def _change_settings(
    world: ServiceWorld, engine: RerankerEngine, wanted: dict[str, Any]
) -> tuple[Action, ...]:
    """Bring changed settings of the build to the engine.

    Of the services that share it one decides, named on the engine; another one takes over when
    that has let go. What the builder image tells of itself goes with the image: other services
    take it for a resolution of their own.
    """
    spec, resolved = wanted["spec"], wanted["metadata"]["annotations"][names.RESOLVED_ANNOTATION]
    meta, uid = engine.metadata, world.service.metadata.uid
    owners = world.engine_owners.get(meta.name, frozenset())
    decider = meta.annotations.get(names.DECIDER_ANNOTATION)
    if uid not in owners or (decider != uid and decider in owners) or meta.deletion_timestamp:
        return ()
    live = engine.spec.to_dict()
    patch: dict[str, Any] = {
        key: difference
        for key in ("source", "build")
        if (difference := _merge_patch(live[key], spec[key]))
    }
    stale = "image" in patch.get("build", {}) and (
        meta.annotations.get(names.RESOLVED_ANNOTATION) != resolved
    )
    if decider == uid and not patch:
        return ()
    change: dict[str, Any] = {
        "metadata": {
            # Of two that take over at the same time, the second one looks again.
            "resourceVersion": meta.resource_version,
            "annotations": {names.DECIDER_ANNOTATION: uid}
            | ({names.RESOLVED_ANNOTATION: resolved} if stale else {}),
        }
    }
    return (Patch(RERANKER_ENGINE, meta.name, change | ({"spec": patch} if patch else {})),)


def _merge_patch(live: Any, wanted: Any) -> Any:
    """The JSON merge patch from one object to the other; None in it removes a field."""
    if not isinstance(live, dict) or not isinstance(wanted, dict):
        return wanted
    gone: dict[str, Any] = {key: None for key in live if key not in wanted}
    changed = {
        key: _merge_patch(live.get(key), value)
        for key, value in wanted.items()
        if live.get(key) != value
    }
    return gone | changed


def judge_engine(world: ServiceWorld, name: str, engine: RerankerEngine | None) -> Condition:
    """`EngineReady`, from what the engine says of itself."""
    kind = ConditionType.ENGINE_READY
    if engine is None and name in world.engine_owners:
        text = advise(
            f"RerankerEngine {name} is there and can't be read, perhaps one of a newer operator",
            "upgrade the operator, or delete this RerankerEngine",
        )
        return condition(kind, False, Reason.INVALID_SPEC, text)
    if engine is None:
        return condition(kind, "Unknown", Reason.BUILDING, f"{name} was just asked for")
    if engine.metadata.deletion_timestamp is not None:
        return condition(kind, "Unknown", Reason.BUILDING, f"{name} is being removed first")
    ready = find(engine.status.conditions, ConditionType.READY)
    if ready is None:
        return condition(kind, "Unknown", Reason.BUILDING, f"{name} is waiting to be built")
    if ready.status != "True":
        blocked = next(
            (c for c in engine.status.conditions if c.status == "False" and c.type != kind), ready
        )
        building = blocked.type == ConditionType.READY
        return Condition(
            type=kind,
            status="Unknown" if building else "False",
            reason=ready.reason,
            message=f"{name}: {ready.message}",
        )
    return _judge_origin(world, name, engine) or _judge_parity(world, name, engine)


def _judge_origin(world: ServiceWorld, name: str, engine: RerankerEngine) -> Condition | None:
    """An engine of the registry that another service took without asking for this signature."""
    asked, told = world.service.spec.engine.registry, engine.status.registry
    trusted = asked.require_signed if asked else None
    origin = told.origin if told else None
    if trusted is None or origin is None or origin.is_checked_with(trusted):
        return None
    text = advise(
        f"{name} came from {origin.reference} for another service, and was not checked with "
        f"{trusted.title}",
        "give all services that share it the same spec.engine.registry, then delete this "
        "RerankerEngine",
    )
    return condition(ConditionType.ENGINE_READY, False, StageReason.SIGNATURE_INVALID, text)


def _about_registry(engine: RerankerEngine) -> str:
    """What went amiss with the registry, which no engine waits for."""
    told = [find(engine.status.conditions, kind) for kind in (_PULLED, _PUSHED)]
    return "".join(
        f"; not {entry.type.lower()} ({entry.reason}): {entry.message}"
        for entry in told
        if entry is not None
        and entry.status == "False"
        and entry.reason != StageReason.ARTEFACT_NOT_FOUND
    )


def _judge_parity(world: ServiceWorld, name: str, engine: RerankerEngine) -> Condition:
    kind, parity = ConditionType.ENGINE_READY, engine.status.parity
    limits = world.service.spec.engine.parity.limits
    if parity is None and engine.spec.identity.runtime in MEASURED_IN_PODS:
        text = (
            f"{name} was built without its GPU: each pod measures it before it serves (Kendall tau "
            f"at least {limits.min_kendall_tau}, NDCG@10 difference at most "
            f"{limits.max_ndcg_delta}){_about_registry(engine)}"
        )
        return condition(kind, True, Reason.BUILT, text)
    if parity is None:
        text = f"{name} has no parity report; delete this RerankerEngine to have it built again"
        return condition(kind, False, Reason.PARITY_REFUSED, text)
    numbers = (
        f"Kendall tau {parity.kendall_tau:.4f} (at least {limits.min_kendall_tau}), "
        f"NDCG@10 difference {parity.ndcg10_delta:.4f} (at most {limits.max_ndcg_delta})"
    )
    if limits.are_met(parity):
        text = f"{name}: {numbers}{_about_registry(engine)}"
        return condition(kind, True, Reason.BUILT, text)
    return condition(
        kind,
        False,
        Reason.PARITY_REFUSED,
        f"{name} ranks too differently from the original: {numbers}; choose another model or "
        "loosen spec.engine.parity",
    )
