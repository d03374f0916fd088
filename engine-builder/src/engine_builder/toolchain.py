"""Versions of what makes an artefact's bytes; part of every engine's identity."""

import importlib.metadata
from itertools import chain

from engine_builder.cpus import cpu_flags
from engine_builder.errors import StageError
from reranker_contracts import Runtimes, StageReason, Toolchain
from reranker_contracts.targets import CPU_FEATURES

#: Raise when this package's own code changes the bytes that it writes for equal inputs.
RECIPE = 2
#: The same for what `targets` writes.
TARGET_RECIPE = 4


def installed_toolchain() -> Toolchain:
    """Read the versions from package metadata; nothing heavy is imported."""
    names = ("torch", "transformers", "tokenizers", "peft", "onnx", "onnxruntime")
    return Toolchain(recipe=RECIPE, **{name: _version(name) for name in names})


def installed_runtimes() -> Runtimes:
    """What this image can build engines for, and the versions that make their bytes."""
    return Runtimes(
        recipe=TARGET_RECIPE,
        onnxruntime=_version("onnxruntime"),
        openvino=_optional_version("openvino"),
        tensorrt=_optional_version("tensorrt"),
        cpu_features=tuple(sorted(cpu_flags() & set(chain(*CPU_FEATURES.values())))),
        tensorrt_rtx=_optional_version("tensorrt_rtx_cu13_bindings"),
    )


def _optional_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        raise StageError(
            StageReason.INTERNAL_ERROR,
            f"{name} is not installed; run this in the engine-builder image",
        ) from None
