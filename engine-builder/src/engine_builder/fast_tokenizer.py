"""The tokenizer of a model, loaded and tried out where it can do no harm."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer

from engine_builder.errors import StageError
from engine_builder.facts import ModelFacts
from engine_builder.pair_template import check_template, derive_template
from engine_builder.room import check_room
from engine_builder.trial import on_trial
from reranker_contracts import PairTemplate, StageReason
from reranker_contracts.parity import ProbeSet


def read_tokenizer(
    source: Path, facts: ModelFacts, length: int, probes: ProbeSet
) -> tuple[str, int, PairTemplate]:
    """The plain fast tokenizer as JSON text, the id to pad with and the pair template.

    Raises StageError for one that cannot be used for inputs of `length` tokens.
    """

    def work() -> dict[str, Any]:
        tokenizer, pad_id = _load(source, facts)
        template = derive_template(tokenizer, token_types=facts.token_types)
        check_template(tokenizer, template, probes.pairs(), token_types=facts.token_types)
        check_room(tokenizer, template, probes, length=length, limit=facts.max_length)
        return {
            "text": tokenizer.to_str(pretty=True),
            "pad_id": pad_id,
            "template": template.to_json(),
        }

    found = on_trial("tokenizer.json", work)
    return found["text"], found["pad_id"], PairTemplate.model_validate_json(found["template"])


def _load(source: Path, facts: ModelFacts) -> tuple[Tokenizer, int]:
    """The fast tokenizer without truncation and padding, and the id to pad with."""
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
    pad_id = fast.pad_token_id if facts.pad_id is None else facts.pad_id
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
    return tokenizer, int(pad_id)
