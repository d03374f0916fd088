"""What a model's own configuration files say, read without loading it.

`resolve` judges a source by these facts before anything big is downloaded; `export` uses the same
ones, so both agree.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine_builder.config_files import (
    LOGIT_SCORE,
    MODULES,
    SENTENCE_TRANSFORMERS,
    Config,
    LogitScore,
    SentenceTransformersConfig,
    TokenizerConfig,
    missing,
    module_types,
    parse,
    parse_optional,
    pooling_of,
)
from engine_builder.errors import StageError
from engine_builder.families import FAMILIES, Family, find_family
from engine_builder.families.prompts import Joined, Whole
from reranker_contracts import Pooling, Scoring, StageReason

#: Below this a pair has no room for text between its special tokens.
MIN_LENGTH = 8
#: Default for models that allow more: as the model cards of such rerankers have it. Longer inputs
#: cost memory in every engine, so they are for those who ask.
USUAL_LENGTH = 8192
#: Architectures that read all passages of a query at once, as JinaForRanking does.
_LISTWISE = re.compile(r"ForRanking$|Listwise")
_EMBEDDING = re.compile(r"(Model|ForMaskedLM|ForPreTraining)$")
#: Tokenizers without a limit of their own say 1e30.
_NO_LIMIT = 1e9


@dataclass(frozen=True)
class ModelFacts:
    """A reranker of a known family and how it comes to its score."""

    architecture: str
    family: Family
    max_length: int
    vocab_size: int
    token_types: bool
    pad_id: int | None
    pad_side: Literal["left", "right"]
    activation: Literal["none", "sigmoid"]
    #: None: the head does it by itself.
    pooling: Pooling | None
    #: Around the texts; None: the tokenizer's own pairs.
    prompt: Joined | Whole | None
    #: The prompt was written by the user, so a template among the model's files does not count.
    prompt_is_users: bool
    #: For sentence-transformers' templates: the text of a system message before the pair.
    instruction: str | None
    #: Words, or ids of tokens, of head `labels`.
    labels: tuple[str, ...] | tuple[int, ...]
    #: The logit is divided by it.
    temperature: float


def read_facts(directory: Path, scoring: Scoring | None = None) -> ModelFacts:
    """Judge the model in `directory` by its configuration files; `scoring` overrules them.

    Raises StageError when it is malformed, not a cross-encoder, of an unknown family or wants
    code of its own to be run.
    """
    said = scoring or Scoring()
    config = _read_config(directory)
    tokenizer = parse_optional(TokenizerConfig, directory / "tokenizer_config.json")
    tokenizer = tokenizer or TokenizerConfig()
    use = parse_optional(SentenceTransformersConfig, directory / SENTENCE_TRANSFORMERS)
    use = use or SentenceTransformersConfig()
    _refuse_listwise(config)
    _refuse_embedding(config, directory)
    _refuse_code(config, tokenizer)
    family = _family(config)
    _refuse_other_files(config, tokenizer)
    _refuse_unservable(config)
    labels = _labels(directory, family, said)
    return ModelFacts(
        architecture=family.architecture,
        family=family,
        max_length=_longest_input(config, tokenizer, family),
        vocab_size=config.vocab_size,
        token_types=family.token_types and config.type_vocab_size > 1,
        pad_id=config.pad_token_id,
        pad_side="left" if family.is_decoder and tokenizer.padding_side != "right" else "right",
        activation=said.activation or _activation(config, use, family, labels),
        pooling=_pooling(config, family, said),
        prompt=_prompt(said) or family.prompt,
        prompt_is_users=said.template is not None,
        instruction=(use.prompts or {}).get(use.default_prompt_name or ""),
        labels=labels,
        temperature=config.temperature if family.pooling == "mean" else 1.0,
    )


def _read_config(directory: Path) -> Config:
    if not (directory / "config.json").exists() and (directory / "adapter_config.json").exists():
        raise StageError(
            StageReason.MODEL_INVALID,
            "config.json is missing, this is a LoRA adapter; name it in spec.model.adapter "
            "(--adapter) and its base model in spec.model.source (--source)",
        )
    return parse(Config, directory / "config.json")


def _refuse_listwise(config: Config) -> None:
    """Before their code: without it they would be refused all the same."""
    architecture = config.architectures[0][:100]
    if _LISTWISE.search(architecture):
        raise StageError(
            StageReason.LISTWISE_MODEL,
            f"config.json: {architecture} scores all passages of a query together, so a passage "
            "has no score of its own; use a cross-encoder, which scores pairs",
        )


def _refuse_embedding(config: Config, directory: Path) -> None:
    """Language models that sentence-transformers pools to a vector look like rerankers else."""
    architecture = config.architectures[0][:100]
    if _EMBEDDING.search(architecture):
        found = f"config.json: architectures is {architecture}, an embedding or language model"
    elif "Pooling" in module_types(directory):
        found = f"{MODULES}: Pooling makes an embedding model of {architecture}"
    else:
        return
    raise StageError(
        StageReason.EMBEDDING_MODEL,
        f"{found}, which has no head that scores a pair; use a cross-encoder "
        "(…ForSequenceClassification with one label)",
    )


def _refuse_code(config: Config, tokenizer: TokenizerConfig) -> None:
    """Fields by which transformers would run code from a repository.

    Code that a family replaces is not asked for.
    """
    family = find_family(config.model_type, config.architectures[0])
    replaced = family is not None and family.implementation is not None
    if (config.auto_map is not None and not replaced) or tokenizer.auto_map is not None:
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


def _refuse_other_files(config: Config, tokenizer: TokenizerConfig) -> None:
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


def _refuse_unservable(config: Config) -> None:
    if config.quantization_config is not None:
        raise StageError(
            StageReason.MODEL_INVALID,
            "config.json: quantization_config is set; use the model's unquantised weights",
        )
    if config.use_sliding_window:
        raise StageError(
            StageReason.ARCHITECTURE_UNSUPPORTED,
            "config.json: use_sliding_window is true, attention over a part of the input is not "
            "supported; use a model with full attention",
        )


def effective_length(facts: ModelFacts, wanted: int | None) -> int:
    """Longest input to build for, in tokens; `wanted` beyond the model's limit is refused."""
    if wanted is None:
        return min(facts.max_length, USUAL_LENGTH)
    if wanted > facts.max_length:
        raise StageError(
            StageReason.MAX_LENGTH_TOO_LONG,
            f"spec.engine.maxLength (--max-length) {wanted} is more than the model's "
            f"{facts.max_length} tokens; ask for at most {facts.max_length}",
        )
    return wanted


