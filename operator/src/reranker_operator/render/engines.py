"""RerankerEngine objects and the claim that stores their files.

Both may be shared by several owners. The body is applied by the operator's one manager; every
owner adds its owner reference under a manager of its own, and takes it back the same way, so that
owners never overwrite each other and garbage collection removes what nobody owns any more.
"""

from typing import Any

from pydantic import ValidationError

from reranker_contracts import (
    EngineIdentity,
    EngineTarget,
    PrepareIdentity,
    ResolvedModel,
    Scoring,
    candidates,
    digest_of,
)
from reranker_contracts.base import canonical_json
from reranker_contracts.targets import MEASURED_IN_PODS
from reranker_operator import names
from reranker_operator.api.meta import API_VERSION
from reranker_operator.api.v1alpha1 import (
    BuildGpu,
    EngineSource,
    RerankerEngine,
    RerankerEngineSpec,
    RerankerService,
    RerankerServiceStatus,
    ResolvedStatus,
)
from reranker_operator.render.defaults import Defaults
from reranker_operator.render.pods import Json, owner_reference, store_claim_name
from reranker_operator.render.registry import registry_of
from reranker_operator.source import RemoteSource, parse


def _prepare_of(service: RerankerService, model: ResolvedStatus) -> PrepareIdentity:
    return PrepareIdentity(
        revision=model.revision,
        adapter=model.adapter,
        max_length=service.spec.engine.max_length,
        scoring=scoring_of(service),
        probes=model.probes,
        toolchain=model.toolchain,
        builder=service.spec.engine.image,
    )


def identities(
    service: RerankerService, status: RerankerServiceStatus
) -> tuple[EngineIdentity, ...]:
    """What the service's engine is made from, for each target in the order they are tried.

    Needs a resolved model in `status`, and the GPU where that decides. No target: the builder image
    has nothing for the service.
    """
    if status.model is None:
        raise ValueError("the model is not resolved")
    spec, runtimes = service.spec, status.model.runtimes
    prepared = digest_of(_prepare_of(service, status.model))
    targets = candidates(
        runtimes,
        spec.accelerator.target,
        runtime=None if spec.engine.runtime == "auto" else spec.engine.runtime,
        precision=None if spec.engine.precision == "auto" else spec.engine.precision,
        compute_capability=status.gpu.compute_capability if status.gpu else None,
        max_batch_size=spec.engine.max_batch_size,
    )
    return tuple(
        EngineIdentity(
            **target.model_dump(),
            prepared=prepared,
            version=runtimes.version_of(target.runtime) or "missing",
            recipe=runtimes.recipe,
        )
        for target in targets
    )


def scoring_of(service: RerankerService) -> Scoring | None:
    """What the service says about how its model scores; None when it says nothing."""
    model = service.spec.model
    said = {name: getattr(model, name) for name in Scoring.model_fields}
    return Scoring(**said) if any(value is not None for value in said.values()) else None


_SHORT = {
    "onnxruntime": "onnx",
    "openvino": "ov",
    "tensorrt": "trt",
    "tensorrt-rtx": "rtx",
}


def target_of(target: EngineTarget) -> str:
    """Short name of runtime, hardware and precision, as in engine names and status."""
    where = "cpu" if target.accelerator == "cpu" else "cuda"
    if target.compute_capability:
        where = "sm" + target.compute_capability.replace(".", "")
    return f"{_SHORT[target.runtime]}-{where}-{target.precision}"


def source_of(service: RerankerService, references: str | None = None) -> EngineSource:
    """Where the service's files come from, and the way there."""
    model = service.spec.model
    adapter = model.adapter.source if model.adapter else None
    probes = service.spec.engine.parity.probes
    remote = any(isinstance(parse(uri), RemoteSource) for uri in (model.source, adapter) if uri)
    return EngineSource(
        source=model.source,
        adapter=adapter,
        secret_ref=model.secret_ref,
        endpoint=model.endpoint,
        region=model.region,
        image_pull_secret=model.image_pull_secret,
        probes=probes,
        proxy=service.spec.proxy if remote else None,
        ca_bundle=service.spec.ca_bundle if remote else None,
        references=references if remote or probes else None,
    )


def engine_name(
    service: RerankerService, status: RerankerServiceStatus, identity: EngineIdentity
) -> str:
    """By what it is made from, where it runs and where its files lie."""
    if status.model is None:
        raise ValueError("the model is not resolved")
    claim = store_claim_name(service.spec.engine.store)
    return names.engine(status.model.name, target_of(identity), digest_of(identity), claim)


