"""Triton backend `tensorrt_rtx` for NVIDIA GPUs, on top of Triton's python backend.

Parameters in config.pbtxt: `compute_capability` is that of the GPU that the plan was built for,
`version` the TensorRT-RTX that built it; both must be those found here. Never run on a GPU yet.

The plan has an optimisation profile for each range of lengths. Each gets an execution context when
the first batch needs it, which is in Triton's warm-up. Batches run one after the other, so that all
contexts share one stream, one buffer for each tensor and one for activations.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt_rtx_bindings as trt
import triton_python_backend_utils as pb_utils
from reranker_backend import (
    Backend,
    ModelRejectedError,
    TensorInfo,
    model_config,
    model_path,
    parameter,
)
from rtx_device import Device, DeviceError, open_device

_TYPES: dict[Any, type] = {
    trt.DataType.INT32: np.int32,
    trt.DataType.INT64: np.int64,
    trt.DataType.FLOAT: np.float32,
}
#: Where compiled kernels are kept for the next start of this container.
_CACHE = "RERANKER_RTX_CACHE"
_CACHE_DEFAULT = "/tmp/tensorrt-rtx"  # noqa: S108 - a volume of the pod
#: Twice this has to fit into that volume beside what else is there.
_LARGEST_CACHE = 64 << 20


class TritonPythonModel:
    """One instance of the served model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the plan. An exception makes Triton refuse the load and report its text."""
        config = model_config(args)
        path = model_path(args, config)
        check_version(parameter(config, "version", ""))
        try:
            device = open_device(int(args.get("model_instance_device_id", "0")))
            check_device(parameter(config, "compute_capability", ""), device)
            self._session = RtxSession(path, device)
        except DeviceError as error:
            raise ModelRejectedError(str(error)) from error
        self._backend = Backend("tensorrt_rtx", config, self._session)
        pb_utils.Logger.log_info(
            f"tensorrt_rtx {trt.__version__}: {path.name} on {device.name}, "
            f"{self._session.profiles} profiles"
        )

    def finalize(self) -> None:
        """Triton unloads the model."""
        self._backend.unload()
        self._session.close()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by one inference."""
        return [self._backend.answer(request) for request in requests]


def check_version(wanted: str) -> None:
    """A plan runs on the very version that built it. Raises ModelRejectedError."""
    if wanted != trt.__version__:
        raise ModelRejectedError(
            f"the plan was built with TensorRT-RTX {wanted or 'of an unknown version'}, this image "
            f"has {trt.__version__}; builder and Triton images of one version are needed"
        )


def check_device(wanted: str, device: Device) -> None:
    """Raises ModelRejectedError for a GPU of another kind."""
    if wanted != device.compute_capability:
        raise ModelRejectedError(
            f"the plan needs a GPU of compute capability {wanted or '(unknown)'}, here is "
            f"{device.compute_capability} ({device.name})"
        )


