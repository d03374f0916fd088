"""Names of the files that make up a prepared model and an engine, and the builder's own documents.

The layout is that of docs/architecture.md, "Store layout".
"""

import shutil
from pathlib import Path

from engine_builder.errors import StageError
from engine_builder.progress import Progress
from reranker_contracts import (
    EngineIdentity,
    EngineTarget,
    IntegrityError,
    PrepareIdentity,
    ServedModel,
    Shapes,
    StageReason,
    verify_artefact,
)
from reranker_contracts.base import Document
from reranker_contracts.parity import PROBES, REFERENCE

MODEL = "model.json"
TOKENIZER = "tokenizer.json"
ONNX = "model.onnx"
#: Weights beside the graph, where they pass protobuf's limit of 2 GiB.
ONNX_DATA = "model.onnx.data"
PARITY = "parity.json"
#: A graph in OpenVINO's own form, and its weights.
IR, IR_WEIGHTS = "model.xml", "model.bin"
#: Of a compiled runtime: an engine for one kind of GPU.
PLAN = "model.plan"
#: Between compile and publish; the manifest says the same of a published engine.
COMPILED = "compiled.json"

MODEL_NAME = "reranker"
TRITON_CONFIG = f"repository/{MODEL_NAME}/config.pbtxt"
ENGINE_VERSION = f"repository/{MODEL_NAME}/1"

PREPARED_FILES = (MODEL, TOKENIZER, ONNX, PROBES, REFERENCE)
PREPARED_OPTIONAL = (ONNX_DATA,)
ENGINE_FILES = (MODEL, TOKENIZER, TRITON_CONFIG)
#: One of these is what the runtime loads.
ENGINE_MODELS = tuple(f"{ENGINE_VERSION}/{name}" for name in (ONNX, IR, PLAN))
#: A report, or what pods need to make one: see `validate`.
ENGINE_PROOFS = ((PARITY,), (PROBES, REFERENCE))
ENGINE_OPTIONAL = tuple(f"{ENGINE_VERSION}/{name}" for name in (ONNX_DATA, IR_WEIGHTS))


def known_files(identity: PrepareIdentity | EngineIdentity) -> frozenset[str]:
    """Paths of the files that such an artefact may have, its manifest and provenance left out."""
    if identity.kind == "prepared":
        return frozenset((*PREPARED_FILES, *PREPARED_OPTIONAL))
    proofs = (name for proof in ENGINE_PROOFS for name in proof)
    return frozenset((*ENGINE_FILES, *ENGINE_MODELS, *ENGINE_OPTIONAL, *proofs))


class CompiledEngine(Document):
    """`compiled.json`: what compile made, for the stages after it."""

    target: EngineTarget
    shapes: Shapes


def copy_graph(prepared: Path, out: Path, progress: Progress) -> None:
    """The exported graph as it is, with the weights beside it if there are any."""
    for name in (ONNX, ONNX_DATA):
        if (prepared / name).exists():
            with progress.step(f"copying {name}"):
                shutil.copyfile(prepared / name, out / name)


def read_served_model(directory: Path) -> ServedModel:
    """`model.json` of a directory that an earlier stage wrote."""
    return ServedModel.model_validate_json((directory / MODEL).read_bytes())


def write_document(path: Path, document: Document) -> None:
    """Write a document in its canonical form."""
    path.write_text(document.to_json() + "\n", encoding="utf-8")


def require_published(directory: Path) -> None:
    """Check a published directory; a damaged or missing one is ChecksumMismatch.

    A directory named by a digest must be the artefact of that digest.
    """
    named = directory.name if len(directory.name) == 64 else None
    try:
        verify_artefact(directory, named)
    except IntegrityError as error:
        raise StageError(
            StageReason.CHECKSUM_MISMATCH,
            f"{directory} is damaged: {error}; publish it again",
        ) from error
