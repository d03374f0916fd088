"""What the builder makes of a model's configuration files."""

import json
from pathlib import Path

import pytest

from engine_builder.errors import StageError
from engine_builder.facts import effective_length, read_facts
from engine_builder.families.prompts import Whole
from engine_builder.files import JSON_LIMITS
from reranker_contracts import Scoring, StageReason

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
            StageReason.SCORING_UNKNOWN,
            "spec.model.labels",
        ),
        (
            {"model_type": "gpt2", "architectures": ["GPT2ForCausalLM"]},
            StageReason.ARCHITECTURE_UNSUPPORTED,
            "GPT2ForCausalLM",
        ),
        (
            {
                "model_type": "qwen2",
                "architectures": ["Qwen2ForCausalLM"],
                "use_sliding_window": True,
            },
            StageReason.ARCHITECTURE_UNSUPPORTED,
            "use_sliding_window",
        ),
        (
            {
                "model_type": "llama_bidirec",
                "architectures": ["LlamaBidirectionalForSequenceClassification"],
                "auto_map": {"AutoConfig": "llama_bidirectional_model.LlamaBidirectionalConfig"},
                "pooling": "weird",
            },
            StageReason.ARCHITECTURE_UNSUPPORTED,
            "'weird'",
        ),
        (
            {
                "model_type": "llama_bidirec",
                "architectures": ["LlamaBidirectionalModel"],
                "auto_map": {"AutoModel": "llama_bidirectional_model.LlamaBidirectionalModel"},
            },
            StageReason.EMBEDDING_MODEL,
            "LlamaBidirectionalModel",
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
        ({"max_position_embeddings": None}, StageReason.MODEL_INVALID, "embeddings is missing"),
        (
            {
                "model_type": "t5",
                "architectures": ["T5ForSequenceClassification"],
                "max_position_embeddings": None,
            },
            StageReason.ARCHITECTURE_UNSUPPORTED,
            "T5ForSequenceClassification",
        ),
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


def test_a_missing_field_is_named_without_the_rest_of_the_file(make_source) -> None:
    with pytest.raises(StageError, match=r"config\.json: vocab_size is missing") as caught:
        read_facts(make_source(vocab_size=None))
    assert "architectures" not in caught.value.message


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


QWEN3 = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "id2label": None}
NEMOTRON = {
    "model_type": "llama_bidirec",
    "architectures": ["LlamaBidirectionalForSequenceClassification"],
    "auto_map": {"AutoConfig": "llama_bidirectional_model.LlamaBidirectionalConfig"},
    "pooling": "avg",
    "temperature": 2.0,
}


def test_decoders_score_as_their_family_does(make_source) -> None:
    qwen = read_facts(make_source("qwen", **QWEN3, max_position_embeddings=40960))
    assert (qwen.labels, qwen.pooling, qwen.activation) == (("yes", "no"), "last", "sigmoid")
    assert (qwen.pad_side, qwen.temperature) == ("left", 1.0)
    gemma = read_facts(
        make_source("gemma", model_type="gemma", architectures=["GemmaForCausalLM"], id2label=None)
    )
    assert (gemma.labels, gemma.activation) == (("Yes",), "none")
    nemotron = read_facts(make_source("nemotron", **NEMOTRON))
    assert (nemotron.pooling, nemotron.temperature, nemotron.labels) == ("mean", 2.0, ())


def test_long_models_are_built_for_a_usual_length(make_source) -> None:
    source: Path = make_source(**QWEN3, max_position_embeddings=40960)
    (source / "tokenizer_config.json").write_text('{"padding_side": "right"}')
    facts = read_facts(source)
    assert (facts.max_length, facts.pad_side) == (40960, "right")
    assert effective_length(facts, None) == 8192
    assert effective_length(facts, 40960) == 40960


def test_sentence_transformers_files_say_how_it_is_used(make_source) -> None:
    source: Path = make_source(**QWEN3)
    (source / "1_LogitScore").mkdir()
    (source / "1_LogitScore/config.json").write_text('{"true_token_id": 9, "false_token_id": null}')
    (source / "config_sentence_transformers.json").write_text(
        json.dumps(
            {
                "activation_fn": "torch.nn.modules.activation.Sigmoid",
                "prompts": {"web": "find it"},
                "default_prompt_name": "web",
            }
        )
    )
    facts = read_facts(source)
    assert (facts.labels, facts.activation, facts.instruction) == ((9,), "sigmoid", "find it")
    (source / "config_sentence_transformers.json").unlink()
    assert read_facts(source).activation == "none"


def test_a_language_model_that_makes_vectors_is_an_embedding_model(make_source) -> None:
    source: Path = make_source(**QWEN3)
    kinds = ["Transformer", "Pooling", "Normalize"]
    (source / "modules.json").write_text(
        json.dumps([{"type": f"sentence_transformers.models.{kind}"} for kind in kinds])
    )
    with pytest.raises(StageError, match=r"modules\.json") as caught:
        read_facts(source)
    assert caught.value.reason is StageReason.EMBEDDING_MODEL
    (source / "modules.json").write_text('{"type": 3}')
    with pytest.raises(StageError, match=r"modules\.json"):
        read_facts(source)


def test_what_the_user_says_overrules_the_files(make_source) -> None:
    source: Path = make_source(**QWEN3)
    said = Scoring(template="{query} {passage}", labels=("true",), activation="sigmoid")
    facts = read_facts(source, said)
    assert facts.prompt == Whole(text="{query} {passage}")
    assert (facts.labels, facts.activation) == (("true",), "sigmoid")
    assert facts.prompt_is_users
    nemotron = make_source("nemotron", **NEMOTRON)
    assert read_facts(nemotron, Scoring(pooling="last")).pooling == "last"


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (Scoring(template="{query}"), r"{passage} 0 times"),
        (Scoring(template="{query}{query}{passage}"), r"{query} 2 times"),
        (Scoring(template="{passage} {query}"), r"write {query} first"),
        (Scoring(pooling="mean"), "spec.model.pooling (--pooling) mean is not possible"),
        (Scoring(labels=("yes",)), "spec.model.labels (--label) is for language models"),
    ],
)
def test_what_cannot_be_said_names_the_field(make_source, said: Scoring, says: str) -> None:
    with pytest.raises(StageError) as caught:
        read_facts(make_source(), said)
    assert caught.value.reason is StageReason.SCORING_UNKNOWN
    assert says in caught.value.message


def test_an_adapter_alone_names_both_fields(make_source) -> None:
    source: Path = make_source()
    (source / "config.json").rename(source / "adapter_config.json")
    with pytest.raises(StageError, match=r"spec\.model\.adapter .* spec\.model\.source"):
        read_facts(source)
