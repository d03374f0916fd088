"""The kinds RerankerService and RerankerEngine, version v1alpha1.

`crds/` is generated from these models; a description here is what `kubectl explain` prints.
Cross-field rules are written beside their models in `api/rules.py`.
"""

import datetime
from typing import Annotated, Literal

from pydantic import Field

from reranker_contracts import EngineIdentity, ParityReport, PrepareIdentity, Toolchain
from reranker_operator.api.conditions import Condition
from reranker_operator.api.exposure import (
    DisruptionSpec,
    ExposeSpec,
    MonitoringSpec,
    NetworkPolicySpec,
)
from reranker_operator.api.meta import ApiModel

Quantity = Annotated[str | int, Field(json_schema_extra={"x-kubernetes-int-or-string": True})]
Name = Annotated[str, Field(min_length=1, max_length=253)]


class SecretKeyRef(ApiModel):
    """One key of a Secret in the same namespace."""

    name: Name = Field(description="Name of the Secret.")
    key: str = Field(default="token", min_length=1, max_length=253, description="Key inside it.")


class ModelSpec(ApiModel):
    """Which model to serve."""

    source: str = Field(
        min_length=1,
        max_length=1024,
        description=(
            "Where the model's files come from: hf://ORG/NAME (Hugging Face hub), "
            "oci://IMAGE[?path=/models] (a container image that holds the files) or "
            "pvc://CLAIM/PATH (a volume claim in the same namespace)."
        ),
    )
    revision: str | None = Field(
        default=None,
        max_length=255,
        description="Branch, tag or commit of a hub source. Default: the main branch.",
    )
    secret_ref: SecretKeyRef | None = Field(
        default=None, description="Token for a gated or private hub source."
    )
    image_pull_secret: Name | None = Field(
        default=None, description="Pull secret for an oci:// source."
    )
    served_name: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        description="Model id in the API. Default: the model's own name.",
    )
    aliases: tuple[Annotated[str, Field(min_length=1, max_length=128)], ...] = Field(
        default=(), max_length=16, description="Further model ids that clients may use."
    )


class ResourceRequirements(ApiModel):
    """Kubernetes resource requests and limits of a container."""

    requests: dict[str, Quantity] | None = None
    limits: dict[str, Quantity] | None = None


class ParityThresholds(ApiModel):
    """How closely an engine must rank like the FP32 PyTorch reference."""

    min_kendall_tau: float = Field(
        default=0.995, ge=-1, le=1, description="Smallest mean Kendall tau over the probe queries."
    )
    max_ndcg_delta: float = Field(
        default=0.002, ge=0, le=1, description="Largest loss of NDCG@10 against the reference."
    )


class StoreSpec(ApiModel):
    """The volume that keeps engines. By default one claim per namespace, made by the operator."""

    existing_claim: Name | None = Field(
        default=None, description="Use this claim and create none. It must be writable."
    )
    storage_class_name: str | None = Field(
        default=None, max_length=253, description="Storage class. Default: the cluster's default."
    )
    size: Quantity = Field(default="20Gi", description="Requested size of the claim.")
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany"] = Field(
        default="ReadWriteOnce",
        description="ReadWriteMany lets pods on several nodes share the engines.",
    )


class EngineSettings(ApiModel):
    """How the engine is built."""

    runtime: Literal["auto", "onnxruntime"] = Field(
        default="auto", description="auto picks the runtime for the accelerator."
    )
    precision: Literal["auto", "fp32"] = Field(
        default="auto", description="auto picks what passes parity on the target."
    )
    max_length: int | None = Field(
        default=None,
        ge=8,
        le=131072,
        description="Longest query and passage together, in tokens. Default: the model's limit.",
    )
    max_batch_size: int = Field(
        default=64, ge=1, le=1024, description="Most pairs in one call of the engine."
    )
    parity: ParityThresholds = Field(
        default=ParityThresholds(), description="An engine below these never serves."
    )
    store: StoreSpec = Field(default=StoreSpec(), description="Where engines are kept.")
    image: str | None = Field(
        default=None, max_length=1024, description="Builder image instead of the operator's own."
    )
    resources: ResourceRequirements | None = Field(
        default=None, description="Resources of the build containers."
    )


