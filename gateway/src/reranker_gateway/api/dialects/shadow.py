"""What a pod of the former revision asks one of the new revision. See `shadow`.

The two may be of different versions: fields are only ever added, with defaults.
"""

from typing import Final

from pydantic import BaseModel, Field

from reranker_gateway.api.dialects.base import (
    Answers,
    Body,
    Dialect,
    Fault,
    Fields,
    Question,
    Serving,
)
from reranker_gateway.api.dialects.nim import Nim, NimError
from reranker_gateway.tokenise import Truncate

#: As metrics and logs name it.
SHADOW: Final = "shadow"
_NIM: Final = Nim()


class ShadowRequest(Body):
    """A request as the former revision has understood it."""

    query: str
    passages: list[str] = Field(min_length=1)
    truncate: Truncate
    passage_tokens: int | None = Field(None, ge=1)


class ShadowResponse(BaseModel):
    """Logits in the order of the passages."""

    revision: str
    logits: list[float]


class Shadow(Dialect[ShadowRequest]):
    """Logits, and whose they are."""

    name = SHADOW
    title = "Shadow traffic"
    request = ShadowRequest
    response = ShadowResponse
    error = NimError

    def __init__(self, revision: str) -> None:
        """`revision` is that of this process."""
        self._revision = revision

    def question(self, asked: ShadowRequest, serving: Serving) -> Question:
        """As it was asked there, whatever the settings here."""
        return Question(
            queries=[asked.query],
            passages=asked.passages,
            model=None,
            truncate=asked.truncate,
            passage_tokens=asked.passage_tokens,
            fields=Fields(passages="passages", cut="truncate to END"),
        )

    def answer(self, answers: Answers, serving: Serving) -> object:
        """All of them."""
        return {"revision": self._revision, "logits": answers.logits.tolist()}

    def fault(self, fault: Fault) -> dict[str, object]:
        """As what belongs to no API."""
        return _NIM.fault(fault)
