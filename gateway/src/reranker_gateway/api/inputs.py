"""Questions to engine inputs, also those that have a query of its own for each passage."""

from itertools import groupby

from reranker_gateway.api.dialects.base import Question
from reranker_gateway.scoring import Scorer
from reranker_gateway.tokenise import TokenisedRequest


async def tokenise(scorer: Scorer, question: Question) -> TokenisedRequest:
    """Engine inputs, one per passage, in the caller's order. Raises InvalidRequestError.

    Each query is tokenised once, whatever the number of passages that it has.
    """
    queries, passages = question.queries, question.passages
    if len(queries) == 1:
        return await _run(scorer, question, queries[0], passages)
    order = sorted(range(len(queries)), key=queries.__getitem__)
    parts = []
    for query, group in groupby(order, key=queries.__getitem__):
        texts = [passages[at] for at in group]
        parts.append(await _run(scorer, question, query, texts))
    return _in_order(parts, order)


async def _run(
    scorer: Scorer, question: Question, query: str, passages: list[str]
) -> TokenisedRequest:
    return await scorer.tokenise(query, passages, question.truncate, question.passage_tokens)


def _in_order(parts: list[TokenisedRequest], order: list[int]) -> TokenisedRequest:
    """The inputs of `parts`, one after the other, belong to the passages `order`."""
    owners: list[int] = []
    first = 0
    for part in parts:
        own = range(part.passages) if part.owners is None else part.owners
        owners += [order[first + owner] for owner in own]
        first += part.passages
    types = [row for part in parts for row in part.types or ()]
    return TokenisedRequest(
        ids=[row for part in parts for row in part.ids],
        types=types or None,
        lengths=[length for part in parts for length in part.lengths],
        truncated=sum(part.truncated for part in parts),
        owners=owners,
    )
