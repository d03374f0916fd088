"""The Jobs of a build. Each stage is a container of its own.

So the running container tells the stage, every stage gets only what it needs (only the ones that
fetch see the token), and the result is read from the termination message. Jobs never retry by
themselves: the operator does, with the attempts counted in status.
"""

from dataclasses import replace

from reranker_contracts import Scoring, digest_of
from reranker_operator import names
from reranker_operator.api.kubernetes import ResourceRequirements
from reranker_operator.api.registry import EngineRegistry
from reranker_operator.api.v1alpha1 import EngineSource, RerankerEngine, RerankerService
from reranker_operator.render.access import (
    Access,
    adapter_access,
    once,
    probes_access,
    source_access,
)
from reranker_operator.render.defaults import Defaults
from reranker_operator.render.engines import gpu_labels, scoring_of, settings_key
from reranker_operator.render.pods import (
    Json,
    claim_volume,
    empty_dir,
    mount,
    owner_reference,
    pod_spec,
    store_claim_name,
)
from reranker_operator.render.registry import pull_access, push_access
from reranker_operator.render.registry import reference as registry_reference
from reranker_operator.render.stages import Retention, Stages
from reranker_operator.source import (
    parse,
)

_TTL_SECONDS = 3600
_WORK_SIZE = "30Gi"
#: Removal only unlinks files; it must not hold a deletion up for long.
_REMOVE_SECONDS = 300
#: Only bytes are moved: such a pod fits onto any node.
_TRANSFER_RESOURCES = ResourceRequirements.model_validate(
    {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}
)


def _scoring_arguments(scoring: Scoring | None) -> list[str]:
    """One argument each with its value: a template may begin with a dash."""
    if scoring is None:
        return []
    args = [
        f"--{name}={value}"
        for name in ("template", "pooling", "activation")
        if (value := getattr(scoring, name)) is not None
    ]
    return [*args, *(f"--label={label}" for label in scoring.labels or ())]


def _job(
    name: str,
    namespace: str,
    labels: dict[str, str],
    owner: RerankerService | RerankerEngine,
    *,
    pod: Json,
    deadline: int,
    annotations: dict[str, str] | None = None,
) -> Json:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels,
            "annotations": annotations or {},
            "ownerReferences": [owner_reference(owner, controller=True)],
        },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": deadline,
            "ttlSecondsAfterFinished": _TTL_SECONDS,
            "template": {
                "metadata": {"labels": labels},
                "spec": pod | {"restartPolicy": "Never", "terminationGracePeriodSeconds": 10},
            },
        },
    }


def resolve_job(
    service: RerankerService, source: EngineSource, key: str, attempt: int, defaults: Defaults
) -> Json:
    """Finds the fixed revision of a source and checks that the model can be served."""
    meta, spec = service.metadata, service.spec
    stages = Stages(defaults, spec.engine.image or defaults.builder_image, spec.engine.resources)
    access = source_access(parse(source.source), stages, source, defaults)
    adapter = adapter_access(source, defaults, "--adapter-source-dir")
    args = ["--source", source.source, *access.arguments]
    if spec.model.revision:
        args.append(f"--revision={spec.model.revision}")
    if spec.model.adapter:
        args += ["--adapter", spec.model.adapter.source, *adapter.arguments]
        if spec.model.adapter.revision:
            args.append(f"--adapter-revision={spec.model.adapter.revision}")
    if spec.engine.max_length:
        args += ["--max-length", str(spec.engine.max_length)]
    args += _scoring_arguments(scoring_of(service))
    probes = probes_access(source)
    args += probes.arguments
    labels = names.labels("resolve", meta.name) | {
        names.SERVICE_LABEL: meta.name,
        names.STAGE_LABEL: "resolve",
        names.ATTEMPT_LABEL: str(attempt),
    }
    pod = pod_spec(
        defaults,
        init_containers=access.init,
        containers=[
            stages.stage(
                "resolve",
                args,
                *once(access.mounts, adapter.mounts, probes.mounts),
                env=once(access.env, adapter.env),
            )
        ],
        volumes=[*_scratch(), *once(access.volumes, adapter.volumes, probes.volumes)],
        pull_secrets=_pull_secrets(source),
    )
    name = names.resolve_job(meta.name, key, attempt)
    return _job(
        name, meta.namespace, labels, service, pod=pod, deadline=defaults.resolve_deadline_seconds
    )