def _family(config: Config) -> Family:
    architecture = config.architectures[0][:100]
    family = find_family(config.model_type, architecture)
    if family is None:
        known = ", ".join(entry.architecture for entry in FAMILIES)
        raise StageError(
            StageReason.ARCHITECTURE_UNSUPPORTED,
            f"config.json: {architecture} (model_type {config.model_type[:40]}) is not supported; "
            f"use one of {known}",
        )
    labels = _head_width(config)
    if family.head != "labels" and labels != 1:
        raise StageError(
            StageReason.NOT_A_CROSS_ENCODER,
            f"config.json: {architecture} has {labels} labels, so it is a classifier; use a "
            "cross-encoder, whose one label is the score",
        )
    return family


def _head_width(config: Config) -> int:
    if config.id2label is not None:
        return len(config.id2label)
    # The default of transformers when the file names no labels.
    return 2 if config.num_labels is None else config.num_labels


def _labels(directory: Path, family: Family, said: Scoring) -> tuple[str, ...] | tuple[int, ...]:
    if family.head != "labels":
        if said.labels is not None:
            raise StageError(
                StageReason.SCORING_UNKNOWN,
                f"spec.model.labels (--label) is for language models, {family.architecture} has a "
                "head that scores; remove the field",
            )
        return ()
    if said.labels is not None:
        return said.labels
    score = parse_optional(LogitScore, directory / LOGIT_SCORE)
    if score is not None:
        ids = (score.true_token_id, score.false_token_id)
        return tuple(number for number in ids if number is not None)
    if not family.labels:
        raise StageError(
            StageReason.SCORING_UNKNOWN,
            f"config.json: {family.architecture} is a language model, and none of its files says "
            "which word's logit is the score; set spec.model.labels (--label) and "
            "spec.model.template (--template) as the model's card has them",
        )
    return family.labels


