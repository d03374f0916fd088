"""Finds the module of a runtime; its library is imported only then."""

# ruff: noqa: PLC0415

from engine_builder.errors import StageError
from engine_builder.targets.base import TargetBuilder
from reranker_contracts import StageReason
from reranker_contracts.targets import Runtime


def builder_of(runtime: Runtime) -> TargetBuilder:
    """Raises StageError (TargetUnsupported) when this image lacks the runtime's library."""
    try:
        return _builder(runtime)
    except ImportError as error:
        raise StageError(
            StageReason.TARGET_UNSUPPORTED,
            f"this builder image has no {runtime} ({error.name or error}); use an image that has "
            "it (spec.engine.image), or another spec.engine.runtime (--runtime)",
        ) from error


def _builder(runtime: Runtime) -> TargetBuilder:
    if runtime == "onnxruntime":
        from engine_builder.targets.onnx_runtime import OnnxRuntimeBuilder

        return OnnxRuntimeBuilder()
    if runtime == "openvino":
        from engine_builder.targets.openvino_cpu import OpenVinoBuilder

        return OpenVinoBuilder()
    from engine_builder.targets.tensorrt import RTX, TENSORRT, TensorRtBuilder

    return TensorRtBuilder(RTX if runtime == "tensorrt-rtx" else TENSORRT)