class RtxSession:
    """A plan on the GPU. Raises ModelRejectedError for a file that can't be run here."""

    def __init__(self, path: Path, device: Device) -> None:
        plan = path.read_bytes()
        self._device = device
        self._logger = _Logger()
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise ModelRejectedError(f"{path} cannot be loaded: {self._why(plan)}")
        names = [self._engine.get_tensor_name(at) for at in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._is_input(name)]
        self.inputs = [self._info(name) for name in inputs]
        self.outputs = [self._info(name) for name in names if name not in inputs]
        self.profiles = int(self._engine.num_optimization_profiles)
        #: Most rows and tokens of each profile, the shortest first.
        self._most = [
            tuple(self._engine.get_tensor_profile_shape(inputs[0], number)[2])
            for number in range(self.profiles)
        ]
        self._scratch = int(self._engine.device_memory_size_v2)
        self._scratch_at = device.allocate(self._scratch)
        self._places = {
            entry.name: device.allocate(self._largest(entry))
            for entry in (*self.inputs, *self.outputs)
        }
        self._contexts: dict[int, Any] = {}
        key = hashlib.sha256(plan).hexdigest()[:16]
        self._cache_file = Path(os.environ.get(_CACHE) or _CACHE_DEFAULT) / f"{key}.cache"
        # Contexts do not keep it alive, and the library crashes without it.
        self._cache: Any = None

    def run(self, names: Sequence[str], feeds: dict[str, np.ndarray]) -> Sequence[np.ndarray]:
        """The named outputs for these inputs."""
        arrays = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        shapes = {array.shape for array in arrays.values()}
        if len(shapes) != 1:
            raise ValueError(f"inputs of different shapes: {sorted(shapes)}")
        number = self._profile(*shapes.pop())
        fresh = number not in self._contexts
        context = self._contexts.get(number) or self._new_context(number)
        for name, array in arrays.items():
            if not context.set_input_shape(name, array.shape):
                raise self._failure(f"does not take {name} of shape {array.shape}")
            self._device.to_device(self._places[name], array)
        if not context.execute_async_v3(self._device.stream):
            raise self._failure("failed")
        values = []
        for name in names:
            value = np.empty(tuple(context.get_tensor_shape(name)), self._type(name))
            self._device.to_host(value, self._places[name])
            values.append(value)
        self._device.synchronise()
        if fresh:
            self._save_cache()
        return values

    def close(self) -> None:
        """Contexts go before what they were made from."""
        self._contexts.clear()

    def _profile(self, rows: int, length: int) -> int:
        """The first profile that takes the batch: they are ordered by length."""
        for number, (most_rows, longest) in enumerate(self._most):
            if rows <= most_rows and length <= longest:
                return number
        raise ValueError(f"the engine has no profile for {rows} rows of {length} tokens")

    def _new_context(self, number: int) -> Any:
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(
            trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        # Else each new shape, of which there are thousands, would be compiled for beside the
        # batches, and pairs be scored by other kernels than those that were measured.
        config.dynamic_shapes_kernel_specialization_strategy = (
            trt.DynamicShapesKernelSpecializationStrategy.NONE
        )
        if self._cache is None:
            self._cache = self._open_cache(config)
        config.set_runtime_cache(self._cache)
        context = self._engine.create_execution_context(config)
        if context is None:
            raise self._failure("gives no execution context")
        if not context.set_optimization_profile_async(number, self._device.stream):
            raise self._failure(f"does not take profile {number}")
        context.set_device_memory(self._scratch_at, self._scratch)
        for name, place in self._places.items():
            context.set_tensor_address(name, place)
        self._contexts[number] = context
        return context

    def _open_cache(self, config: Any) -> Any:
        """With the kernels of an earlier start, if they are for this GPU, driver and library."""
        cache = config.create_runtime_cache()
        try:
            if self._cache_file.is_file() and not cache.deserialize(self._cache_file.read_bytes()):
                pb_utils.Logger.log_info(f"{self._cache_file} is not for this GPU or driver")
        except OSError as error:
            pb_utils.Logger.log_warn(f"compiled kernels can't be read: {error}")
        return cache

    def _save_cache(self) -> None:
        """A Triton that crashes compiles no kernels when it starts again in this container."""
        data = memoryview(self._cache.serialize())
        if data.nbytes > _LARGEST_CACHE:
            pb_utils.Logger.log_info(f"{data.nbytes >> 20} MiB of compiled kernels are not kept")
            return
        part = self._cache_file.with_suffix(f".{os.getpid()}")
        try:
            self._cache_file.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(data)
            part.replace(self._cache_file)
        except OSError as error:
            pb_utils.Logger.log_warn(f"compiled kernels can't be kept: {error}")

    def _is_input(self, name: str) -> bool:
        return bool(self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT)

    def _type(self, name: str) -> type:
        return _TYPES.get(self._engine.get_tensor_dtype(name), object)

    def _info(self, name: str) -> TensorInfo:
        return TensorInfo(name, self._type(name), len(self._engine.get_tensor_shape(name)))

    def _largest(self, entry: TensorInfo) -> int:
        """Bytes of the tensor's largest value: its own dimensions, or those of the profiles."""
        most = [max(column) for column in zip(*self._most, strict=True)]
        sizes = [
            known if known > 0 else limit
            for known, limit in zip(self._engine.get_tensor_shape(entry.name), most, strict=False)
        ]
        return int(np.prod(sizes)) * np.dtype(entry.dtype).itemsize

    def _failure(self, what: str) -> RuntimeError:
        return RuntimeError(f"the engine {what}: {self._logger.worst or 'no reason given'}")

    def _why(self, plan: bytes) -> str:
        """What the library says of a plan that it does not take."""
        _, bits = self._runtime.get_engine_validity(plan)
        known = trt.EngineInvalidityDiagnostics.__members__
        said = [name for name, entry in known.items() if int(bits) & int(entry.value)]
        return "; ".join([*said, *filter(None, [self._logger.worst])]) or "it is not an engine"


class _Logger(trt.ILogger):  # type: ignore[misc]
    """Keeps the last error, which is all that a failed call says of its reason."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.worst = ""

    def log(self, severity: Any, text: str) -> None:
        """The library's own words."""
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self.worst = text.strip().splitlines()[0][:300] if text.strip() else ""
