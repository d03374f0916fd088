"""The kinds RerankerService and RerankerEngine, version v1alpha1.

`crds/` is generated from these models; a description here is what `kubectl explain` prints.
Cross-field rules are written beside their models in `api/rules.py`.
"""

import datetime
from typing import Any, Literal

from pydantic import Field

from reranker_contracts import (
    EngineIdentity,
    ParityReport,
    PrepareIdentity,
    Runtimes,
    Toolchain,
)
from reranker_operator.api.autoscaling import AutoscalingSpec, AutoscalingStatus
from reranker_operator.api.conditions import Condition
from reranker_operator.api.engine import AcceleratorSpec, EngineSettings, ProbesSpec, StoreSpec
from reranker_operator.api.exposure import (
    DisruptionSpec,
    ExposeSpec,
    MonitoringSpec,
    NetworkPolicySpec,
)
from reranker_operator.api.fields import Name
from reranker_operator.api.kubernetes import ResourceRequirements, Toleration
from reranker_operator.api.meta import ApiModel
from reranker_operator.api.model import ModelSpec, SecretKeyRef
from reranker_operator.api.pods import (
    CaBundle,
    GatewaySettings,
    PodSettings,
    ProxySpec,
    TritonSettings,
)
from reranker_operator.api.registry import EngineRegistry, RequireSigned
from reranker_operator.api.rollout import (
    ColdStart,
    FailedRevision,
    RevisionRecord,
    RolloutProgress,
    RolloutSpec,
    ScaleStatus,
)
from reranker_operator.api.security import SecuritySettings

Dialect = Literal["nim", "cohere", "jina", "vllm", "tei", "infinity", "grpc"]


class ServingSpec(SecuritySettings):
    """How pods serve."""

    dialects: tuple[Dialect, ...] = Field(
        default=(),
        max_length=7,
        # In the definition alone: what is stored already may have an empty list.
        json_schema_extra={"minItems": 1},
        description=(
            "APIs to serve: nim, cohere, jina, vllm, tei, infinity, and grpc (KServe's protocol on "
            "port 8001). Default: all."
        ),
    )
    truncate: Literal["NONE", "END"] = Field(
        default="NONE",
        description="For requests that say nothing: refuse over-long pairs, or cut their end.",
    )
    long_passages: Literal["cut", "chunk"] = Field(
        default="cut",
        description="What becomes of passages that are too long and may be cut: that, or they are "
        "scored in windows that overlap and the best one counts. Requests of NIM, vLLM and gRPC "
        "that say nothing are only cut where truncate is END.",
    )
    max_passages: int = Field(
        default=512, ge=1, le=10000, description="Most passages in a request."
    )
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
    gateway: GatewaySettings = Field(
        default=GatewaySettings(), description="The container that clients talk to."
    )
    triton: TritonSettings = Field(
        default=TritonSettings(), description="The container that runs the engine."
    )
    pod: PodSettings = Field(
        default=PodSettings(), description="What is added to the pods that serve."
    )

    @property
    def grpc(self) -> bool:
        """Whether port 8001 is served."""
        return not self.dialects or "grpc" in self.dialects


class RerankerServiceSpec(ApiModel):
    """A reranker to serve; `model.source` alone is enough."""

    model: ModelSpec = Field(description="Which model to serve.")
    engine: EngineSettings = Field(default=EngineSettings(), description="How it is built.")
    accelerator: AcceleratorSpec = Field(
        default=AcceleratorSpec(), description="What the model runs on."
    )
    serving: ServingSpec = Field(default=ServingSpec(), description="How pods serve.")
    proxy: ProxySpec | None = Field(
        default=None,
        description="The way out of the cluster, for what fetches models and for the pods that "
        "serve. Default: none.",
    )
    ca_bundle: CaBundle | None = Field(
        default=None,
        description="Certificate authorities that what fetches models and the pods that serve "
        "trust, in place of those of their images. Default: none.",
    )
    replicas: int = Field(
        default=1,
        ge=0,
        le=1000,
        description=(
            "Number of serving pods. `kubectl scale rr`, an HPA or KEDA set it through the scale "
            "subresource; leave it out of the manifest then. Not looked at with `autoscaling`."
        ),
    )
    autoscaling: AutoscalingSpec | None = Field(
        default=None,
        description="Let the operator decide the number of pods by what arrives and what waits. "
        "Default: `replicas` is the number.",
    )
    hold_at_zero: bool = Field(
        default=False,
        description="For an autoscaler outside, like KEDA, that sets `replicas` to 0: an activator "
        "holds what comes then, and says so, until there is a pod again. Not where a manifest or "
        "`kubectl scale` is known to have set the 0: that is off. Not looked at with "
        "`autoscaling`, of which `min: 0` is the same.",
    )
    rollout: RolloutSpec = Field(default=RolloutSpec())
    expose: ExposeSpec = Field(default=ExposeSpec())
    disruption: DisruptionSpec = Field(default=DisruptionSpec())
    network_policy: NetworkPolicySpec = Field(default=NetworkPolicySpec())
    monitoring: MonitoringSpec = Field(default=MonitoringSpec())


