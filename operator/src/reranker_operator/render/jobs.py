"""The Jobs of a build. Each stage is a container of its own.

So the running container tells the stage, every stage gets only what it needs (only the ones that
fetch see the token), and the result is read from the termination message. Jobs never retry by
themselves: the operator does, with the attempts counted in status.
"""

import datetime
from dataclasses import dataclass, replace
from typing import Any

from reranker_contracts import Scoring, digest_of
from reranker_operator import names
from reranker_operator.api.kubernetes import ResourceRequirements
from reranker_operator.api.v1alpha1 import EngineSource, RerankerEngine, RerankerService
from reranker_operator.render import proxy
from reranker_operator.render.defaults import Defaults
from reranker_operator.render.engines import gpu_labels, scoring_of, settings_key
from reranker_operator.render.pods import (
    Json,
    claim_volume,
    container,
    empty_dir,
    mount,
    owner_reference,
    pod_spec,
    store_claim_name,
)
from reranker_operator.source import (
    BucketSource,
    CatalogueSource,
    HubSource,
    ImageSource,
    RemoteSource,
    Source,
    SourceError,
    VolumeSource,
    parse,
)

_TTL_SECONDS = 3600
_WORK_SIZE = "30Gi"
#: Removal only unlinks files; it must not hold a deletion up for long.
_REMOVE_SECONDS = 300
#: Keys of the Secret of an s3:// source, named as the variables that they become.
_BUCKET_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_SESSION_KEY = "AWS_SESSION_TOKEN"
_RESULT = ["--result", "/dev/termination-log"]
_WORK = mount("work", "/work")
_TMP = mount("tmp", "/tmp")  # noqa: S108 - a volume of the pod


@dataclass(frozen=True)
class Retention:
    """What a publish leaves in the store: these digests, and whatever was made since.

    Others stay `keep_hours` after they were needed last, while the volume is filled to less than
    `high_water_percent`.
    """

    keep: tuple[str, ...]
    made_before: datetime.datetime
    keep_hours: int = 0
    high_water_percent: int = 85

    @property
    def arguments(self) -> list[str]:
        """For the publish command."""
        return [
            *("--keep", *self.keep, "--made-before", self.made_before.isoformat()),
            *("--keep-hours", str(self.keep_hours)),
            *("--high-water", str(self.high_water_percent)),
        ]


@dataclass(frozen=True)
class _Stages:
    """Builds the containers of one Job on one builder image; `device` is a GPU's resource."""

    defaults: Defaults
    image: str
    resources: ResourceRequirements | None
    device: str | None = None

    def stage(
        self,
        name: str,
        args: list[str],
        *extra: Json,
        env: list[Json] | None = None,
        title: str | None = None,
    ) -> Json:
        resources: Any = (
            self.resources.to_dict() if self.resources else self.defaults.builder_resources
        )
        if self.device:
            limits = {**resources.get("limits", {}), self.device: 1}
            resources = {**resources, "limits": limits}
        return container(
            title or name,
            self.image,
            self.defaults,
            resources=resources,
            mounts=[_WORK, _TMP, *extra],
            args=[name, *args, *_RESULT],
            env=env,
        )

    def publish(self, source: str, identity: str, retention: Retention | None) -> Json:
        args = ["--from", source, "--store", "/store", "--identity", identity]
        args += retention.arguments if retention else []
        # For the manifest: which builder made it.
        env: list[Json] = [{"name": "BUILDER_IMAGE", "value": self.image}]
        return self.stage("publish", args, mount("store", "/store"), env=env)

    def copy_image(self, source: ImageSource) -> list[Json]:
        """Two containers: bring static tools along, then run the model image with them.

        A model image may be empty but for the files, so it can't be expected to hold `cp`.
        """
        small = {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "512Mi"}}
        tools = mount("tools", "/tools")
        return [
            container(
                "tools",
                self.image,
                self.defaults,
                resources=small,
                mounts=[tools],
                command=["cp", "/usr/bin/busybox", "/usr/local/bin/copy-model", "/tools"],
            ),
            container(
                "source",
                source.image,
                self.defaults,
                resources=small,
                mounts=[tools, _WORK],
                command=["/tools/busybox", "sh", "/tools/copy-model", source.path, "/work/image"],
            ),
        ]


@dataclass(frozen=True)
class _Access:
    """What reading a source takes: `arguments` of the builder, and what its pod needs for them."""

    init: list[Json]
    volumes: list[Json]
    arguments: list[str]
    mounts: list[Json]
    env: list[Json]


def _source_access(
    source: Source, stages: _Stages, spec: EngineSource, defaults: Defaults
) -> _Access:
    if isinstance(source, ImageSource):
        volumes = [empty_dir("tools", size="64Mi")]
        return _Access(stages.copy_image(source), volumes, ["--source-dir", "/work/image"], [], [])
    if isinstance(source, VolumeSource):
        return _claim_access("source", "--source-dir", source)
    return _remote_access(source, spec, defaults)


def _adapter_access(
    spec: EngineSource, defaults: Defaults, option: str = "--source-dir"
) -> _Access:
    """Of the LoRA adapter, whose directory the builder takes as `option`."""
    if spec.adapter is None:
        return _Access([], [], [], [], [])
    source = parse(spec.adapter, "model.adapter.source")
    if isinstance(source, VolumeSource):
        return _claim_access("adapter", option, source)
    if isinstance(source, ImageSource):
        # The schema refuses it.
        raise SourceError("model.adapter.source is hf:// or pvc://")
    return _remote_access(source, spec, defaults)