def _prompt(said: Scoring) -> Whole | None:
    if said.template is None:
        return None
    for text in ("{query}", "{passage}"):
        if said.template.count(text) != 1:
            raise StageError(
                StageReason.SCORING_UNKNOWN,
                f"spec.model.template (--template) holds {text} {said.template.count(text)} times; "
                "write it with {query} and {passage}, each once",
            )
    if said.template.index("{passage}") < said.template.index("{query}"):
        raise StageError(
            StageReason.SCORING_UNKNOWN,
            "spec.model.template (--template): the passage stands before the query; write {query} "
            "first",
        )
    return Whole(text=said.template)


def _pooling(config: Config, family: Family, said: Scoring) -> Pooling | None:
    own = config.classifier_pooling if family.name == "modernbert" else config.pooling
    if said.pooling is None:
        if not family.is_decoder:
            return None
        if family.causal or own is None:
            return family.pooling
        found = pooling_of(own)
        if found is None:
            raise StageError(
                StageReason.ARCHITECTURE_UNSUPPORTED,
                f"config.json: pooling {own[:40]!r} is not supported; use a model with avg, cls or "
                "last",
            )
        return found
    possible: tuple[str, ...] = ("cls", "mean") if family.name == "modernbert" else ()
    if family.head == "score":
        possible = ("cls", "last", "mean")
    if said.pooling not in possible:
        raise StageError(
            StageReason.SCORING_UNKNOWN,
            f"spec.model.pooling (--pooling) {said.pooling} is not possible with "
            f"{family.architecture}; "
            + (f"use {' or '.join(possible)}" if possible else "remove the field"),
        )
    return said.pooling


def _longest_input(config: Config, tokenizer: TokenizerConfig, family: Family) -> int:
    limit = config.max_position_embeddings
    if limit is None:
        raise missing("config.json", "max_position_embeddings")
    if family.positions_after_pad:
        limit -= 1 + (1 if config.pad_token_id is None else config.pad_token_id)
    if tokenizer.model_max_length is not None and tokenizer.model_max_length < _NO_LIMIT:
        # JSON has numbers, such as -1e999, that become infinite.
        limit = min(limit, int(max(0, tokenizer.model_max_length)))
    if limit < MIN_LENGTH:
        raise StageError(
            StageReason.MODEL_INVALID,
            f"the model's longest input is {limit} tokens (max_position_embeddings, "
            f"model_max_length); use a model of at least {MIN_LENGTH}",
        )
    return limit


def _activation(
    config: Config,
    use: SentenceTransformersConfig,
    family: Family,
    labels: tuple[str, ...] | tuple[int, ...],
) -> Literal["none", "sigmoid"]:
    named = (config.sentence_transformers or {}).get("activation_fn") or use.activation_fn
    named = named or config.sbert_ce_default_activation_function
    if named is None:
        # One logit of a language model is no log-odds, so a sigmoid makes no probability of it.
        return "none" if len(labels) == 1 else family.activation
    known: dict[str, Literal["none", "sigmoid"]] = {"Identity": "none", "Sigmoid": "sigmoid"}
    activation = known.get(str(named).rsplit(".", 1)[-1])
    if activation is None:
        raise StageError(
            StageReason.MODEL_INVALID,
            f"config.json: the activation function {str(named)[:80]} is not supported; "
            "use a model with Identity or Sigmoid",
        )
    return activation
