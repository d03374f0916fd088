"""Questions to engine inputs, also those that have a query of its own for each passage."""

from dataclasses import replace
from itertools import groupby

from reranker_gateway.api.dialects.base import Question
from reranker_gateway.errors import InputTooLongError, InvalidRequestError, TextError
from reranker_gateway.scoring import Scorer
from reranker_gateway.tokenise import MOST_WINDOWS, TokenisedRequest, together


async def tokenise(scorer: Scorer, question: Question) -> TokenisedRequest:
    """Engine inputs, one or more per passage, in the caller's order. Raises InvalidRequestError.

    Each query is tokenised once, whatever the number of passages that it has.
    """
    fields = question.fields
    try:
        inputs = await _tokenise(scorer, question)
    except TextError as error:
        field = fields.query if error.kind == "query" else fields.passages
        remedy = f" or set {fields.cut}" if error.may_be_cut else ""
        raise InvalidRequestError(f"{field}: {error.reason}{remedy}") from None
    except InputTooLongError as error:
        # Beside the message, whose wording clients know.
        error.detail = {
            "hint": f"shorten it, or set {fields.cut}: it is cut then, or scored in windows where "
            "X-Long-Passages or the server has chunk"
        }
        raise
    if inputs.empty is not None:
        raise InvalidRequestError(
            f"{fields.passage(inputs.empty)}: it and {fields.query} hold no tokens; send a text "
            "in either"
        )
    return inputs


async def _tokenise(scorer: Scorer, question: Question) -> TokenisedRequest:
    queries, passages = question.queries, question.passages
    truncate, most = question.truncate, question.passage_tokens
    if len(queries) == 1:
        return await scorer.tokenise(queries[0], passages, truncate, most)
    order = sorted(range(len(queries)), key=queries.__getitem__)
    parts: list[TokenisedRequest] = []
    left = MOST_WINDOWS
    for query, group in groupby(order, key=queries.__getitem__):
        texts = [passages[at] for at in group]
        parts.append(await scorer.tokenise(query, texts, truncate, most, most_windows=left))
        left -= parts[-1].extra_windows
    return _in_order(parts, order)


def _in_order(parts: list[TokenisedRequest], order: list[int]) -> TokenisedRequest:
    """The inputs of `parts`, one after the other, belong to the passages `order`."""
    owners: list[int] = []
    first = 0
    for part in parts:
        own = range(part.passages) if part.owners is None else part.owners
        owners += [order[first + owner] for owner in own]
        first += part.passages
    return replace(together(parts), owners=owners)
