"""A GPU in this machine, by the PyTorch of a CUDA builder image. Without one nothing fails here."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine_builder.batches import Tensors
from engine_builder.errors import StageError
from engine_builder.logits import checked_logits, run_failure
from reranker_contracts import StageReason


def device_capability() -> str | None:
    """Compute capability of the first GPU as `8.9`; None without one."""
    torch = _torch()
    if torch is None:
        return None
    major, minor = torch.cuda.get_device_capability(0)
    return f"{major}.{minor}"


def device_name() -> str | None:
    """Product name of the first GPU."""
    torch = _torch()
    return None if torch is None else str(torch.cuda.get_device_name(0))


def _torch() -> Any:
    try:
        import torch  # noqa: PLC0415 - seconds, and not in every image
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


class GpuScorer:
    """A deserialised engine; PyTorch holds its buffers."""

    def __init__(self, trt: Any, engine: Any) -> None:
        self._torch = _torch()
        self._engine = engine
        self._context = engine.create_execution_context()
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        self._inputs = [
            name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        ]

    @property
    def device(self) -> str:
        """The GPU's product name."""
        return device_name() or "GPU"

    @property
    def inputs(self) -> list[str]:
        """Names of the engine's inputs."""
        return list(self._inputs)

    def run(self, tensors: Tensors, labels: int) -> NDArray[np.float32]:
        """Logits of one batch."""
        try:
            logits = self._run(tensors, labels)
        except RuntimeError as error:
            raise run_failure(error) from error
        return checked_logits(logits, next(iter(tensors.values())).shape[0], labels)

    def _run(self, tensors: Tensors, labels: int) -> NDArray[np.float32]:
        torch, context = self._torch, self._context
        rows, length = next(iter(tensors.values())).shape
        stream = torch.cuda.current_stream()
        context.set_optimization_profile_async(self._profile(rows, length), stream.cuda_stream)
        # Kept until the stream is done: the engine has only their addresses.
        buffers = {name: torch.from_numpy(tensors[name]).cuda() for name in self._inputs}
        for name, buffer in buffers.items():
            context.set_input_shape(name, tuple(buffer.shape))
            context.set_tensor_address(name, buffer.data_ptr())
        logits = torch.empty((rows, labels), dtype=torch.float32, device="cuda")
        context.set_tensor_address("logits", logits.data_ptr())
        if not context.execute_async_v3(stream.cuda_stream):
            raise RuntimeError("execute_async_v3 failed")
        stream.synchronize()
        return np.asarray(logits.cpu().numpy())

    def _profile(self, rows: int, length: int) -> int:
        """The first profile that takes the batch: they are ordered by length."""
        for number in range(self._engine.num_optimization_profiles):
            _, _, largest = self._engine.get_tensor_profile_shape(self._inputs[0], number)
            if rows <= largest[0] and length <= largest[1]:
                return number
        raise StageError(
            StageReason.VALIDATION_FAILED,
            f"the engine has no profile for {rows} rows of {length} tokens; compile it again",
        )
