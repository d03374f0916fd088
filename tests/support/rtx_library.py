"""Stand-ins for TensorRT-RTX and the CUDA runtime, for machines without a GPU: all of ours.

They keep to what the real ones demand of a caller, as far as that is documented: memory before an
execution, shapes within the context's profile, a stream for all of it. "Device memory" is memory of
this process, so that copies and addresses are real. Logits are row sums of the tokens that count.
A test compares the names with those of the real packages where they are installed.
"""

import ctypes
import enum
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

VERSION = "1.7.1.116"
#: Most rows and tokens of each profile.
PROFILES = ((8, 64), (4, 128))
PLAN = b"\0trt a plan"
STREAM = 77
INPUTS = ("input_ids", "attention_mask")


def logits_of(tensors: dict[str, np.ndarray]) -> np.ndarray:
    sums: np.ndarray = (tensors["input_ids"] * tensors["attention_mask"]).sum(axis=1, keepdims=True)
    return sums


def _names(kind: Any, name: str, *members: str) -> Any:
    """An enum of the library's, of which only the names matter."""
    return kind(name, members)


class Status(enum.Enum):
    cudaSuccess = 0  # noqa: N815 - CUDA's own names
    cudaErrorInsufficientDriver = 35  # noqa: N815
    cudaErrorNoDevice = 100  # noqa: N815


class Cuda(ModuleType):
    """`cuda.bindings.runtime` on a machine with one GPU, or without one."""

    def __init__(self) -> None:
        super().__init__("cuda.bindings.runtime")
        self.capability = (8, 9)
        self.driver = 13030
        self.failure: Status | None = None
        self.cudaError_t = Status
        self.cudaMemcpyKind = _names(
            enum.Enum, "cudaMemcpyKind", "cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost"
        )
        self.cudaDeviceAttr = _names(
            enum.Enum, "cudaDeviceAttr",
            "cudaDevAttrComputeCapabilityMajor", "cudaDevAttrComputeCapabilityMinor",
        )  # fmt: skip
        self.memory: dict[int, Any] = {}
        self.selected: list[int] = []

    def cudaDriverGetVersion(self) -> tuple[Status, int]:  # noqa: N802
        return Status.cudaSuccess, self.driver

    def cudaGetDeviceCount(self) -> tuple[Status, int]:  # noqa: N802
        return (self.failure or Status.cudaSuccess), 0 if self.failure else 1

    def cudaGetErrorString(self, status: Status) -> tuple[Status, bytes]:  # noqa: N802
        words = {
            Status.cudaErrorInsufficientDriver: "CUDA driver version is insufficient for CUDA "
            "runtime version",
            Status.cudaErrorNoDevice: "no CUDA-capable device is detected",
        }
        return Status.cudaSuccess, words[status].encode()

    def cudaSetDevice(self, number: int) -> tuple[Status]:  # noqa: N802
        self.selected.append(number)
        return (Status.cudaSuccess,)

    def cudaDeviceGetAttribute(self, attribute: Any, number: int) -> tuple[Status, int]:  # noqa: N802
        assert number == self.selected[-1]
        return Status.cudaSuccess, self.capability[attribute.name.endswith("Minor")]

    def cudaGetDeviceProperties(self, number: int) -> tuple[Status, Any]:  # noqa: N802
        @dataclass
        class Properties:
            name: bytes = b"NVIDIA L4"

        return Status.cudaSuccess, Properties()

    def cudaStreamCreate(self) -> tuple[Status, int]:  # noqa: N802
        return Status.cudaSuccess, STREAM

    def cudaMalloc(self, size: int) -> tuple[Status, int]:  # noqa: N802
        block = (ctypes.c_ubyte * size)()
        self.memory[ctypes.addressof(block)] = block
        return Status.cudaSuccess, ctypes.addressof(block)

    def cudaMemcpyAsync(  # noqa: N802
        self, to: int, source: int, size: int, kind: Any, stream: int
    ) -> tuple[Status]:
        device = to if kind.name.endswith("ToDevice") else source
        assert size <= len(self.memory[device]), "more than was allocated"
        assert stream == STREAM
        ctypes.memmove(to, source, size)
        return (Status.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Status]:  # noqa: N802
        assert stream == STREAM
        return (Status.cudaSuccess,)


@dataclass
class Cache:
    """What one process has compiled, by profile."""

    kernels: bytes = b""
    environment: bytes = b"NVIDIA L4"

    def serialize(self) -> bytes:
        return self.environment + b"|" + self.kernels

    def deserialize(self, data: bytes) -> bool:
        environment, _, kernels = bytes(data).partition(b"|")
        if environment != self.environment:
            return False
        self.kernels = kernels
        return True


