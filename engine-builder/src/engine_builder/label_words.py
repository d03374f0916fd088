"""The tokens whose logits are a language model's score."""

from tokenizers import Tokenizer

from engine_builder.errors import StageError
from reranker_contracts import StageReason


def label_ids(
    tokenizer: Tokenizer, labels: tuple[str, ...] | tuple[int, ...], vocab_size: int
) -> tuple[int, ...]:
    """Ids of the words in `labels`, or the ids that it holds.

    Raises StageError (ScoringUnknown) for a word of more than one token: only one has a logit.
    """
    found = []
    for label in labels:
        if isinstance(label, int):
            found.append(label)
            continue
        ids = tokenizer.encode(label, add_special_tokens=False).ids
        if len(ids) != 1:
            raise StageError(
                StageReason.SCORING_UNKNOWN,
                f"the label {label!r} has {len(ids)} tokens in this model's tokenizer, its score "
                "is the logit of one; name words of one token in spec.model.labels (--label)",
            )
        found += ids
    if any(number >= vocab_size for number in found):
        raise StageError(
            StageReason.MODEL_INVALID,
            f"the labels are tokens {found}, config.json says vocab_size {vocab_size}; use the "
            "model's own files",
        )
    return tuple(found)
