"""Jina: `/v1/rerank`. Source: the API reference.

As Cohere's first version, but texts come back unless the request says no, and `document` may be
asked for as an object with a `text`.
"""

from typing import Literal

from pydantic import BaseModel, Field

from reranker_gateway.api.dialects.base import Answers, Body, Dialect, Fault, Question, Serving
from reranker_gateway.api.dialects.shared import Text, TextDocument, Usage, texts_of, usage_of


class JinaRequest(Body):
    """Body of `POST /v1/rerank`."""

    model: str = Field(min_length=1, max_length=128)
    query: str | TextDocument
    documents: list[str | TextDocument] = Field(min_length=1)
    top_n: int | None = Field(None, ge=1, description="Results in the answer; default: all")
    return_documents: bool | None = Field(
        None, description="Put the texts into the answer; default: yes"
    )


class JinaResult(BaseModel):
    """One document's place; `index` is its position in the request."""

    index: int
    relevance_score: float
    document: Text | None = None


class JinaResponse(BaseModel):
    """Highest score first."""

    model: str
    object: Literal["list"]
    usage: Usage
    results: list[JinaResult]


class JinaError(BaseModel):
    """Every error."""

    detail: str


class Jina(Dialect[JinaRequest]):
    """`POST /v1/rerank`."""

    name = "jina"
    title = "Jina"
    request = JinaRequest
    response = JinaResponse
    error = JinaError

    def question(self, asked: JinaRequest, serving: Serving) -> Question:
        """What does not fit is cut."""
        return Question(
            queries=texts_of([asked.query]),
            passages=texts_of(asked.documents),
            model=asked.model,
            truncate=serving.cut,
            keeps_texts=asked.return_documents is not False,
            top=asked.top_n,
        )

    def answer(self, answers: Answers, serving: Serving) -> object:
        """Scores are in (0, 1)."""
        question = answers.question
        return {
            "model": question.model,
            "object": "list",
            "usage": usage_of(answers),
            "results": [
                {"index": index, "relevance_score": answers.probabilities[index]}
                | ({"document": {"text": question.passages[index]}} if question.keeps_texts else {})
                for index in answers.order
            ],
        }

    def fault(self, fault: Fault) -> dict[str, object]:
        """Only words."""
        return {"detail": fault.message}