def prepare_job(
    engine: RerankerEngine, attempt: int, defaults: Defaults, retention: Retention | None
) -> Json:
    """fetch → export → publish below `prepared/`."""
    spec = engine.spec
    stages = Stages(defaults, spec.build.image, spec.build.resources)
    access = source_access(parse(spec.source.source), stages, spec.source, defaults)
    adapter = adapter_access(spec.source, defaults)
    fetched = [
        stages.stage(
            "fetch",
            ["--source", spec.source.source, "--revision", spec.prepare.revision,
             *access.arguments, "--out", "/work/source"],
            *access.mounts,
            env=access.env,
        )
    ]  # fmt: skip
    export_args = ["--source", "/work/source", "--out", "/work/prepared"]
    if spec.source.adapter and spec.prepare.adapter:
        args = ["--source", spec.source.adapter, "--revision", spec.prepare.adapter,
                *adapter.arguments, "--out", "/work/adapter"]  # fmt: skip
        fetched.append(stages.stage("fetch-adapter", args, *adapter.mounts, env=adapter.env))
        export_args += ["--adapter-dir", "/work/adapter"]
    if spec.prepare.max_length:
        export_args += ["--max-length", str(spec.prepare.max_length)]
    export_args += _scoring_arguments(spec.prepare.scoring)
    probes = probes_access(spec.source)
    export_args += probes.arguments
    if spec.prepare.probes:
        # Another one than was resolved would be published under a wrong name.
        export_args += ["--probes-digest", spec.prepare.probes]
    export = stages.stage("export", export_args, *probes.mounts)
    publish = stages.publish("/work/prepared", spec.prepare.to_json(), retention)
    pod = pod_spec(
        defaults,
        init_containers=[*access.init, *fetched, export],
        containers=[publish],
        volumes=[
            *_scratch(),
            _store(engine),
            *once(access.volumes, adapter.volumes, probes.volumes),
        ],
        pull_secrets=_pull_secrets(spec.source),
    )
    return _engine_job(engine, "prepare", attempt, pod, defaults)


def compile_job(
    engine: RerankerEngine, attempt: int, defaults: Defaults, retention: Retention | None
) -> Json:
    """compile → validate → publish below `engines/`."""
    spec, identity = engine.spec, engine.spec.identity
    gpu = spec.build.gpu
    stages = Stages(defaults, spec.build.image, spec.build.resources)
    on_gpu = replace(stages, device=gpu.resource_name if gpu else None)
    prepared = ["--prepared", f"/store/prepared/{digest_of(spec.prepare)}"]
    read_store = mount("store", "/store", read_only=True)
    compile_args = [
        *prepared, "--out", "/work/engine", "--runtime", identity.runtime,
        "--precision", identity.precision, "--accelerator", identity.accelerator,
        "--max-batch-size", str(identity.max_batch_size),
    ]  # fmt: skip
    if identity.compute_capability:
        compile_args += ["--compute-capability", identity.compute_capability]
    if gpu and gpu.memory_mib:
        compile_args += ["--gpu-memory", str(gpu.memory_mib)]
    publish = stages.publish("/work/engine", identity.to_json(), retention)
    pod = pod_spec(
        defaults,
        init_containers=[
            on_gpu.stage("compile", compile_args, read_store),
            on_gpu.stage("validate", [*prepared, "--engine", "/work/engine"], read_store),
        ],
        containers=[publish],
        volumes=[*_scratch(), _store(engine)],
    )
    if gpu and gpu.resource_name:
        pod["nodeSelector"] = {**(gpu.node_selector or {}), **gpu_labels(identity)}
        pod["tolerations"] = [entry.to_dict() for entry in gpu.tolerations]
    return _engine_job(engine, "compile", attempt, pod, defaults)


