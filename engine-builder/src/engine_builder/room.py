"""Whether inputs cut to a length still differ: what a probe set needs to mean anything."""

from collections.abc import Callable

from tokenizers import Tokenizer

from engine_builder.errors import StageError
from engine_builder.pair_template import PairEncoder
from reranker_contracts import PairTemplate, StageReason
from reranker_contracts.parity import ProbeSet

_UNCUT = 1 << 30
#: Of the probe pairs that differ uncut: of all of them, and of the passages of each query.
_SHARE, _SHARE_OF_QUERY = 0.9, 0.5


def check_room(
    tokenizer: Tokenizer, template: PairTemplate, probes: ProbeSet, *, length: int, limit: int
) -> None:
    """Refuse a `length` at which probe pairs are cut until they are equal.

    `limit` is the model's own longest input. Raises StageError that names the smallest length with
    which the ranking of this model can be compared: MaxLengthTooShort, or ModelInvalid when not
    even `limit` reaches it.
    """
    whole = _distinct(tokenizer, template, probes, _UNCUT)

    def enough(candidate: int) -> bool:
        kept = _distinct(tokenizer, template, probes, candidate)
        each = zip(kept, whole, strict=True)
        return sum(kept) >= _SHARE * sum(whole) and all(
            count >= _SHARE_OF_QUERY * full for count, full in each
        )

    if enough(length):
        return
    smallest = _smallest(enough, length)
    if smallest > limit:
        raise StageError(
            StageReason.MODEL_INVALID,
            f"the model's longest input is {limit} tokens, of which {template.special_tokens} are "
            f"special: too short for a query and a passage; choose a model with at least {smallest}"
            " (config.json: max_position_embeddings, tokenizer_config.json: model_max_length)",
        )
    raise StageError(
        StageReason.MAX_LENGTH_TOO_SHORT,
        f"max length {length} leaves passages so few tokens beside the query and "
        f"{template.special_tokens} special tokens that different ones become equal; ask for at "
        f"least {smallest}",
    )


def _distinct(
    tokenizer: Tokenizer, template: PairTemplate, probes: ProbeSet, length: int
) -> list[int]:
    """Different inputs of each query, at this length."""
    encoder = PairEncoder(tokenizer, template, length)
    return [
        len({encoder.encode(entry.query, passage) for passage in entry.passages})
        for entry in probes.queries
    ]


def _smallest(enough: Callable[[int], bool], low: int) -> int:
    """The smallest length above `low` that is enough; what differs at one does at all longer."""
    high = 2 * low
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
