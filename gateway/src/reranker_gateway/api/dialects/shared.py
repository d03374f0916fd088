"""Parts of requests and answers that several dialects have alike."""

from typing import Any

from pydantic import BaseModel

from reranker_gateway.api.dialects.base import Answers, Body, Fault


class TextDocument(Body):
    """A document as an object."""

    text: str


class Text(BaseModel):
    """A document in an answer."""

    text: str


class Usage(BaseModel):
    """Tokens of all pairs, padding not counted."""

    prompt_tokens: int
    total_tokens: int


class Reason(BaseModel):
    """Why there is no answer, as OpenAI's clients read it."""

    message: str
    type: str
    param: str | None = None
    code: int


class OpenAiError(BaseModel):
    """An error as OpenAI's clients read it."""

    error: Reason


def texts_of(documents: list[Any]) -> list[str]:
    """Documents are strings, or objects with a `text`."""
    return [entry if isinstance(entry, str) else entry.text for entry in documents]


def usage_of(answers: Answers) -> dict[str, int]:
    """`Usage`."""
    return {"prompt_tokens": answers.tokens, "total_tokens": answers.tokens}


def open_ai_error(fault: Fault, status: int, kind: str) -> dict[str, object]:
    """`OpenAiError`."""
    return {"error": {"message": fault.message, "type": kind, "param": None, "code": status}}