def pull_job(
    engine: RerankerEngine, attempt: str, defaults: Defaults, retention: Retention | None
) -> Json:
    """Takes the engine from the registry, if it has it: then nothing is built."""
    registry = _registry(engine)
    access = pull_access(registry)
    args = [registry_reference(engine, registry), "--store", "/store", "--digest",
            engine.spec.digest, *access.arguments]  # fmt: skip
    args += retention.arguments if retention else []
    return _registry_job(engine, "pull", args, access, attempt=attempt, defaults=defaults)


def push_job(engine: RerankerEngine, attempt: str, defaults: Defaults) -> Json:
    """Brings the published engine to the registry, signed where a key is given."""
    registry = _registry(engine)
    access = push_access(registry)
    args = [f"/store/engines/{engine.spec.digest}", registry_reference(engine, registry),
            "--if-absent", *access.arguments]  # fmt: skip
    return _registry_job(engine, "push", args, access, attempt=attempt, defaults=defaults)


def _registry(engine: RerankerEngine) -> EngineRegistry:
    if engine.spec.build.registry is None:
        raise ValueError(f"{engine.metadata.name} has no registry")
    return engine.spec.build.registry


def _registry_job(
    engine: RerankerEngine,
    step: str,
    args: list[str],
    access: Access,
    *,
    attempt: str,
    defaults: Defaults,
) -> Json:
    """`attempt` is part of the Job's name alone."""
    stages = Stages(defaults, engine.spec.build.image, _TRANSFER_RESOURCES)
    store = mount("store", "/store")
    stage = stages.stage(step, args, store, *access.mounts, env=access.env)
    pod = pod_spec(
        defaults,
        init_containers=[],
        containers=[stage],
        volumes=[*_scratch(), _store(engine), *access.volumes],
    )
    name = names.registry_job(engine.metadata.name, step, attempt)
    return _engine_job(engine, step, 0, pod, defaults, name=name)


def remove_job(engine: RerankerEngine, digests: list[str], defaults: Defaults) -> Json:
    """Deletes files of an engine that is being deleted while its store stays."""
    stages = Stages(defaults, engine.spec.build.image, engine.spec.build.resources)
    args = ["--store", "/store", "--digest", *digests]
    pod = pod_spec(
        defaults,
        init_containers=[],
        containers=[stages.stage("remove", args, mount("store", "/store"))],
        volumes=[*_scratch(), _store(engine)],
    )
    return _engine_job(engine, "remove", 0, pod, defaults)


def _engine_job(
    engine: RerankerEngine,
    step: str,
    attempt: int,
    pod: Json,
    defaults: Defaults,
    *,
    name: str | None = None,
) -> Json:
    meta = engine.metadata
    labels = names.labels(step, meta.name) | {
        names.ENGINE_LABEL: meta.name,
        names.STAGE_LABEL: step,
        names.ATTEMPT_LABEL: str(attempt),
    }
    name = name or names.stage_job(meta.name, step, attempt)
    deadline = _REMOVE_SECONDS if step == "remove" else defaults.build_deadline_seconds
    return _job(
        name,
        meta.namespace,
        labels,
        engine,
        pod=pod,
        deadline=deadline,
        annotations={names.SETTINGS_ANNOTATION: settings_key(engine.spec)},
    )


def _scratch() -> list[Json]:
    """Bounded: a hostile model image could fill the node's disk."""
    return [empty_dir("work", size=_WORK_SIZE), empty_dir("tmp", size="1Gi")]


def _store(engine: RerankerEngine) -> Json:
    return claim_volume("store", store_claim_name(engine.spec.store))


def _pull_secrets(source: EngineSource) -> tuple[str, ...]:
    return (source.image_pull_secret,) if source.image_pull_secret else ()
