"""Small tokenizers and model directories, made on the spot; nothing is downloaded."""

import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.tiny_models import family_of, save_tiny_model, tokenizer_kind
from support.tiny_tokenizers import MAKERS
from tokenizers import Tokenizer

from engine_builder.artefacts import write_document
from engine_builder.pair_template import PairEncoder, derive_template
from engine_builder.probes import load_probes
from engine_builder.progress import Progress
from reranker_contracts import PrepareIdentity, ServedModel, Toolchain
from reranker_contracts.parity import Reference

MakeTokenizer = Callable[[str], Tokenizer]
MakeSource = Callable[..., Path]


@pytest.fixture(scope="session")
def make_tokenizer() -> MakeTokenizer:
    """A trained tokenizer in the manner of a model type; a new object on every call."""
    made: dict[str, str] = {}

    def make(kind: str) -> Tokenizer:
        if kind not in made:
            made[kind] = MAKERS[kind]().to_str()
        return Tokenizer.from_str(made[kind])

    return make


BERT = {
    "model_type": "bert",
    "architectures": ["BertForSequenceClassification"],
    "id2label": {"0": "LABEL_0"},
    "max_position_embeddings": 512,
    "vocab_size": 800,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}


def safetensors(values: int) -> bytes:
    """A whole file with one tensor of zeros."""
    entry = {"dtype": "F32", "shape": [values], "data_offsets": [0, 4 * values]}
    header = json.dumps({"classifier.weight": entry}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4 * values)


@pytest.fixture
def make_source(tmp_path: Path) -> MakeSource:
    """A model directory as far as metadata goes; keyword arguments change config.json."""

    def make(name: str = "demo", **changes: object) -> Path:
        directory = tmp_path / name
        directory.mkdir()
        config = {key: value for key, value in {**BERT, **changes}.items() if value is not None}
        (directory / "config.json").write_text(json.dumps(config))
        (directory / "tokenizer.json").write_text("{}")
        (directory / "tokenizer_config.json").write_text('{"model_max_length": 512}')
        (directory / "model.safetensors").write_bytes(safetensors(4))
        return directory

    return make


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """Threads wait for each other longer than a tiny model computes."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture
def make_model(
    tmp_path: Path, make_tokenizer: MakeTokenizer, one_cpu: None
) -> Callable[[str], Path]:
    """A tiny random model of a family with its files; needs torch."""

    def make(name: str) -> Path:
        family = family_of(name)
        directory = tmp_path / f"tiny-{name}"
        save_tiny_model(family, make_tokenizer(tokenizer_kind(family)), directory)
        return directory

    return make


@pytest.fixture
def prepared_tiny(tmp_path: Path, make_tokenizer: MakeTokenizer) -> Path:
    """A published prepared model of the graph in tiny_graphs; needs onnx, but not torch."""
    import onnx  # noqa: PLC0415 - only in the builder image
    from support import tiny_graphs  # noqa: PLC0415

    from engine_builder.batches import pad_batch  # noqa: PLC0415
    from engine_builder.onnx_engine import OnnxEngine  # noqa: PLC0415
    from engine_builder.stages.publish import publish  # noqa: PLC0415

    out = tmp_path / "tiny"
    out.mkdir()
    onnx.save_model(tiny_graphs.cross_encoder(rotary=True), out / "model.onnx")
    tokenizer, probes = make_tokenizer("bert"), load_probes()
    tokenizer.save(str(out / "tokenizer.json"))
    served = ServedModel(
        name="tiny",
        architecture="TinyForSequenceClassification",
        family="bert",
        max_length=128,
        pad_id=0,
        template=derive_template(tokenizer, token_types=False),
        inputs=("input_ids", "attention_mask"),
    )
    encoder = PairEncoder(tokenizer, served.template, served.max_length)
    engine = OnnxEngine(out / "model.onnx")
    logits = [
        float(engine.run(pad_batch([encoder.encode(*pair)], served.pad_id, served.inputs), 1)[0, 0])
        for pair in probes.pairs()
    ]
    for name, document in (
        ("model.json", served),
        ("probe.json", probes),
        ("reference.json", Reference(logits=tuple(logits))),
    ):
        write_document(out / name, document)
    identity = PrepareIdentity(
        revision="r",
        toolchain=Toolchain(
            recipe=1,
            torch="2.6",
            transformers="5.23",
            tokenizers="0.23",
            peft="0.21",
            onnx="1.23",
            onnxruntime="1.31",
        ),
    )
    publish(out, tmp_path / "store", identity, progress=Progress("publish"))
    (published,) = (tmp_path / "store/prepared").iterdir()
    return published
