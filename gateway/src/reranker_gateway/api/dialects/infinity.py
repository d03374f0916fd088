"""Infinity: `/rerank`. Source: its server, 0.0.77. Texts in an answer are plain strings."""

from typing import Literal

from pydantic import BaseModel, Field

from reranker_gateway.api.dialects.base import Answers, Body, Dialect, Fault, Question, Serving
from reranker_gateway.api.dialects.shared import OpenAiError, Usage, open_ai_error, usage_of

_ANY_MODEL = "default/not-specified"


class InfinityRequest(Body):
    """Body of `POST /rerank`."""

    query: str = Field(min_length=1)
    documents: list[str] = Field(min_length=1)
    return_documents: bool = Field(False, description="Put the texts into the answer")
    raw_scores: bool = Field(False, description="Logits in place of sigmoids")
    model: str = Field(_ANY_MODEL, min_length=1, max_length=128)
    top_n: int | None = Field(None, ge=1, description="Results in the answer; default: all")


class InfinityResult(BaseModel):
    """One document's place; `index` is its position in the request."""

    relevance_score: float
    index: int
    document: str | None = None


class InfinityResponse(BaseModel):
    """Highest score first."""

    object: Literal["rerank"]
    results: list[InfinityResult]
    model: str
    usage: Usage
    id: str
    created: int


class Infinity(Dialect[InfinityRequest]):
    """`POST /rerank`."""

    name = "infinity"
    title = "Infinity"
    request = InfinityRequest
    response = InfinityResponse
    error = OpenAiError

    def question(self, asked: InfinityRequest, serving: Serving) -> Question:
        """What does not fit is cut."""
        return Question(
            queries=[asked.query],
            passages=asked.documents,
            model=None if asked.model == _ANY_MODEL else asked.model,
            truncate=serving.cut,
            keeps_texts=asked.return_documents,
            top=asked.top_n,
            raw_scores=asked.raw_scores,
        )

    def answer(self, answers: Answers, serving: Serving) -> object:
        """Scores are in (0, 1) unless `raw_scores` is set."""
        question = answers.question
        scores = answers.logits.tolist() if question.raw_scores else answers.probabilities
        return {
            "object": "rerank",
            "results": [
                {"relevance_score": scores[index], "index": index}
                | ({"document": question.passages[index]} if question.keeps_texts else {})
                for index in answers.order
            ],
            "model": question.model or serving.model,
            "usage": usage_of(answers),
            "id": f"infinity-{answers.request_id}",
            "created": answers.created,
        }

    def fault(self, fault: Fault) -> dict[str, object]:
        """OpenAI's shape."""
        return open_ai_error(fault, fault.status, fault.kind)
