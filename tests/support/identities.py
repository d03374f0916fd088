"""Versions and manifests of artefacts that nobody built."""

import datetime
from pathlib import Path

from reranker_contracts import (
    ArtefactManifest,
    EngineIdentity,
    Shapes,
    Toolchain,
    digest_of,
    write_manifest,
)
from reranker_contracts.integrity import file_entries

TOOLCHAIN = Toolchain(
    recipe=1,
    torch="2.6",
    transformers="5.23",
    tokenizers="0.23",
    peft="0.21",
    onnx="1.19",
    onnxruntime="1.31",
)


def publish_engine(folder: Path, max_length: int) -> None:
    """Write the manifest that makes an engine for the CPU of the files in `folder`."""
    identity = EngineIdentity(
        prepared="0" * 64,
        runtime="onnxruntime",
        precision="fp32",
        accelerator="cpu",
        max_batch_size=4,
        version="1.31.1",
        recipe=1,
    )
    manifest = ArtefactManifest(
        digest=digest_of(identity),
        identity=identity,
        files=tuple(file_entries(folder)),
        shapes=Shapes(max_batch_size=4, max_length=max_length, token_budget=4 * max_length),
        created_at=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    )
    write_manifest(folder, manifest)
