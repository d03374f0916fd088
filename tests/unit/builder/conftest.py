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
