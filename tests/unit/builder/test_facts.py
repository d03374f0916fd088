"""What the builder makes of a model's configuration files."""

import json
from pathlib import Path

import pytest

from engine_builder.errors import StageError
from engine_builder.facts import effective_length, read_facts
from engine_builder.files import JSON_LIMITS
from reranker_contracts import StageReason

Changes = dict[str, object]

SENTENCE_TRANSFORMERS = {"activation_fn": "torch.nn.modules.linear.Identity"}


@pytest.mark.parametrize(
    ("changes", "family", "length"),
    [
        ({}, "bert", 512),
        ({"max_position_embeddings": 128}, "bert", 128),
        (
            {
                "model_type": "xlm-roberta",
                "architectures": ["XLMRobertaForSequenceClassification"],
                "max_position_embeddings": 258,
                "pad_token_id": 1,
            },
            "xlm-roberta",
            256,
        ),
        (
            {
                "model_type": "modernbert",
                "architectures": ["ModernBertForSequenceClassification"],
                "max_position_embeddings": 8192,
            },
            "modernbert",
            512,
        ),
    ],
)
def test_longest_input_comes_from_positions_and_tokenizer(
    make_source, changes: Changes, family: str, length: int
) -> None:
    facts = read_facts(make_source(**changes))
    assert (facts.family.name, facts.max_length) == (family, length)
    assert facts.token_types == (family == "bert")


@pytest.mark.parametrize(
    ("changes", "activation"),
    [
        ({}, "sigmoid"),
        ({"sentence_transformers": SENTENCE_TRANSFORMERS}, "none"),
        (
            {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"},
            "sigmoid",
        ),
    ],
)
def test_activation(make_source, changes: Changes, activation: str) -> None:
    assert read_facts(make_source(**changes)).activation == activation


@pytest.mark.parametrize(
    ("changes", "reason", "says"),
    [
        ({"architectures": ["BertModel"]}, StageReason.EMBEDDING_MODEL, "BertModel"),
        ({"architectures": ["BertForMaskedLM"]}, StageReason.EMBEDDING_MODEL, "cross-encoder"),
        (
            {
                "model_type": "qwen3",
                "architectures": ["JinaForRanking"],
                "auto_map": {"AutoModel": "modeling.JinaForRanking"},
            },
            StageReason.LISTWISE_MODEL,
            "scores pairs",
        ),
        (
            {"id2label": {"0": "no", "1": "maybe", "2": "yes"}},
            StageReason.NOT_A_CROSS_ENCODER,
            "3 labels",
        ),
        ({"id2label": None}, StageReason.NOT_A_CROSS_ENCODER, "2 labels"),
        (
            {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
            StageReason.ARCHITECTURE_UNSUPPORTED,
            "LlamaForCausalLM",
        ),
        (
            {"auto_map": {"AutoModel": "evil.Model"}},
            StageReason.CUSTOM_CODE,
            "auto_map",
        ),
        ({"quantization_config": {}}, StageReason.MODEL_INVALID, "quantization_config"),
        ({"architectures": None}, StageReason.MODEL_INVALID, "architectures"),
        ({"architectures": "BertModel"}, StageReason.MODEL_INVALID, "architectures"),
        ({"max_position_embeddings": "many"}, StageReason.MODEL_INVALID, "many"),
        ({"vocab_size": 10**12}, StageReason.MODEL_INVALID, "vocab_size"),
        ({"num_hidden_layers": 10**9}, StageReason.MODEL_INVALID, "num_hidden_layers"),
        ({"max_position_embeddings": 4}, StageReason.MODEL_INVALID, "at least 8"),
        (
            {"sentence_transformers": {"activation_fn": "os.system"}},
            StageReason.MODEL_INVALID,
            "os.system",
        ),
    ],
)
def test_models_that_cannot_be_served(
    make_source, changes: Changes, reason: StageReason, says: str
) -> None:
    with pytest.raises(StageError) as caught:
        read_facts(make_source(**changes))
    assert caught.value.reason is reason
    assert says in caught.value.message


@pytest.mark.parametrize(
    "content",
    [
        b"not json",
        b"[]",
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"a": ' + b"1" * 10_000 + b"}",
        b" " * (JSON_LIMITS["config.json"] + 1),
    ],
    ids=["text", "list", "bytes", "deep", "huge number", "huge file"],
)
def test_hostile_config_is_invalid(make_source, content: bytes) -> None:
    source: Path = make_source()
    (source / "config.json").write_bytes(content)
    with pytest.raises(StageError, match=r"config\.json") as caught:
        read_facts(source)
    assert caught.value.reason is StageReason.MODEL_INVALID
    assert len(caught.value.message) < 400


def test_custom_tokenizer_code_is_refused(make_source) -> None:
    source: Path = make_source()
    (source / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["x"]}})
    )
    with pytest.raises(StageError, match="auto_map"):
        read_facts(source)


def test_wanted_length_beyond_the_model_names_both_numbers(make_source) -> None:
    facts = read_facts(make_source())
    assert effective_length(facts, None) == 512
    assert effective_length(facts, 100) == 100
    with pytest.raises(StageError, match=r"1024.*512") as caught:
        effective_length(facts, 1024)
    assert caught.value.reason is StageReason.MAX_LENGTH_TOO_LONG
