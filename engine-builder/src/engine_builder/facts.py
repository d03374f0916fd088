"""What a model's own configuration files say, read without loading it.

`resolve` judges a source by these facts before anything big is downloaded; `export` uses the same
ones, so both agree.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine_builder.errors import StageError
from engine_builder.families import FAMILIES, Family, find_family
from engine_builder.files import parse_json_object, read_metadata
from reranker_contracts import StageReason

#: Below this a pair has no room for text between its special tokens.
MIN_LENGTH = 8
#: Architectures that read all passages of a query at once, as JinaForRanking does.
_LISTWISE = re.compile(r"ForRanking$|Listwise")
#: Tokenizers without a limit of their own say 1e30.
_NO_LIMIT = 1e9

Dimension = Annotated[int, Field(ge=1, le=1 << 24)]


class _Config(BaseModel):
    """The part of config.json that decides; bounds keep a hostile one from costing memory."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    model_type: str
    architectures: list[str] = Field(min_length=1)
    num_labels: int | None = None
    id2label: dict[str, object] | None = None
    max_position_embeddings: Dimension
    vocab_size: Dimension
    num_hidden_layers: Annotated[int, Field(ge=1, le=1024)] | None = None
    hidden_size: Annotated[int, Field(ge=1, le=1 << 16)] | None = None
    intermediate_size: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    n_layers: Annotated[int, Field(ge=1, le=1024)] | None = None
    dim: Annotated[int, Field(ge=1, le=1 << 16)] | None = None
    pad_token_id: Annotated[int, Field(ge=0, le=1 << 24)] | None = None
    type_vocab_size: Annotated[int, Field(ge=0, le=1 << 16)] = 0
    auto_map: object = None
    attn_implementation: object = None
    own_attn_implementation: object = Field(default=None, alias="_attn_implementation")
    transformers_weights: object = None
    quantization_config: object = None
    sentence_transformers: dict[str, object] | None = None
    sbert_ce_default_activation_function: str | None = None


