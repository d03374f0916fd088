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
    places = sorted(range(len(order)), key=order.__getitem__)
    ids = [row for part in parts for row in part.ids]
    types = [row for part in parts for row in part.types or ()]
    lengths = [length for part in parts for length in part.lengths]
    return TokenisedRequest(
        ids=[ids[at] for at in places],
        types=[types[at] for at in places] if types else None,
        lengths=[lengths[at] for at in places],
        truncated=sum(part.truncated for part in parts),
    )
