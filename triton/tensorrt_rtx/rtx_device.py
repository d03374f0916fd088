"""The GPU of one model instance: its kind, memory and stream, by the CUDA runtime."""

from typing import Any

import numpy as np
from cuda.bindings import runtime as cuda

_MAJOR = cuda.cudaDeviceAttr.cudaDevAttrComputeCapabilityMajor
_MINOR = cuda.cudaDeviceAttr.cudaDevAttrComputeCapabilityMinor
_TO_DEVICE = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
_TO_HOST = cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost


class DeviceError(Exception):
    """There is no GPU, or it fails; the message says which."""


class Device:
    """One GPU with one stream, on which everything happens in order."""

    def __init__(self, number: int) -> None:
        _call(cuda.cudaSetDevice(number))
        major = _call(cuda.cudaDeviceGetAttribute(_MAJOR, number))
        self.compute_capability = f"{major}.{_call(cuda.cudaDeviceGetAttribute(_MINOR, number))}"
        name = _call(cuda.cudaGetDeviceProperties(number)).name
        self.name = name.decode("utf-8", "replace").strip("\0") if isinstance(name, bytes) else name
        self._stream = _call(cuda.cudaStreamCreate())

    @property
    def stream(self) -> int:
        """Handle for TensorRT-RTX."""
        return int(self._stream)

    def allocate(self, size: int) -> int:
        """Address of so many bytes, for as long as the process lives."""
        return int(_call(cuda.cudaMalloc(max(size, 1))))

    def to_device(self, address: int, array: np.ndarray) -> None:
        """Copy a contiguous array there, which must be kept until `synchronise`."""
        _call(
            cuda.cudaMemcpyAsync(
                address, array.ctypes.data, array.nbytes, _TO_DEVICE, self._stream
            )
        )

    def to_host(self, array: np.ndarray, address: int) -> None:
        """Fill a contiguous array from there; it has its values after `synchronise`."""
        _call(
            cuda.cudaMemcpyAsync(array.ctypes.data, address, array.nbytes, _TO_HOST, self._stream)
        )

    def synchronise(self) -> None:
        """Wait for all of it."""
        _call(cuda.cudaStreamSynchronize(self._stream))


def open_device(number: int) -> Device:
    """Raises DeviceError where there is none, or its driver is too old."""
    # Without a driver the runtime's own words are those for one that is too old.
    if not _call(cuda.cudaDriverGetVersion()):
        raise DeviceError("the plan needs a GPU, here is no NVIDIA driver")
    _call(cuda.cudaGetDeviceCount())
    return Device(number)


def _call(result: tuple[Any, ...]) -> Any:
    """The value of a CUDA call, which gives its status first."""
    status, *values = result
    if status != cuda.cudaError_t.cudaSuccess:
        _, words = cuda.cudaGetErrorString(status)
        text = words.decode() if isinstance(words, bytes) else str(words)
        raise DeviceError(f"CUDA: {text} ({status.name})")
    return values[0] if values else None