def engine(
    service: RerankerService,
    status: RerankerServiceStatus,
    identity: EngineIdentity,
    defaults: Defaults,
    *,
    references: str | None = None,
    registry_references: str | None = None,
) -> dict[str, Any]:
    """The RerankerEngine of one of the service's `identities`.

    `references` as in its source, the other ones as in its registry.
    """
    if status.model is None:
        raise ValueError("the model is not resolved")
    digest = digest_of(identity)
    spec, meta, model = service.spec, service.metadata, status.model
    name = engine_name(service, status, identity)
    build: Json = {"image": spec.engine.image or defaults.builder_image}
    if spec.engine.resources:
        build["resources"] = spec.engine.resources.to_dict()
    registry = registry_of(service, registry_references)
    if registry is not None:
        build["registry"] = registry.to_dict()
    if identity.compute_capability:
        build["gpu"] = _build_gpu(service, status, identity).to_dict()
    # Only such a store keeps files that neither garbage collection nor a later publish removes.
    outlived = spec.engine.store.existing_claim is not None
    return {
        "apiVersion": API_VERSION,
        "kind": "RerankerEngine",
        "metadata": {
            "name": name,
            "namespace": meta.namespace,
            "labels": names.labels("engine", name),
            "annotations": {
                names.DECIDER_ANNOTATION: meta.uid,
                names.RESOLVED_ANNOTATION: _resolution(model),
            },
            "finalizers": [names.FINALIZER] if outlived else [],
        },
        "spec": {
            "digest": digest,
            "modelName": model.name,
            "source": source_of(service, references).to_dict(),
            "prepare": _prepare_of(service, model).model_dump(
                mode="json", by_alias=True, exclude_none=True
            ),
            "identity": identity.model_dump(mode="json", by_alias=True, exclude_none=True),
            "build": build,
            "store": spec.engine.store.to_dict(),
        },
    }


def _build_gpu(
    service: RerankerService, status: RerankerServiceStatus, identity: EngineIdentity
) -> BuildGpu:
    accelerator, memory = service.spec.accelerator, status.gpu.memory_mib if status.gpu else None
    if identity.runtime in MEASURED_IN_PODS:
        return BuildGpu(memory_mib=memory)
    return BuildGpu(
        resource_name=accelerator.resource_name or "nvidia.com/gpu",
        memory_mib=memory,
        node_selector=accelerator.node_selector,
        tolerations=accelerator.tolerations,
    )


def gpu_labels(target: EngineTarget) -> dict[str, str]:
    """Labels that a node must have to run what is compiled for a GPU."""
    if target.compute_capability is None:
        return {}
    major, minor = target.compute_capability.split(".")
    return {names.GPU_MAJOR: major, names.GPU_MINOR: minor}


def _resolution(model: ResolvedStatus) -> str:
    """What the Job found out, without the time and the service's key."""
    found = model.model_dump(mode="json", by_alias=True, exclude={"key", "resolved_time"})
    return canonical_json(found)


def resolution_of(engine: RerankerEngine) -> ResolvedModel | None:
    """The resolution that an engine was made for, if it is one that fits the engine."""
    text = engine.metadata.annotations.get(names.RESOLVED_ANNOTATION, "")
    try:
        found = ResolvedModel.model_validate_json(text)
    except ValidationError:
        return None
    prepare, name = engine.spec.prepare, engine.spec.model_name
    fits = (found.revision, found.adapter, found.probes, found.toolchain, found.name) == (
        prepare.revision,
        prepare.adapter,
        prepare.probes,
        prepare.toolchain,
        name,
    )
    return found if fits else None


def settings_key(spec: RerankerEngineSpec) -> str:
    """Hash of the part of an engine's spec that may change; another one is worth an attempt."""
    settings = {"source": spec.source.to_dict(), "build": spec.build.to_dict()}
    return names.short_hash(canonical_json(settings), 16)


def owner_claim(
    kind: str, api_version: str, name: str, owner: RerankerService | RerankerEngine
) -> Json:
    """An apply body that holds one owner's reference and nothing else."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": owner.metadata.namespace,
            "ownerReferences": [owner_reference(owner, controller=False)],
        },
    }


def claim(engine: RerankerEngine) -> dict[str, Any] | None:
    """The store's claim; None when the user brought one."""
    store = engine.spec.store
    if store.existing_claim:
        return None
    name = store_claim_name(store)
    spec: Json = {
        "accessModes": [store.access_mode],
        "resources": {"requests": {"storage": store.size}},
    }
    if store.storage_class_name is not None:
        spec["storageClassName"] = store.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name,
            "namespace": engine.metadata.namespace,
            "labels": names.labels("store", name),
        },
        "spec": spec,
    }
