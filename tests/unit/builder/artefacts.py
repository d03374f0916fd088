"""Small published artefacts, made without torch."""

import os
from pathlib import Path

from engine_builder.artefacts import CompiledEngine, write_document
from engine_builder.progress import Progress
from engine_builder.shapes import dynamic_shapes
from engine_builder.stages.publish import publish
from reranker_contracts import (
    EngineIdentity,
    PairTemplate,
    ParityReport,
    PrepareIdentity,
    ServedModel,
    Toolchain,
    digest_of,
)
from reranker_contracts.model import PassagePiece, QueryPiece

PREPARE = PrepareIdentity(
    revision="sha256:1",
    toolchain=Toolchain(
        recipe=1, torch="2", transformers="5", tokenizers="0", peft="0", onnx="1", onnxruntime="1"
    ),
)
ENGINE = EngineIdentity(
    prepared=digest_of(PREPARE),
    runtime="onnxruntime",
    precision="fp32",
    accelerator="cpu",
    max_batch_size=32,
    version="1",
    recipe=1,
)


def engine_files(directory: Path, *, size: int = 200_000) -> Path:
    """What compile and validate leave, with random bytes for a graph."""
    version = directory / "repository/reranker/1"
    version.mkdir(parents=True)
    model = ServedModel(
        name="demo",
        architecture="BertForSequenceClassification",
        family="bert",
        max_length=512,
        pad_id=0,
        template=PairTemplate(pieces=(QueryPiece(), PassagePiece())),
        inputs=("input_ids", "attention_mask"),
    )
    report = ParityReport(pairs=2, queries=1, kendall_tau=1, ndcg10_delta=0, max_abs_diff=0.0001)
    (directory / "model.json").write_text(model.to_json())
    (directory / "tokenizer.json").write_text("{}")
    (directory / "parity.json").write_text(report.to_json())
    (version / "model.onnx").write_bytes(os.urandom(size))
    (version.parent / "config.pbtxt").write_text('name: "reranker"\nmax_batch_size: 32\n')
    compiled = CompiledEngine(target=ENGINE.target, shapes=dynamic_shapes(512, 32))
    write_document(directory / "compiled.json", compiled)
    return directory


def published_engine(folder: Path, *, size: int = 200_000) -> Path:
    """A directory `engines/<digest>` below `folder`/store."""
    files = engine_files(folder / "engine-files", size=size)
    publish(files, folder / "store", ENGINE, progress=Progress("publish"))
    return folder / "store/engines" / digest_of(ENGINE)