class Attempts(ApiModel):
    """Failures of one piece of work; backoff is computed from it, so a restart changes nothing."""

    key: str = Field(description="What the work was for; another key starts at zero.")
    failures: int = Field(default=0, description="Failures in a row.")
    last_failure_time: datetime.datetime | None = Field(
        default=None, description="When it failed last; the wait counts from then."
    )
    reason: str | None = Field(default=None, description="Reason of the last failure.")
    message: str | None = Field(default=None, description="Message of the last failure.")


class ResolvedStatus(ApiModel):
    """The model as it was found."""

    key: str = Field(description="Hash of what was resolved; empty once it can't be fetched.")
    revision: str = Field(description="Commit, or hash of the files.")
    name: str = Field(description="Name of the model.")
    architecture: str = Field(description="Class of the model in its configuration.")
    family: str = Field(description="Family of models that share an export recipe.")
    max_length: int = Field(description="Longest input of the model in tokens.")
    adapter: str | None = Field(
        default=None, description="Commit of the LoRA adapter, or hash of its files."
    )
    probes: str | None = Field(default=None, description="sha256 of the user's own probe set.")
    toolchain: Toolchain
    runtimes: Runtimes
    resolved_time: datetime.datetime | None = Field(
        default=None, description="When the revision was found."
    )


class GpuStatus(ApiModel):
    """The kind of GPU that a service runs on, as its nodes' labels tell it."""

    compute_capability: str = Field(description="For example 8.9.")
    memory_mib: int | None = Field(default=None, description="The smallest of its GPUs, in MiB.")
    products: tuple[str, ...] = Field(default=(), description="Names of its GPUs.")


class EngineSummary(ApiModel):
    """An engine that this service uses or waits for."""

    name: str = Field(description="Name of the RerankerEngine.")
    target: str = Field(description="Runtime, hardware and precision.")
    state: str = Field(description="How far it is.")
    stage: str | None = Field(default=None, description="What is going on, in a word.")
    size_bytes: int | None = Field(default=None, description="Size of its files in bytes.")
    parity: ParityReport | None = None
    seconds: float | None = Field(default=None, description="Time the build's stages took.")


class RerankerServiceStatus(ApiModel):
    """What was observed."""

    observed_generation: int | None = Field(
        default=None, description="metadata.generation that all of this is about."
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        description="Accepted, ModelResolved, EngineReady, Serving, Progressing, Integrated, "
        "Autoscaled, Ready.",
    )
    stage: str | None = Field(default=None, description="What is going on, in a word.")
    model: ResolvedStatus | None = None
    gpu: GpuStatus | None = None
    resolve: Attempts | None = None
    engine: str | None = Field(default=None, description="Name of the serving engine.")
    engines: tuple[EngineSummary, ...] = Field(
        default=(), description="Engines that serve or are on their way."
    )
    revision: str | None = Field(default=None, description="Revision that gets the traffic.")
    history: tuple[RevisionRecord, ...] = Field(
        default=(), description="Revisions that got the traffic, the newest first."
    )
    rollout: RolloutProgress | None = Field(
        default=None, description="The revision that is on its way, or is still judged."
    )
    failed: tuple[FailedRevision, ...] = Field(
        default=(), description="Revisions that were given up, the newest first."
    )
    spec_hash: str | None = Field(
        default=None, description="Hash of the part of the spec that makes pods."
    )
    pending_changes: tuple[str, ...] = Field(
        default=(),
        description="In words, how the pods that the spec asks for differ from those that serve.",
    )
    scale: ScaleStatus | None = None
    autoscaling: AutoscalingStatus | None = None
    cold_start: ColdStart | None = Field(
        default=None, description="Start of the pod that got ready last."
    )
    replicas: int | None = Field(default=None, description="Pods that the address leads to.")
    ready_replicas: int | None = Field(default=None, description="Those of them that answer.")
    ready: str | None = Field(default=None, description="Ready pods of wanted pods.")
    selector: str | None = Field(default=None, description="For the scale subresource.")
    url: str | None = Field(
        default=None, description="Address for clients: outside the cluster if there is one."
    )
    cluster_url: str | None = Field(default=None, description="Address inside the cluster.")


