"""Cohere: `/v1/rerank` and `/v2/rerank`. Source: the API reference and SDK 7.3.

Documents are never refused for their length. `max_tokens_per_doc` is kept when it is given; its
default of 4096 is not, because then the same texts would be scored otherwise than in the other
dialects.
"""

import math
from typing import Any

from pydantic import BaseModel, Field

from reranker_gateway.api.dialects.base import Answers, Body, Dialect, Fault, Question, Serving
from reranker_gateway.api.dialects.shared import TextDocument, texts_of, usage_of
from reranker_gateway.errors import InvalidRequestError

_DOCUMENTS_PER_UNIT = 100


class CohereRequest(Body):
    """Body of `POST /v1/rerank` and `POST /v2/rerank`."""

    model: str | None = Field(None, min_length=1, max_length=128)
    query: str = Field(min_length=1)
    documents: list[str | TextDocument] = Field(min_length=1)
    top_n: int | None = Field(None, ge=1, description="Results in the answer; default: all")
    max_tokens_per_doc: int | None = Field(
        None, ge=1, description="Tokens of a document that are looked at; default: what fits"
    )
    return_documents: bool | None = Field(None, description="Put the texts into the answer")
    rank_fields: list[str] | None = Field(None, description="Not supported; leave it out")


class CohereResult(BaseModel):
    """One document's place; `index` is its position in the request."""

    index: int
    relevance_score: float
    document: dict[str, Any] | None = None


class CohereResponse(BaseModel):
    """Highest score first. `model` and `usage` are there for clients of similar APIs."""

    id: str
    model: str
    results: list[CohereResult]
    meta: dict[str, Any]
    usage: dict[str, int]


class CohereError(BaseModel):
    """Every error."""

    message: str


class Cohere(Dialect[CohereRequest]):
    """`POST /v1/rerank`."""

    name = "cohere"
    title = "Cohere, v1"
    request = CohereRequest
    response = CohereResponse
    error = CohereError
    version = "1"

    def question(self, asked: CohereRequest, serving: Serving) -> Question:
        """What does not fit is cut."""
        if asked.rank_fields:
            raise InvalidRequestError(
                "rank_fields: not supported; put the fields into one text per document"
            )
        return Question(
            queries=[asked.query],
            passages=texts_of(asked.documents),
            model=asked.model,
            truncate=serving.cut,
            passage_tokens=asked.max_tokens_per_doc,
            keeps_texts=bool(asked.return_documents),
            top=asked.top_n,
        )

    def answer(self, answers: Answers, serving: Serving) -> object:
        """Scores are in (0, 1)."""
        question = answers.question
        units = math.ceil(len(answers.logits) / _DOCUMENTS_PER_UNIT)
        return {
            "id": answers.request_id,
            "model": question.model or serving.model,
            "results": [
                {"index": index, "relevance_score": answers.probabilities[index]}
                | ({"document": {"text": question.passages[index]}} if question.keeps_texts else {})
                for index in answers.order
            ],
            "meta": {
                "api_version": {"version": self.version},
                "billed_units": {"search_units": units},
                "tokens": {"input_tokens": answers.tokens},
            },
            "usage": usage_of(answers),
        }

    def fault(self, fault: Fault) -> dict[str, object]:
        """Only words: the SDK tells errors apart by their status."""
        return {"message": fault.message}


class CohereV2(Cohere):
    """`POST /v2/rerank`."""

    title = "Cohere, v2"
    version = "2"