def _claim_access(name: str, option: str, source: VolumeSource) -> _Access:
    # All of the claim: of a subPath that is not there the kubelet would make a folder.
    mounts = [mount(name, f"/{name}", read_only=True)]
    volumes = [claim_volume(name, source.claim, read_only=True)]
    return _Access([], volumes, [option, f"/{name}"], mounts, [])


def _remote_access(source: RemoteSource, spec: EngineSource, defaults: Defaults) -> _Access:
    env = _remote_environment(source, spec, defaults)
    env += proxy.environment(spec.proxy, spec.ca_bundle)
    return _Access([], proxy.volumes(spec.ca_bundle), [], proxy.mounts(spec.ca_bundle), env)


def _once(*lists: list[Json]) -> list[Json]:
    """Entries by name; model and adapter may both come from the hub."""
    return list({entry["name"]: entry for entries in lists for entry in entries}.values())


def _remote_environment(source: RemoteSource, spec: EngineSource, defaults: Defaults) -> list[Json]:
    """What the source's client reads; only the stages that talk to it get this."""
    # Archives are downloaded whole before they are looked at.
    env: list[Json] = [{"name": "TMPDIR", "value": "/work"}]
    secret = spec.secret_ref
    if isinstance(source, HubSource):
        env.append({"name": "HF_HOME", "value": "/work/hub"})
        if defaults.hub_endpoint:
            env.append({"name": "HF_ENDPOINT", "value": defaults.hub_endpoint})
        if secret:
            # The keys of a model in a bucket are no token for its adapter on the hub.
            foreign = not isinstance(parse(spec.source), HubSource)
            env.append(_from_secret("HF_TOKEN", secret.name, secret.key, optional=foreign))
    elif isinstance(source, CatalogueSource) and secret:
        env.append(_from_secret("NGC_API_KEY", secret.name, secret.key))
    elif isinstance(source, BucketSource):
        env.append({"name": "AWS_REGION", "value": spec.region or "us-east-1"})
        if spec.endpoint:
            env.append({"name": "AWS_ENDPOINT_URL", "value": spec.endpoint})
        if secret:
            env += [_from_secret(name, secret.name, name) for name in _BUCKET_KEYS]
            env.append(_from_secret(_SESSION_KEY, secret.name, _SESSION_KEY, optional=True))
    return env


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


def _from_secret(name: str, secret: str, key: str, *, optional: bool = False) -> Json:
    reference: Json = {"name": secret, "key": key}
    if optional:
        reference["optional"] = True
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}


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
    stages = _Stages(defaults, spec.engine.image or defaults.builder_image, spec.engine.resources)
    access = _source_access(parse(source.source), stages, source, defaults)
    adapter = _adapter_access(source, defaults, "--adapter-source-dir")
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
                *_once(access.mounts, adapter.mounts),
                env=_once(access.env, adapter.env),
            )
        ],
        volumes=[*_scratch(), *_once(access.volumes, adapter.volumes)],
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
    stages = _Stages(defaults, spec.build.image, spec.build.resources)
    access = _source_access(parse(spec.source.source), stages, spec.source, defaults)
    adapter = _adapter_access(spec.source, defaults)
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
        fetched.append(
            stages.stage("fetch", args, *adapter.mounts, env=adapter.env, title="fetch-adapter")
        )
        export_args += ["--adapter-dir", "/work/adapter"]
    if spec.prepare.max_length:
        export_args += ["--max-length", str(spec.prepare.max_length)]
    export_args += _scoring_arguments(spec.prepare.scoring)
    publish = stages.publish("/work/prepared", spec.prepare.to_json(), retention)
    pod = pod_spec(
        defaults,
        init_containers=[*access.init, *fetched, stages.stage("export", export_args)],
        containers=[publish],
        volumes=[*_scratch(), _store(engine), *_once(access.volumes, adapter.volumes)],
        pull_secrets=_pull_secrets(spec.source),
    )
    return _engine_job(engine, "prepare", attempt, pod, defaults)


def compile_job(
    engine: RerankerEngine, attempt: int, defaults: Defaults, retention: Retention | None
) -> Json:
    """compile → validate → publish below `engines/`."""
    spec, identity = engine.spec, engine.spec.identity
    gpu = spec.build.gpu
    stages = _Stages(defaults, spec.build.image, spec.build.resources)
    on_gpu = replace(stages, device=gpu.resource_name) if gpu else stages
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
    if gpu:
        pod["nodeSelector"] = {**(gpu.node_selector or {}), **gpu_labels(identity)}
        pod["tolerations"] = [entry.to_dict() for entry in gpu.tolerations]
    return _engine_job(engine, "compile", attempt, pod, defaults)


def remove_job(engine: RerankerEngine, digests: list[str], defaults: Defaults) -> Json:
    """Deletes files of an engine that is being deleted while its store stays."""
    stages = _Stages(defaults, engine.spec.build.image, engine.spec.build.resources)
    args = ["--store", "/store", "--digest", *digests]
    pod = pod_spec(
        defaults,
        init_containers=[],
        containers=[stages.stage("remove", args, mount("store", "/store"))],
        volumes=[*_scratch(), _store(engine)],
    )
    return _engine_job(engine, "remove", 0, pod, defaults)


def _engine_job(
    engine: RerankerEngine, step: str, attempt: int, pod: Json, defaults: Defaults
) -> Json:
    meta = engine.metadata
    labels = names.labels(step, meta.name) | {
        names.ENGINE_LABEL: meta.name,
        names.STAGE_LABEL: step,
        names.ATTEMPT_LABEL: str(attempt),
    }
    name = names.stage_job(meta.name, step, attempt)
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
