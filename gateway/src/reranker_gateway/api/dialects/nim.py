"""NVIDIA's Reranking NIM: `/v1/ranking`. Source: its API reference, 1.x and 2.x.

Scores are raw logits. The request takes no other field than the four, as the NIM does; the paths of
NVIDIA's hosted API take `top_k` beside them, which clients of that API send.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from reranker_gateway.api.dialects.base import (
    Answers,
    Body,
    Dialect,
    Fault,
    Fields,
    Question,
    Serving,
)
from reranker_gateway.api.dialects.shared import Usage, usage_of


class _Strict(Body):
    model_config = ConfigDict(extra="forbid")


class Query(_Strict):
    """What the passages are ranked for."""

    text: str = Field(min_length=1)


class Passage(_Strict):
    """One text to rank; may be empty."""

    text: str


class RankingRequest(_Strict):
    """Body of `POST /v1/ranking`."""

    model: str = Field(min_length=1, max_length=128)
    query: Query
    passages: list[Passage] = Field(min_length=1)
    truncate: Literal["NONE", "END"] | None = Field(
        None, description="NONE refuses over-long pairs, END cuts them; default set by the server"
    )


class HostedRankingRequest(RankingRequest):
    """Body of `POST /v1/retrieval/…/reranking`."""

    top_k: int | None = Field(None, ge=1, description="Rankings in the answer; default: all")


class Ranking(BaseModel):
    """One passage's place; `index` is its position in the request."""

    index: int
    logit: float


class RankingResponse(BaseModel):
    """Answer of `POST /v1/ranking`: highest logit first."""

    rankings: list[Ranking]
    usage: Usage


class NimError(BaseModel):
    """Every error. `detail` is never null, and no key is `status`: clients trip over both."""

    object: Literal["error"]
    message: str
    detail: dict[str, Any]
    type: str
    code: int


class Nim(Dialect[RankingRequest]):
    """`POST /v1/ranking`."""

    name = "nim"
    title = "NVIDIA Reranking NIM"
    request = RankingRequest
    response = RankingResponse
    error = NimError

    def question(self, asked: RankingRequest, serving: Serving) -> Question:
        """Over-long pairs are as the request says, else as the server does."""
        top = asked.top_k if isinstance(asked, HostedRankingRequest) else None
        return Question(
            queries=[asked.query.text],
            passages=[passage.text for passage in asked.passages],
            model=asked.model,
            truncate=asked.truncate or serving.truncate,
            top=top,
            fields=Fields("query.text", "passages", ".text", "truncate to END"),
        )

    def answer(self, answers: Answers, serving: Serving) -> object:
        """No other keys than these: some clients refuse others."""
        logits = answers.logits.tolist()
        return {
            "rankings": [{"index": index, "logit": logits[index]} for index in answers.order],
            "usage": usage_of(answers),
        }

    def fault(self, fault: Fault) -> dict[str, object]:
        """The union of what the NIM's clients read."""
        return {
            "object": "error",
            "message": fault.message,
            "detail": dict(fault.detail),
            "type": fault.kind,
            "code": fault.status,
        }


class HostedNim(Nim):
    """`POST /v1/retrieval/…/reranking`."""

    title = "NVIDIA Reranking NIM, paths of the hosted API"
    request = HostedRankingRequest
