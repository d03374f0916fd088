"""What engines can be made for: runtimes, precisions and the hardware they need."""

from typing import Literal

from pydantic import Field, model_validator

from reranker_contracts.base import LARGEST, Document

Runtime = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
Accelerator = Literal["cpu", "nvidia"]

#: What can be built: the precisions of a runtime on an accelerator, the closest to FP32 first.
PRECISIONS: dict[tuple[Runtime, Accelerator], tuple[Precision, ...]] = {
    ("onnxruntime", "cpu"): ("fp32", "int8"),
    ("onnxruntime", "nvidia"): ("fp32",),
    ("openvino", "cpu"): ("fp32", "bf16", "int8"),
    ("tensorrt", "nvidia"): ("fp32", "bf16", "fp16"),
    ("tensorrt-rtx", "nvidia"): ("fp32", "bf16", "fp16"),
}

#: Runtimes whose engines are code for one kind of GPU.
COMPILED: frozenset[Runtime] = frozenset({"tensorrt", "tensorrt-rtx"})

#: Runtimes whose engines are built without the GPU that they are for, so that only the pods that
#: serve them can measure them.
MEASURED_IN_PODS: frozenset[Runtime] = frozenset({"tensorrt-rtx"})

#: Compute capabilities that a runtime builds for; a runtime that is not here builds for any.
CAPABILITIES: dict[Runtime, tuple[str, ...]] = {
    "tensorrt-rtx": ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1"),
}

#: Flags of /proc/cpuinfo of which a CPU needs one, by runtime and precision. Without VNNI, int8
#: products are summed in 16 bits and saturate: other scores, not only slower ones.
CPU_FEATURES: dict[tuple[Runtime, Precision], tuple[str, ...]] = {
    ("openvino", "bf16"): ("amx_bf16", "avx512_bf16"),
    ("openvino", "int8"): ("avx512_vnni", "avx_vnni"),
    ("onnxruntime", "int8"): ("amx_int8", "avx512_vnni", "avx_vnni"),
}


#: Fastest first, as far as it was measured: without AMX. Measure with `hack/target-table` before
#: changing the order.
_BY_SPEED: dict[Accelerator, tuple[tuple[Runtime, Precision], ...]] = {
    "cpu": (
        ("openvino", "bf16"),
        ("openvino", "int8"),
        ("onnxruntime", "int8"),
        ("openvino", "fp32"),
        ("onnxruntime", "fp32"),
    ),
    "nvidia": (
        ("tensorrt", "fp16"),
        ("tensorrt", "bf16"),
        ("tensorrt", "fp32"),
        ("onnxruntime", "fp32"),
    ),
}

#: Left out when nothing was asked for: it rarely ranks as closely as the default thresholds want.
_ONLY_ASKED_FOR: frozenset[tuple[Runtime, Precision]] = frozenset(
    {("openvino", "int8"), ("onnxruntime", "int8")}
)


class Runtimes(Document):
    """Versions of what makes and runs engines, as reported by the builder image itself."""

    recipe: int = Field(
        ge=1, le=LARGEST, description="raised when our own target code changes its output"
    )
    onnxruntime: str = Field(description="version of ONNX Runtime")
    openvino: str | None = Field(default=None, description="version; none: not in the image")
    tensorrt: str | None = Field(default=None, description="version; none: not in the image")
    tensorrt_rtx: str | None = Field(default=None, description="version; none: not in the image")
    cpu_features: tuple[str, ...] = Field(
        default=(),
        max_length=16,
        description="flags of /proc/cpuinfo that decide what is fast, of the node that reported",
    )

    def version_of(self, runtime: Runtime) -> str | None:
        """None for a runtime that the builder image does not have."""
        versions: dict[Runtime, str | None] = {
            "onnxruntime": self.onnxruntime,
            "openvino": self.openvino,
            "tensorrt": self.tensorrt,
            "tensorrt-rtx": self.tensorrt_rtx,
        }
        return versions[runtime]


class EngineTarget(Document):
    """What an engine is made for."""

    runtime: Runtime = Field(description="what runs it")
    precision: Precision = Field(description="of its matrix products")
    accelerator: Accelerator = Field(description="what it runs on")
    compute_capability: str | None = Field(
        default=None,
        pattern=r"^[1-9][0-9]?\.[0-9]$",
        description="of the GPU, when the engine is compiled for one",
    )
    max_batch_size: int = Field(ge=1, description="most pairs in one call")

    @model_validator(mode="after")
    def _exists(self) -> "EngineTarget":
        known = PRECISIONS.get((self.runtime, self.accelerator), ())
        if self.precision not in known:
            raise ValueError(f"{self.runtime} has no {self.precision} on {self.accelerator}")
        if (self.compute_capability is not None) != (self.runtime in COMPILED):
            raise ValueError("a compute capability belongs to tensorrt and tensorrt-rtx alone")
        return self

    def __str__(self) -> str:
        where: str = self.accelerator
        if self.compute_capability:
            where += f" {self.compute_capability}"
        return f"{self.runtime} {self.precision} on {where}"

    @property
    def cpu_features(self) -> tuple[str, ...]:
        """Flags of /proc/cpuinfo of which the CPU needs at least one; empty: any CPU does."""
        return CPU_FEATURES.get((self.runtime, self.precision), ())


def candidates(
    runtimes: Runtimes,
    accelerator: Accelerator,
    *,
    runtime: Runtime | None,
    precision: Precision | None,
    compute_capability: str | None,
    max_batch_size: int,
) -> tuple[EngineTarget, ...]:
    """Targets that fit what was asked for, in the order in which they are to be tried.

    None asks for any. The first one that ranks like the original is to serve. Without a runtime
    only those that the builder image has are named, and what is compiled for a GPU only when the
    GPU's compute capability is known to be one of the runtime's. TensorRT-RTX must be asked for: no
    GPU is needed to build with it, but its engines are proven only where they serve.
    """
    order: tuple[tuple[Runtime, Precision], ...] = _BY_SPEED[accelerator]
    if runtime == "tensorrt-rtx":
        order = tuple((runtime, entry[1]) for entry in order if entry[0] == "tensorrt")
    return tuple(
        EngineTarget(
            runtime=kind,
            precision=numbers,
            accelerator=accelerator,
            compute_capability=compute_capability if kind in COMPILED else None,
            max_batch_size=max_batch_size,
        )
        for kind, numbers in order
        if (runtime or kind) == kind
        and (precision or numbers) == numbers
        and (precision is not None or _worthwhile(kind, numbers, runtimes))
        and (runtime is not None or runtimes.version_of(kind) is not None)
        and (kind not in COMPILED or builds_for(kind, compute_capability))
    )


def builds_for(runtime: Runtime, compute_capability: str | None) -> bool:
    """Whether there are engines of this runtime for such a GPU; None: nothing is known of it."""
    known = CAPABILITIES.get(runtime)
    return compute_capability is not None and (known is None or compute_capability in known)


def _worthwhile(runtime: Runtime, precision: Precision, runtimes: Runtimes) -> bool:
    needed = CPU_FEATURES.get((runtime, precision), ())
    if needed and set(needed).isdisjoint(runtimes.cpu_features):
        return False
    return (runtime, precision) not in _ONLY_ASKED_FOR