@dataclass
class Config:
    strategy: Any = None
    dynamic_shapes_kernel_specialization_strategy: Any = None
    cache: Cache | None = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> Cache:
        return Cache()

    def set_runtime_cache(self, cache: Cache) -> bool:
        self.cache = cache
        return True


@dataclass
class Context:
    """Runs with the memory that it was given; a stranger to other profiles than its own."""

    config: Config
    scratch: int
    profile: int = 0
    memory: int = 0
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)

    def set_optimization_profile_async(self, number: int, stream: int) -> bool:
        assert stream == STREAM
        self.profile = number
        assert self.config.cache is not None
        # Compiled kernels are used again, whichever process compiled them.
        if str(number).encode() not in self.config.cache.kernels:
            self.config.cache.kernels += str(number).encode()
        return True

    def set_device_memory(self, address: int, size: int) -> None:
        assert size >= self.scratch
        self.memory = address

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.places[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        rows, length = PROFILES[self.profile]
        self.shapes[name] = shape
        return shape[0] <= rows and shape[1] <= length

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self.shapes[INPUTS[0]][0], 1) if name == "logits" else self.shapes[name]

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == STREAM
        assert self.memory, "no memory for activations"
        tensors = {name: self._read(name) for name in INPUTS}
        result = np.ascontiguousarray(logits_of(tensors), dtype=np.float32)
        ctypes.memmove(self.places["logits"], result.ctypes.data, result.nbytes)
        return True

    def _read(self, name: str) -> np.ndarray:
        count = int(np.prod(self.shapes[name]))
        block = (ctypes.c_int32 * count).from_address(self.places[name])
        return np.ctypeslib.as_array(block).reshape(self.shapes[name])


class Library(ModuleType):
    """`tensorrt_rtx_bindings`."""

    def __init__(self) -> None:
        super().__init__("tensorrt_rtx_bindings")
        self.__version__ = VERSION
        self.contexts: list[Context] = []
        library = self

        class ILogger:
            Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO"])

        class Engine:
            num_io_tensors = 3
            num_optimization_profiles = len(PROFILES)
            device_memory_size_v2 = 4096

            def get_tensor_name(self, at: int) -> str:
                return (*INPUTS, "logits")[at]

            def get_tensor_mode(self, name: str) -> Any:
                mode = library.TensorIOMode
                return mode.OUTPUT if name == "logits" else mode.INPUT

            def get_tensor_dtype(self, name: str) -> Any:
                kind = library.DataType
                return kind.FLOAT if name == "logits" else kind.INT32

            def get_tensor_shape(self, name: str) -> tuple[int, ...]:
                return (-1, 1) if name == "logits" else (-1, -1)

            def get_tensor_profile_shape(self, name: str, number: int) -> list[tuple[int, int]]:
                assert name in INPUTS
                return [(1, 1), PROFILES[number], PROFILES[number]]

            def create_runtime_config(self) -> Config:
                return Config()

            def create_execution_context(self, config: Config) -> Context:
                context = Context(config, self.device_memory_size_v2)
                library.contexts.append(context)
                return context

        class Runtime:
            def __init__(self, logger: Any) -> None:
                self._logger = logger

            def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
                if plan == PLAN:
                    return Engine()
                self._logger.log(ILogger.Severity.ERROR, "the magic tag does not match\nat line 7")
                return None

            def get_engine_validity(self, plan: bytes) -> tuple[Any, int]:
                return None, library.EngineInvalidityDiagnostics.MALFORMED_ENGINE.value

        self.ILogger, self.Runtime = ILogger, Runtime
        self.DataType = _names(enum.Enum, "DataType", "INT32", "INT64", "FLOAT")
        self.TensorIOMode = _names(enum.Enum, "TensorIOMode", "INPUT", "OUTPUT")
        self.ExecutionContextAllocationStrategy = _names(
            enum.Enum, "ExecutionContextAllocationStrategy", "STATIC", "USER_MANAGED"
        )
        self.DynamicShapesKernelSpecializationStrategy = _names(
            enum.Enum, "DynamicShapesKernelSpecializationStrategy", "LAZY", "NONE"
        )
        self.EngineInvalidityDiagnostics = _names(
            enum.IntFlag, "EngineInvalidityDiagnostics", "VERSION_MISMATCH", "MALFORMED_ENGINE"
        )
