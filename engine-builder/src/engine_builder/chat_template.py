"""A pair template from a model's chat template, as sentence-transformers uses it.

Since its version 5.4 a CrossEncoder of a language model renders the chat template with one message
of the role `query` and one of the role `document`, after a system message with the default prompt
if there is one. Chat templates that know no such roles are for chatting and say nothing about
pairs.
"""

from typing import Any

from engine_builder.errors import StageError
from engine_builder.families.prompts import Whole
from reranker_contracts import StageReason

_QUERY, _PASSAGE = "QUERY0TEXT", "PASSAGE0TEXT"
#: Trimmed or escaped by templates that change texts.
_SAMPLE = (" <a> & 'B' ", "\n{c} D\n\n")
#: Characters.
_LIMIT = 16_384


def pair_prompt(tokenizer: Any, instruction: str | None) -> Whole | None:
    """The template of a transformers tokenizer for pairs; None when it has none.

    Raises StageError (ScoringUnknown) for one that changes the texts in it.
    """
    if not tokenizer.chat_template:
        return None
    try:
        text = _render(tokenizer, instruction, _QUERY, _PASSAGE)
    except MemoryError:
        raise
    # Whatever a template raises, for roles that it does not know or by mistake.
    except Exception:
        return None
    if text.count(_QUERY) != 1 or text.count(_PASSAGE) != 1:
        return None
    sample = _render(tokenizer, instruction, *_SAMPLE)
    if sample != text.replace(_QUERY, _SAMPLE[0]).replace(_PASSAGE, _SAMPLE[1]):
        raise StageError(
            StageReason.SCORING_UNKNOWN,
            "the model's chat template changes query or passage (it trims or escapes them); set "
            "spec.model.template (--template) to the text that it makes, with {query} and "
            "{passage}",
        )
    if len(text) > _LIMIT or "{query}" in text or "{passage}" in text:
        raise StageError(
            StageReason.SCORING_UNKNOWN,
            f"the model's chat template makes {len(text)} characters, at most {_LIMIT} are "
            "allowed, without {query} and {passage}; set spec.model.template (--template)",
        )
    return Whole(text=text.replace(_QUERY, "{query}").replace(_PASSAGE, "{passage}"), exact=True)


def _render(tokenizer: Any, instruction: str | None, query: str, passage: str) -> str:
    messages = [{"role": "query", "content": query}, {"role": "document", "content": passage}]
    if instruction is not None:
        messages.insert(0, {"role": "system", "content": instruction})
    return str(tokenizer.apply_chat_template(messages, tokenize=False))
