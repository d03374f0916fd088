"""Small tokenizers and model directories, made on the spot; nothing is downloaded."""

import json
import struct
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from engine_builder.artefacts import write_document
from engine_builder.pair_template import PairEncoder, derive_template
from engine_builder.probes import load_probes
from engine_builder.progress import Progress
from reranker_contracts import PrepareIdentity, ServedModel, Toolchain
from reranker_contracts.parity import Reference

MakeTokenizer = Callable[[str], Tokenizer]
MakeSource = Callable[..., Path]

_CORPUS = json.loads(resources.files("engine_builder").joinpath("probes.json").read_text("utf-8"))
_SPECIAL = {
    "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
}


def texts() -> list[str]:
    return [text for entry in _CORPUS["queries"] for text in (entry["query"], *entry["passages"])]


def _wordpiece() -> Tokenizer:
    """As BERT: lower case, [CLS] a [SEP] b [SEP], second segment numbered 1."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=800, special_tokens=_SPECIAL["bert"], show_progress=False
    )
    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def _byte_level(post: str) -> Tokenizer:
    """As RoBERTa (`<s> a </s></s> b </s>`) or ModernBERT (`[CLS] a [SEP] b [SEP]`)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = _SPECIAL["roberta" if post == "roberta" else "bert"]
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    if post == "roberta":
        tokenizer.post_processor = processors.RobertaProcessing(
            ("</s>", 2), ("<s>", 0), add_prefix_space=False
        )
    else:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B [SEP]",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
    return tokenizer


def _unigram() -> Tokenizer:
    """As XLM-RoBERTa: sentence pieces, `<s> a </s></s> b </s>`."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=800, special_tokens=_SPECIAL["roberta"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return tokenizer


@pytest.fixture(scope="session")
def make_tokenizer() -> MakeTokenizer:
    """A trained tokenizer in the manner of a family; a new object on every call."""
    made: dict[str, str] = {}

    def make(family: str) -> Tokenizer:
        if family not in made:
            if family in ("roberta", "modernbert"):
                tokenizer = _byte_level(family)
            else:
                tokenizer = _unigram() if family == "xlm-roberta" else _wordpiece()
            made[family] = tokenizer.to_str()
        return Tokenizer.from_str(made[family])

    return make


@pytest.fixture
def tokenizer_config() -> Callable[[str], dict[str, object]]:
    """tokenizer_config.json that fits a tokenizer of make_tokenizer."""

    def make(family: str) -> dict[str, object]:
        if family in ("roberta", "xlm-roberta"):
            names = {"cls": "<s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
        else:
            names = {
                "cls": "[CLS]",
                "sep": "[SEP]",
                "pad": "[PAD]",
                "unk": "[UNK]",
                "mask": "[MASK]",
            }
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": 1e30,
            **{f"{kind}_token": name for kind, name in names.items()},
        }

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


#: Longest input of the tiny models.
LENGTH = 64


def _config(family: str, vocabulary: int) -> dict[str, object]:
    positions = LENGTH + 2 if family in ("roberta", "xlm-roberta") else LENGTH
    config: dict[str, object] = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": positions,
        "num_labels": 1,
        "initializer_range": 0.3,
        "pad_token_id": 1 if family in ("roberta", "xlm-roberta") else 0,
    }
    if family in ("bert", "electra"):
        config["type_vocab_size"] = 2
    if family in ("roberta", "xlm-roberta"):
        config["type_vocab_size"] = 1
    if family == "distilbert":
        config.update(dim=32, hidden_dim=48, n_layers=3, n_heads=4)
    if family == "electra":
        config["embedding_size"] = 32
    if family == "modernbert":
        config.update(
            cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3, local_attention=16
        )
        config["initializer_cutoff_factor"] = 5.0
    return config


@pytest.fixture
def make_model(
    tmp_path: Path,
    make_tokenizer: Callable[[str], Tokenizer],
    tokenizer_config: Callable[[str], dict[str, object]],
) -> Callable[[str], Path]:
    """A tiny random model of a family with its files; needs torch."""

    def make(family: str) -> Path:
        import torch  # noqa: PLC0415 - only in the builder image
        from transformers import (  # noqa: PLC0415
            AutoConfig,
            AutoModelForSequenceClassification,
        )

        torch.manual_seed(7)
        tokenizer = make_tokenizer(family)
        directory = tmp_path / f"tiny-{family}"
        values = _config(family, tokenizer.get_vocab_size())
        config = AutoConfig.for_model(family, **values)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(directory)
        tokenizer.save(str(directory / "tokenizer.json"))
        (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(family)))
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
        max_length=LENGTH * 2,
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
            recipe=1, torch="2.6", transformers="5.23", onnx="1.23", onnxruntime="1.31"
        ),
    )
    publish(out, tmp_path / "store", identity, progress=Progress("publish"))
    (published,) = (tmp_path / "store/prepared").iterdir()
    return published