class Toleration(ApiModel):
    """A Kubernetes toleration."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None


class AcceleratorSpec(ApiModel):
    """What the model runs on."""

    type: Literal["none", "nvidia"] = Field(default="none", description="none serves on CPU.")
    resource_name: str | None = Field(
        default=None,
        max_length=253,
        description="Extended resource to ask for, also a MIG one. Default: nvidia.com/gpu.",
    )
    count: int | None = Field(default=None, ge=1, le=16, description="GPUs per pod. Default: 1.")
    node_selector: dict[str, str] | None = Field(
        default=None, description="Labels that a node must have to serve."
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(), max_length=32, description="Taints that serving pods tolerate."
    )


class ContainerSettings(ApiModel):
    """Overrides for one container of the serving pod."""

    image: str | None = Field(default=None, max_length=1024, description="Image to run instead.")
    resources: ResourceRequirements | None = Field(default=None, description="Its resources.")


class ServingSpec(ApiModel):
    """How pods serve."""

    truncate: Literal["NONE", "END"] = Field(
        default="NONE",
        description="For requests that say nothing: refuse over-long pairs, or cut their end.",
    )
    max_passages: int = Field(default=512, ge=1, le=10000, description="Passages per request.")
    max_queue_tokens: int = Field(
        default=262144,
        ge=1024,
        le=1 << 30,
        description="Tokens that may wait in one pod; beyond it requests get 429.",
    )
    token_budget: int | None = Field(
        default=None,
        ge=64,
        le=1 << 24,
        description="Padded tokens in one batch. Default: what the engine was built for.",
    )
    gateway: ContainerSettings = Field(default=ContainerSettings(), description="Gateway.")
    triton: ContainerSettings = Field(default=ContainerSettings(), description="Triton.")


class RerankerServiceSpec(ApiModel):
    """A reranker to serve; `model.source` alone is enough."""

    model: ModelSpec
    engine: EngineSettings = Field(default=EngineSettings())
    accelerator: AcceleratorSpec = Field(default=AcceleratorSpec())
    serving: ServingSpec = Field(default=ServingSpec())
    replicas: int = Field(default=1, ge=0, le=1000, description="Number of serving pods.")
    expose: ExposeSpec = Field(default=ExposeSpec())
    disruption: DisruptionSpec = Field(default=DisruptionSpec())
    network_policy: NetworkPolicySpec = Field(default=NetworkPolicySpec())
    monitoring: MonitoringSpec = Field(default=MonitoringSpec())


class Attempts(ApiModel):
    """Failures of one piece of work; backoff is computed from it, so a restart changes nothing."""

    key: str = Field(description="What the work was for; another key starts at zero.")
    failures: int = 0
    last_failure_time: datetime.datetime | None = None
    reason: str | None = None
    message: str | None = None


class ResolvedStatus(ApiModel):
    """The model as it was found."""

    key: str = Field(description="Hash of what was resolved; empty once it can't be fetched.")
    revision: str = Field(description="Commit, or hash of the files.")
    name: str
    architecture: str
    family: str
    max_length: int = Field(description="Longest input of the model in tokens.")
    toolchain: Toolchain
    resolved_time: datetime.datetime | None = Field(
        default=None, description="When the revision was found."
    )


class EngineSummary(ApiModel):
    """An engine that this service uses or waits for."""

    name: str
    target: str
    state: str
    stage: str | None = None
    size_bytes: int | None = None
    parity: ParityReport | None = None
    seconds: float | None = Field(default=None, description="Time the build's stages took.")


class RerankerServiceStatus(ApiModel):
    """What was observed."""

    observed_generation: int | None = None
    conditions: tuple[Condition, ...] = ()
    stage: str | None = Field(default=None, description="What is going on, in a word.")
    model: ResolvedStatus | None = None
    resolve: Attempts | None = None
    engine: str | None = Field(default=None, description="Name of the serving engine.")
    engines: tuple[EngineSummary, ...] = ()
    revision: str | None = Field(default=None, description="Revision that gets the traffic.")
    replicas: int | None = Field(default=None, description="Pods of the serving revision.")
    ready_replicas: int | None = None
    ready: str | None = Field(default=None, description="Ready pods of wanted pods.")
    selector: str | None = Field(default=None, description="For the scale subresource.")
    url: str | None = Field(
        default=None, description="Address for clients: outside the cluster if there is one."
    )
    cluster_url: str | None = Field(default=None, description="Address inside the cluster.")


class EngineSource(ApiModel):
    """Where prepare gets the files from."""

    source: str
    secret_ref: SecretKeyRef | None = None
    image_pull_secret: str | None = None


class EngineBuild(ApiModel):
    """Settings of the build's pods; they do not change the engine's bytes and may change."""

    image: str
    resources: ResourceRequirements | None = None


class RerankerEngineSpec(ApiModel):
    """One engine, named by its inputs and its store; only `source` and `build` may change."""

    digest: str = Field(pattern=r"^[0-9a-f]{64}$", description="sha256 of `identity`.")
    model_name: str = Field(description="Name of the model, for people.")
    source: EngineSource
    prepare: PrepareIdentity = Field(description="Inputs of the prepared model.")
    identity: EngineIdentity = Field(description="Everything that changes the engine's bytes.")
    build: EngineBuild
    store: StoreSpec


class StageStatus(ApiModel):
    """One finished stage."""

    name: str
    seconds: float


class RerankerEngineStatus(ApiModel):
    """What was observed of the build."""

    observed_generation: int | None = None
    conditions: tuple[Condition, ...] = ()
    stage: str | None = None
    stages: tuple[StageStatus, ...] = ()
    attempts: Attempts | None = None
    builds: int = Field(
        default=0, description="Attempts before the present ones; Jobs are numbered on from it."
    )
    damages: int = Field(
        default=0, description="Times in a row that files were damaged soon after a build."
    )
    ready_time: datetime.datetime | None = Field(
        default=None, description="When the engine was last published."
    )
    parity: ParityReport | None = None
    size_bytes: int | None = None


class ObjectMeta(ApiModel):
    """The part of metadata that the operator reads."""

    name: str
    namespace: str
    uid: str
    resource_version: str | None = None
    annotations: dict[str, str] = Field(default_factory=dict)
    generation: int = 1
    deletion_timestamp: datetime.datetime | None = None
    finalizers: tuple[str, ...] = ()
    creation_timestamp: datetime.datetime | None = None


class RerankerService(ApiModel):
    """A served reranker."""

    metadata: ObjectMeta
    spec: RerankerServiceSpec
    status: RerankerServiceStatus = RerankerServiceStatus()


class RerankerEngine(ApiModel):
    """A built engine."""

    metadata: ObjectMeta
    spec: RerankerEngineSpec
    status: RerankerEngineStatus = RerankerEngineStatus()
