"""Versions of what makes an artefact's bytes; part of every engine's identity."""

import importlib.metadata

from engine_builder.errors import StageError
from reranker_contracts import StageReason, Toolchain

#: Raise when this package's own code changes the bytes that it writes for equal inputs.
RECIPE = 2


def installed_toolchain() -> Toolchain:
    """Read the versions from package metadata; nothing heavy is imported."""
    names = ("torch", "transformers", "onnx", "onnxruntime")
    return Toolchain(recipe=RECIPE, **{name: _version(name) for name in names})


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        raise StageError(
            StageReason.INTERNAL_ERROR,
            f"{name} is not installed; run this in the engine-builder image",
        ) from None
