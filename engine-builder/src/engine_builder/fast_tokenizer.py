"""The tokenizer of a model, loaded and tried out where it can do no harm."""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer

from engine_builder.chat_template import pair_prompt
from engine_builder.errors import StageError
from engine_builder.facts import ModelFacts
from engine_builder.families.prompts import Joined
from engine_builder.label_words import label_ids
from engine_builder.pair_template import PairEncoder, Tokens, check_template, derive_template
from engine_builder.prompt_template import join_template, split_template
from engine_builder.room import check_room
from engine_builder.tokenizer_files import copy_cleaned
from engine_builder.trial import on_trial
from reranker_contracts import PairTemplate, ServedModel, StageReason
from reranker_contracts.parity import ProbeSet


@dataclass(frozen=True)
class ReadTokenizer:
    """What export needs of a tokenizer: plain values, since it was read in another process."""

    #: The plain fast tokenizer as JSON.
    text: str
    pad_id: int
    template: PairTemplate
    #: Tokens of a language model's labels.
    labels: tuple[int, ...]


def read_tokenizer(source: Path, facts: ModelFacts, length: int, probes: ProbeSet) -> ReadTokenizer:
    """Read the tokenizer of the model in `source`.

    Raises StageError for one that cannot be used for inputs of `length` tokens.
    """

    def work() -> dict[str, Any]:
        copy_cleaned(source, Path(clean))
        fast, tokenizer = _load(Path(clean))
        template = _template(fast, tokenizer, facts, probes)
        check_room(tokenizer, template, probes, length=length, limit=facts.max_length)
        return {
            "text": tokenizer.to_str(pretty=True),
            "pad_id": _pad_id(fast, tokenizer, facts),
            "template": template.to_json(),
            "labels": label_ids(tokenizer, facts.labels, facts.vocab_size),
        }

    # Of this process: one that comes to harm leaves it behind.
    with tempfile.TemporaryDirectory(prefix="tokenizer-") as clean:
        found = on_trial("tokenizer.json", work)
    return ReadTokenizer(
        text=found["text"],
        pad_id=found["pad_id"],
        template=PairTemplate.model_validate_json(found["template"]),
        labels=tuple(found["labels"]),
    )


def encode_pairs(text: str, served: ServedModel, pairs: Iterable[tuple[str, str]]) -> list[Tokens]:
    """The pairs as the engine will see them; as `read_tokenizer` for one that comes to harm.

    `text` is the tokenizer's, which may behave on all texts but these.
    """

    def work() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        encoder = PairEncoder(Tokenizer.from_str(text), served.template, served.max_length)
        rows = (encoder.encode(query, passage) for query, passage in pairs)
        return [(row.ids, row.type_ids) for row in rows]

    return [Tokens(tuple(ids), tuple(types)) for ids, types in on_trial("tokenizer.json", work)]


def _template(fast: Any, tokenizer: Tokenizer, facts: ModelFacts, probes: ProbeSet) -> PairTemplate:
    """The user's words, else those of a chat template for pairs, else the family's."""
    prompt = facts.prompt
    if facts.family.is_decoder and not facts.prompt_is_users:
        prompt = pair_prompt(fast, facts.instruction) or prompt
    if isinstance(prompt, Joined):
        return join_template(tokenizer, prompt)
    if prompt is not None:
        return split_template(tokenizer, prompt, probes.pairs())
    if facts.family.is_decoder:
        raise StageError(
            StageReason.SCORING_UNKNOWN,
            f"none of the model's files says how {facts.architecture} joins query and passage; set "
            "spec.model.template as the model's card has it",
        )
    template = derive_template(tokenizer, token_types=facts.token_types)
    check_template(tokenizer, template, probes.pairs(), token_types=facts.token_types)
    return template


def _load(source: Path) -> tuple[Any, Tokenizer]:
    """The tokenizer of transformers, and the fast one in it without truncation and padding."""
    try:
        fast = AutoTokenizer.from_pretrained(
            source, local_files_only=True, trust_remote_code=False, use_fast=True
        )
        tokenizer: Tokenizer = fast.backend_tokenizer
    except MemoryError:
        raise
    # The Rust tokenizers library raises plain Exception for malformed files.
    except Exception as error:
        raise StageError(
            StageReason.MODEL_INVALID,
            f"the tokenizer cannot be loaded: {str(error).strip()[:300]}; save the model anew "
            "with its fast tokenizer (tokenizer.json) and config.json",
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return fast, tokenizer


def _pad_id(fast: Any, tokenizer: Tokenizer, facts: ModelFacts) -> int:
    """The id to pad with; every id of the tokenizer is one of the model."""
    pad_id = fast.pad_token_id if facts.pad_id is None else facts.pad_id
    if pad_id is None and facts.family.is_decoder:
        # What is padding is told by the attention mask alone.
        pad_id = 0
    if pad_id is None:
        raise StageError(
            StageReason.MODEL_INVALID, "config.json: pad_token_id is missing; add the padding id"
        )
    largest = max(pad_id, *tokenizer.get_vocab(with_added_tokens=True).values())
    if largest >= facts.vocab_size:
        raise StageError(
            StageReason.MODEL_INVALID,
            f"the tokenizer has token {largest}, config.json says vocab_size {facts.vocab_size}; "
            "use the tokenizer that belongs to the model",
        )
    return int(pad_id)