class EngineSource(ApiModel):
    """Where prepare gets the files from."""

    source: str = Field(description="As in the RerankerService.")
    adapter: str | None = Field(
        default=None, description="Source of the LoRA adapter, as in the RerankerService."
    )
    secret_ref: SecretKeyRef | None = Field(
        default=None, description="Token or keys of a remote source."
    )
    endpoint: str | None = Field(default=None, description="Server of an s3:// source.")
    region: str | None = Field(default=None, description="Region of an s3:// source.")
    image_pull_secret: Name | None = Field(
        default=None, description="Pull secret of an oci:// source."
    )
    probes: ProbesSpec | None = Field(default=None, description="The user's own probe set.")
    proxy: ProxySpec | None = Field(default=None, description="The way out of the cluster.")
    ca_bundle: CaBundle | None = Field(default=None, description="Authorities to trust.")
    references: str | None = Field(
        default=None,
        description="Hash of the versions of what secretRef, probes and caBundle name; with "
        "another one a failed build is tried again at once.",
    )


class BuildGpu(ApiModel):
    """The GPU that an engine is compiled for, and what the pod that compiles asks for.

    Its node has the identity's compute capability, unless it needs no GPU.
    """

    resource_name: str | None = Field(
        default=None, description="Extended resource. None: it is compiled without a GPU."
    )
    memory_mib: int | None = Field(default=None, description="Memory of the GPU in MiB.")
    node_selector: dict[str, str] | None = Field(default=None, description="Further labels.")
    tolerations: tuple[Toleration, ...] = Field(
        default=(), max_length=32, description="Taints that the service's pods tolerate."
    )


class EngineBuild(ApiModel):
    """Settings of the build's pods; they do not change the engine's bytes and may change."""

    image: str = Field(description="Builder image.")
    resources: ResourceRequirements | None = Field(
        default=None, description="Resources of the build containers."
    )
    gpu: BuildGpu | None = Field(
        default=None, description="What the engine is compiled for, and where."
    )
    registry: EngineRegistry | None = Field(
        default=None, description="Where finished engines come from and go to."
    )


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

    name: str = Field(description="Name of the stage.")
    seconds: float = Field(description="Seconds that it took.")


class EngineOrigin(ApiModel):
    """The registry that an engine came from."""

    reference: str = Field(description="oci://HOST/REPOSITORY:TAG.")
    checked_with: str | None = Field(
        default=None, description="The public key that its signature was checked with, by name."
    )

    def is_checked_with(self, trusted: RequireSigned) -> bool:
        """Whether the signature was checked with this key."""
        return self.checked_with == trusted.title


class EngineRegistryStatus(ApiModel):
    """How the registry stands to the engine."""

    asked: str | None = Field(
        default=None, description="Hash of the settings with which it was asked, and had none."
    )
    origin: EngineOrigin | None = Field(
        default=None, description="Where the files came from. None: they were built here."
    )
    pushed: str | None = Field(
        default=None, description="Hash of repository and signing key that it was pushed with."
    )
    push: Attempts | None = Field(default=None, description="Failures to push.")


class RerankerEngineStatus(ApiModel):
    """What was observed of the build."""

    observed_generation: int | None = Field(
        default=None, description="metadata.generation that all of this is about."
    )
    conditions: tuple[Condition, ...] = Field(
        default=(), description="Prepared, Compiled, Validated, Ready; Pulled, Pushed."
    )
    stage: str | None = Field(default=None, description="What is going on, in a word.")
    stages: tuple[StageStatus, ...] = Field(default=(), description="Stages that have ended.")
    attempts: Attempts | None = Field(default=None, description="Failures of the present build.")
    builds: int = Field(
        default=0, description="Attempts before the present ones; Jobs are numbered on from it."
    )
    damages: int = Field(
        default=0, description="Times in a row that files were damaged soon after a build."
    )
    ready_time: datetime.datetime | None = Field(
        default=None, description="When the engine was last published."
    )
    outdated_pods: tuple[str, ...] = Field(
        default=(),
        description="Hashes of the uids of pods that had not found the files whole when they were "
        "last published, and may speak of those before.",
    )
    parity: ParityReport | None = Field(
        default=None, description="How closely it ranks like the original."
    )
    size_bytes: int | None = Field(default=None, description="Size of its files in bytes.")
    registry: EngineRegistryStatus | None = Field(
        default=None, description="How the registry stands to it."
    )


class ObjectMeta(ApiModel):
    """The part of metadata that the operator reads."""

    name: str
    namespace: str
    uid: str
    resource_version: str | None = None
    annotations: dict[str, str] = Field(default_factory=dict)
    generation: int = 1
    managed_fields: tuple[dict[str, Any], ...] | None = None
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
