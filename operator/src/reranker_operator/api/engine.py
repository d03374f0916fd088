"""How a service's engine is made and what for: `spec.engine` and `spec.accelerator`."""

from typing import Literal

from pydantic import Field

from reranker_contracts.parity import Thresholds
from reranker_contracts.targets import Accelerator
from reranker_operator.api.fields import Key, Name, NameOrEmpty, QualifiedName, Quantity
from reranker_operator.api.kubernetes import ResourceRequirements, Toleration
from reranker_operator.api.meta import ApiModel
from reranker_operator.api.registry import RegistrySpec


class ProbesFile(ApiModel):
    """One key of a ConfigMap in the same namespace."""

    name: Name = Field(description="Name of the ConfigMap.")
    key: Key = Field(
        default="probes.jsonl",
        description='Key inside it: a JSON object a line, with "query" and "passages".',
    )


class ProbesSpec(ApiModel):
    """Queries of one's own by which engines are measured beside the built-in ones."""

    config_map: ProbesFile = Field(description="In this ConfigMap.")


class ParityThresholds(ApiModel):
    """How closely an engine must rank like the FP32 PyTorch reference."""

    min_kendall_tau: float = Field(
        default=Thresholds.min_kendall_tau,
        ge=-1,
        le=1,
        description="Smallest mean Kendall tau over the probe queries.",
    )
    max_ndcg_delta: float = Field(
        default=Thresholds.max_ndcg_delta,
        ge=0,
        le=1,
        description="Largest loss of NDCG@10 against the reference.",
    )
    probes: ProbesSpec | None = Field(
        default=None,
        description="Measure on queries of your own, too; each set must reach the thresholds.",
    )

    @property
    def limits(self) -> Thresholds:
        """What a report is judged by."""
        return Thresholds(self.min_kendall_tau, self.max_ndcg_delta)


class StoreSpec(ApiModel):
    """The volume that keeps engines. By default one claim per namespace, made by the operator."""

    existing_claim: Name | None = Field(
        default=None, description="Use this claim and create none. It must be writable."
    )
    storage_class_name: NameOrEmpty | None = Field(
        default=None, description="Storage class. Default: the cluster's default."
    )
    size: Quantity = Field(
        default="20Gi",
        description="Size that the claim asks for when it is made. A claim that is there already "
        "keeps its size, which may be raised there.",
    )
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany"] = Field(
        default="ReadWriteOnce",
        description="ReadWriteMany lets pods on several nodes share the engines.",
    )


class EngineSettings(ApiModel):
    """How the engine is built."""

    runtime: Literal["auto", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"] = Field(
        default="auto",
        description="What runs the engine. auto picks the fastest that the builder image has for "
        "the accelerator; tensorrt and tensorrt-rtx need GPUs of one compute capability. "
        "tensorrt-rtx is built without a GPU and never chosen by auto.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = Field(
        default="auto",
        description="Of matrix products: bf16 is of openvino, tensorrt and tensorrt-rtx, fp16 of "
        "the latter two, int8 of openvino and onnxruntime on CPU. auto picks the fastest that "
        "ranks like the original (parity).",
    )
    max_length: int | None = Field(
        default=None,
        ge=8,
        le=131072,
        description="Longest query and passage together, in tokens. Default: the model's limit, "
        "but at most 8192.",
    )
    max_batch_size: int = Field(
        default=64, ge=1, le=1024, description="Most pairs in one call of the engine."
    )
    parity: ParityThresholds = Field(
        default=ParityThresholds(), description="An engine below these never serves."
    )
    store: StoreSpec = Field(default=StoreSpec(), description="Where engines are kept.")
    registry: RegistrySpec | None = Field(
        default=None,
        description="OCI registry that finished engines come from and go to. Default: none.",
    )
    image: str | None = Field(
        default=None, max_length=1024, description="Builder image instead of the operator's own."
    )
    resources: ResourceRequirements | None = Field(
        default=None, description="Resources of the build containers."
    )


class AcceleratorSpec(ApiModel):
    """What the model runs on."""

    type: Literal["none", "nvidia"] = Field(default="none", description="none serves on CPU.")
    resource_name: QualifiedName | None = Field(
        default=None,
        description="Extended resource to ask for, also a MIG one. Default: nvidia.com/gpu.",
    )
    count: int | None = Field(default=None, ge=1, le=16, description="GPUs per pod. Default: 1.")
    node_selector: dict[str, str] | None = Field(
        default=None, description="Labels that a node must have to serve."
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(), max_length=32, description="Taints that serving pods tolerate."
    )

    @property
    def target(self) -> Accelerator:
        """What engines are made for."""
        return "nvidia" if self.type == "nvidia" else "cpu"
