"""Hugging Face's Text Embeddings Inference: `/rerank`. Source: its router, 1.9.

Scores are sigmoids, or logits with `raw_scores`. The answer is a bare list.
"""

from typing import Literal

from pydantic import BaseModel, Field, RootModel

from reranker_gateway.api.dialects.base import (
    Answers,
    Body,
    Dialect,
    Fault,
    Fields,
    Question,
    Serving,
)
from reranker_gateway.errors import InvalidRequestError

_KINDS = {
    408: "Overloaded",
    424: "Backend",
    429: "Overloaded",
    500: "Backend",
    503: "Unhealthy",
    504: "Overloaded",
}


_STATUS = {"engine_error": 424, "too_many_passages": 422}


class TeiRequest(Body):
    """Body of `POST /rerank`."""

    query: str
    texts: list[str]
    truncate: bool | None = Field(None, description="Cut over-long pairs; default: yes")
    truncation_direction: Literal["Left", "Right", "left", "right"] = Field(
        "Right", description="Left is not supported"
    )
    raw_scores: bool = Field(False, description="Logits in place of sigmoids")
    return_text: bool = Field(False, description="Put the texts into the answer")


class Rank(BaseModel):
    """One text's place; `index` is its position in the request."""

    index: int
    score: float
    text: str | None = None


class TeiResponse(RootModel[list[Rank]]):
    """Highest score first."""


class TeiError(BaseModel):
    """Every error."""

    error: str
    error_type: Literal["Validation", "Tokenizer", "Backend", "Overloaded", "Empty", "Unhealthy"]


class Tei(Dialect[TeiRequest]):
    """`POST /rerank`."""

    name = "tei"
    title = "Text Embeddings Inference"
    request = TeiRequest
    response = TeiResponse
    error = TeiError

    def question(self, asked: TeiRequest, serving: Serving) -> Question:
        """Over-long pairs are cut unless the request says no."""
        if asked.truncation_direction.lower() == "left":
            raise InvalidRequestError("truncation_direction: Left is not supported; send Right")
        if not asked.texts:
            raise InvalidRequestError("texts: must not be empty", {"empty": True}, status=400)
        return Question(
            queries=[asked.query],
            passages=asked.texts,
            model=None,
            truncate="NONE" if asked.truncate is False else serving.cut,
            keeps_texts=asked.return_text,
            raw_scores=asked.raw_scores,
            fields=Fields(passages="texts", cut="truncate to true"),
        )

    def answer(self, answers: Answers, serving: Serving) -> object:
        """Sorted; `text` only when asked for."""
        question = answers.question
        scores = answers.logits.tolist() if question.raw_scores else answers.probabilities
        return [
            {"index": index, "score": scores[index]}
            | ({"text": question.passages[index]} if question.keeps_texts else {})
            for index in answers.order
        ]

    def status(self, fault: Fault) -> int:
        """Failures of the engine are 424, too many texts 422."""
        return _STATUS.get(fault.kind, fault.status)

    def fault(self, fault: Fault) -> dict[str, object]:
        """One of six types."""
        kind = _KINDS.get(fault.status, "Validation")
        return {
            "error": fault.message,
            "error_type": "Empty" if fault.detail.get("empty") else kind,
        }

    def headers(self, answers: Answers) -> dict[str, str]:
        """Times in milliseconds; `infer` is from the first batch with one of its pairs on."""
        spent = {name: round(1000 * seconds) for name, seconds in answers.seconds.items()}
        tokenise, queue, infer = (spent.get(name, 0) for name in ("tokenise", "queue", "infer"))
        return {
            "x-compute-characters": str(answers.characters),
            "x-compute-tokens": str(answers.tokens),
            "x-compute-time": str(tokenise + infer),
            "x-total-time": str(tokenise + queue + infer),
            "x-tokenization-time": str(tokenise),
            "x-queue-time": str(queue),
            "x-inference-time": str(infer),
        }
