"""vLLM: `/score` and the rerank paths. Source: `vllm/entrypoints/pooling/scoring`.

Scores have the model's own activation, mostly a sigmoid; with `use_activation: false` none.
Over-long pairs are refused with 400 unless `truncate_prompt_tokens` cuts them. Reranked
documents always come back with their texts; `/score` keeps the caller's order.
"""

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from reranker_gateway.api.dialects.base import (
    Answers,
    Body,
    Dialect,
    Fault,
    Fields,
    Question,
    Serving,
)
from reranker_gateway.api.dialects.shared import OpenAiError, Text, Usage, open_ai_error, usage_of
from reranker_gateway.errors import InvalidRequestError
from reranker_gateway.tokenise import Truncate

_PAIRS = (
    ("text_1", "text_2"),
    ("data_1", "data_2"),
    ("queries", "documents"),
    ("queries", "items"),
)
_CUT = "truncate_prompt_tokens to -1"
_Texts = str | list[str] | None


class _VllmRequest(Body):
    model: str | None = Field(None, min_length=1, max_length=128)
    truncate_prompt_tokens: int | None = Field(
        None, ge=-1, description="-1 or the model's length cuts over-long pairs; default: refuse"
    )
    truncation_side: Literal["left", "right"] | None = Field(
        None, description="left is not supported"
    )
    use_activation: bool | None = Field(None, description="false: logits; default: true")


class VllmScoreRequest(_VllmRequest):
    """Body of `POST /score`: one text and one or many others, or as many of both."""

    text_1: _Texts = None
    text_2: _Texts = None
    data_1: _Texts = None
    data_2: _Texts = None
    queries: _Texts = None
    documents: _Texts = None
    items: _Texts = None

    @model_validator(mode="after")
    def _one_pair(self) -> "VllmScoreRequest":
        given = [pair for pair in _PAIRS if all(getattr(self, name) is not None for name in pair)]
        if len(given) != 1:
            raise ValueError("send text_1 and text_2, or queries and documents")
        queries, passages = self.texts()
        if not queries or not passages or len(queries) not in {1, len(passages)}:
            raise ValueError(
                f"{len(queries)} texts of the first and {len(passages)} of the second cannot be "
                "paired; send one first text, or as many as second ones"
            )
        return self

    def pair(self) -> tuple[str, str]:
        """The fields of both sides."""
        return next(
            pair for pair in _PAIRS if all(getattr(self, name) is not None for name in pair)
        )

    def texts(self) -> tuple[list[str], list[str]]:
        """Both sides as lists."""
        first, second = self.pair()
        return _listed(getattr(self, first)), _listed(getattr(self, second))


class VllmRerankRequest(_VllmRequest):
    """Body of the rerank paths."""

    query: str
    documents: list[str] = Field(min_length=1)
    top_n: int | None = Field(None, ge=0, description="Results in the answer; 0: all")


class Score(BaseModel):
    """Of one pair."""

    index: int
    object: Literal["score"]
    score: float


class VllmScoreResponse(BaseModel):
    """In the caller's order."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Score]
    usage: Usage


class VllmResult(BaseModel):
    """One document's place; `index` is its position in the request."""

    index: int
    document: Text
    relevance_score: float


class VllmRerankResponse(BaseModel):
    """Highest score first."""

    id: str
    model: str
    usage: Usage
    results: list[VllmResult]


class _Vllm:
    """What both have in common."""

    @staticmethod
    def status(fault: Fault) -> int:
        """Invalid requests are 400, over-long ones too."""
        return 400 if fault.status == 422 else fault.status

    @classmethod
    def fault(cls, fault: Fault) -> dict[str, object]:
        """OpenAI's shape."""
        status = cls.status(fault)
        kind = "BadRequestError" if status == 400 else f"{fault.phrase}Error"
        return open_ai_error(fault, status, kind)


class VllmScore(_Vllm, Dialect[VllmScoreRequest]):
    """`POST /score`."""

    name = "vllm"
    title = "vLLM, score"
    request = VllmScoreRequest
    response = VllmScoreResponse
    error = OpenAiError

    def question(self, asked: VllmScoreRequest, serving: Serving) -> Question:
        """Pairs of a first with a second text."""
        queries, passages = asked.texts()
        return Question(
            queries=queries,
            passages=passages,
            model=asked.model,
            truncate=_truncate(asked, serving),
            raw_scores=asked.use_activation is False,
            fields=Fields(*asked.pair(), cut=_CUT),
        )

    def answer(self, answers: Answers, serving: Serving) -> object:
        """A list in the caller's order."""
        scores = _scores(answers, serving)
        return {
            "id": f"score-{answers.request_id}",
            "object": "list",
            "created": answers.created,
            "model": answers.question.model or serving.model,
            "data": [
                {"index": index, "object": "score", "score": score}
                for index, score in enumerate(scores)
            ],
            "usage": usage_of(answers),
        }


class VllmRerank(_Vllm, Dialect[VllmRerankRequest]):
    """`POST /rerank`, `/v1/rerank`, `/v2/rerank`."""

    name = "vllm"
    title = "vLLM, rerank"
    request = VllmRerankRequest
    response = VllmRerankResponse
    error = OpenAiError

    def question(self, asked: VllmRerankRequest, serving: Serving) -> Question:
        """`top_n: 0` is all."""
        return Question(
            queries=[asked.query],
            passages=asked.documents,
            model=asked.model,
            truncate=_truncate(asked, serving),
            keeps_texts=True,
            top=asked.top_n or None,
            raw_scores=asked.use_activation is False,
            fields=Fields(cut=_CUT),
        )

    def answer(self, answers: Answers, serving: Serving) -> object:
        """Always with the texts."""
        scores = _scores(answers, serving)
        return {
            "id": f"rerank-{answers.request_id}",
            "model": answers.question.model or serving.model,
            "usage": usage_of(answers),
            "results": [
                {
                    "index": index,
                    "document": {"text": answers.question.passages[index]},
                    "relevance_score": scores[index],
                }
                for index in answers.order
            ],
        }


def _listed(texts: _Texts) -> list[str]:
    return [texts] if isinstance(texts, str) else texts or []


def _truncate(asked: _VllmRequest, serving: Serving) -> Truncate:
    if asked.truncation_side == "left":
        raise InvalidRequestError("truncation_side: left is not supported; send right")
    limit = asked.truncate_prompt_tokens
    if limit is None:
        return serving.truncate
    if limit == -1 or limit >= serving.max_length:
        return serving.cut
    raise InvalidRequestError(
        f"truncate_prompt_tokens: {limit} is less than the model's {serving.max_length}; send -1 "
        "to cut to the model's length"
    )


def _scores(answers: Answers, serving: Serving) -> list[float]:
    raw = serving.activation == "none" or answers.question.raw_scores
    return answers.logits.tolist() if raw else answers.probabilities