class _TokenizerConfig(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    model_max_length: float | None = None
    auto_map: object = None
    fast_tokenizer_files: object = None


_File = TypeVar("_File", _Config, _TokenizerConfig)


@dataclass(frozen=True)
class ModelFacts:
    """A cross-encoder of a known family."""

    architecture: str
    family: Family
    max_length: int
    vocab_size: int
    token_types: bool
    pad_id: int | None
    activation: Literal["none", "sigmoid"]


def read_facts(directory: Path) -> ModelFacts:
    """Judge the model in `directory` by config.json and tokenizer_config.json.

    Raises StageError when it is malformed, not a cross-encoder, of an unknown family or wants
    code of its own to be run.
    """
    config = _parse(_Config, directory / "config.json")
    tokenizer = _TokenizerConfig()
    if (directory / "tokenizer_config.json").exists():
        tokenizer = _parse(_TokenizerConfig, directory / "tokenizer_config.json")
    _refuse_listwise(config)
    _refuse_code(config, tokenizer)
    family = _cross_encoder_family(config)
    _refuse_other_files(config, tokenizer)
    if config.quantization_config is not None:
        raise StageError(
            StageReason.MODEL_INVALID,
            "config.json: quantization_config is set; use the model's unquantised weights",
        )
    return ModelFacts(
        architecture=family.architecture,
        family=family,
        max_length=_longest_input(config, tokenizer, family),
        vocab_size=config.vocab_size,
        token_types=family.token_types and config.type_vocab_size > 1,
        pad_id=config.pad_token_id,
        activation=_activation(config),
    )


def _refuse_listwise(config: _Config) -> None:
    """Before their code: without it they would be refused all the same."""
    architecture = config.architectures[0][:100]
    if _LISTWISE.search(architecture):
        raise StageError(
            StageReason.LISTWISE_MODEL,
            f"config.json: {architecture} scores all passages of a query together, so a passage "
            "has no score of its own; use a cross-encoder, which scores pairs",
        )


def _refuse_code(config: _Config, tokenizer: _TokenizerConfig) -> None:
    """Fields by which transformers would run code from a repository."""
    if config.auto_map is not None or tokenizer.auto_map is not None:
        raise StageError(
            StageReason.CUSTOM_CODE,
            "config.json: auto_map asks for code from the model's repository, which is never run; "
            "use a model of a family that transformers itself implements",
        )
    for value in (config.attn_implementation, config.own_attn_implementation):
        if value is not None and not re.fullmatch("[a-z0-9_]+", str(value)):
            raise StageError(
                StageReason.CUSTOM_CODE,
                f"config.json: attn_implementation {str(value)[:80]!r} asks for code from a "
                "repository, which is never run; remove the field",
            )


def _refuse_other_files(config: _Config, tokenizer: _TokenizerConfig) -> None:
    """Fields by which transformers would load other files than the ones that were hashed."""
    for where, field, value in (
        ("config.json", "transformers_weights", config.transformers_weights),
        ("tokenizer_config.json", "fast_tokenizer_files", tokenizer.fast_tokenizer_files),
    ):
        if value is not None:
            raise StageError(
                StageReason.MODEL_INVALID,
                f"{where}: {field} names other files; remove the field and give the files their "
                "usual names, model.safetensors and tokenizer.json",
            )


def effective_length(facts: ModelFacts, wanted: int | None) -> int:
    """Longest input to build for, in tokens; `wanted` beyond the model's limit is refused."""
    if wanted is None:
        return facts.max_length
    if wanted > facts.max_length:
        raise StageError(
            StageReason.MAX_LENGTH_TOO_LONG,
            f"spec.engine.maxLength {wanted} is more than the model's {facts.max_length} tokens; "
            f"ask for at most {facts.max_length}",
        )
    return wanted


def _parse(kind: type[_File], path: Path) -> _File:
    value = parse_json_object(path.name, read_metadata(path))
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise StageError(
            StageReason.MODEL_INVALID,
            f"{path.name}: {field}: {first['msg']} (got {str(first['input'])[:80]!r}); correct the "
            "field",
        ) from error


def _cross_encoder_family(config: _Config) -> Family:
    architecture = config.architectures[0][:100]
    family = find_family(config.model_type)
    if architecture.endswith(("Model", "ForMaskedLM", "ForPreTraining")):
        raise StageError(
            StageReason.EMBEDDING_MODEL,
            f"config.json: architectures is {architecture}, an embedding or language model, which "
            "has no head that scores a pair; use a cross-encoder (…ForSequenceClassification with "
            "one label)",
        )
    if family is None or architecture != family.architecture:
        known = ", ".join(entry.architecture for entry in FAMILIES)
        raise StageError(
            StageReason.ARCHITECTURE_UNSUPPORTED,
            f"config.json: {architecture} (model_type {config.model_type[:40]}) is not supported; "
            f"use one of {known}",
        )
    labels = _labels(config)
    if labels != 1:
        raise StageError(
            StageReason.NOT_A_CROSS_ENCODER,
            f"config.json: {architecture} has {labels} labels, so it is a classifier; use a "
            "cross-encoder, whose one label is the score",
        )
    return family


def _labels(config: _Config) -> int:
    if config.id2label is not None:
        return len(config.id2label)
    # The default of transformers when the file names no labels.
    return 2 if config.num_labels is None else config.num_labels


def _longest_input(config: _Config, tokenizer: _TokenizerConfig, family: Family) -> int:
    limit = config.max_position_embeddings
    if family.positions_after_pad:
        limit -= 1 + (1 if config.pad_token_id is None else config.pad_token_id)
    if tokenizer.model_max_length is not None and tokenizer.model_max_length < _NO_LIMIT:
        limit = min(limit, int(tokenizer.model_max_length))
    if limit < MIN_LENGTH:
        raise StageError(
            StageReason.MODEL_INVALID,
            f"the model's longest input is {limit} tokens (max_position_embeddings, "
            f"model_max_length); use a model of at least {MIN_LENGTH}",
        )
    return limit


def _activation(config: _Config) -> Literal["none", "sigmoid"]:
    named = (config.sentence_transformers or {}).get("activation_fn")
    named = named or config.sbert_ce_default_activation_function
    if named is None:
        return "sigmoid"
    known: dict[str, Literal["none", "sigmoid"]] = {"Identity": "none", "Sigmoid": "sigmoid"}
    activation = known.get(str(named).rsplit(".", 1)[-1])
    if activation is None:
        raise StageError(
            StageReason.MODEL_INVALID,
            f"config.json: the activation function {str(named)[:80]} is not supported; "
            "use a model with Identity or Sigmoid",
        )
    return activation
