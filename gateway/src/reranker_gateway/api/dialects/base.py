"""What a dialect is: its request, its answer and its errors around one question."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from http import HTTPStatus
from typing import Any, ClassVar, Final, Generic, NamedTuple, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from reranker_contracts.model import Activation
from reranker_gateway.engine import FloatArray
from reranker_gateway.tokenise import Truncate


class Body(BaseModel):
    """A request. Types are exact; fields that a dialect does not know are passed over."""

    model_config = ConfigDict(extra="ignore", strict=True, hide_input_in_errors=True)


class Fields(NamedTuple):
    """What a request calls its parts, for messages."""

    query: str = "query"
    passages: str = "documents"
    #: What one of them has its text in.
    text: str = ""
    #: Value of the field that has over-long pairs cut; empty where they always are.
    cut: str = ""

    def passage(self, at: int) -> str:
        """One of them by its number."""
        return f"{self.passages}.{at}{self.text}"


_FIELDS: Final = Fields()


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, in no dialect."""

    #: One text for all passages, or one for each.
    queries: list[str]
    passages: list[str]
    #: None when the dialect has no such field or it is left out: whatever is served.
    model: str | None
    truncate: Truncate
    #: Most tokens of one passage that are looked at.
    passage_tokens: int | None = None
    #: Whether the answer holds texts of the request, which must then be kept until it is written.
    keeps_texts: bool = False
    #: How many of the best passages the answer names; None for all.
    top: int | None = None
    #: Whether the answer has logits where the dialect has something else by default.
    raw_scores: bool = False
    fields: Fields = _FIELDS

    def without_texts(self) -> "Question":
        """The same, for the time after tokenisation; texts stay where the answer holds them."""
        return self if self.keeps_texts else replace(self, queries=[], passages=[])


@dataclass(frozen=True, slots=True)
class Serving:
    """What is served, as far as it shows in answers."""

    model: str
    activation: Activation
    max_length: int
    #: What the operator of the server wants for over-long pairs of requests that say nothing.
    truncate: Truncate

    @property
    def cut(self) -> Truncate:
        """The same in dialects whose own servers never refuse an over-long pair."""
        return "END" if self.truncate == "NONE" else self.truncate


@dataclass(frozen=True)
class Answers:
    """Scores of one question; arrays are `[passages]`, in the caller's order."""

    #: With its texts only where it `keeps_texts`.
    question: Question
    #: In all texts of the question.
    characters: int
    logits: FloatArray
    #: Tokens of all pairs, padding not counted.
    tokens: int
    #: Passages that lost tokens.
    truncated: int
    request_id: str
    #: Unix time.
    created: int
    #: Of the stages tokenise, queue and infer, those that there were.
    seconds: Mapping[str, float]

    @cached_property
    def order(self) -> list[int]:
        """Passages, highest logit first, equal ones in the caller's order; at most `top`."""
        order: list[int] = np.argsort(-self.logits, kind="stable").tolist()
        return order[: self.question.top]

    @cached_property
    def probabilities(self) -> list[float]:
        """Sigmoid of each logit, in (0, 1)."""
        # By tanh: nothing overflows, however large the logit.
        return (0.5 + 0.5 * np.tanh(self.logits.astype(np.float64) / 2)).tolist()  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why there is no answer."""

    status: int
    message: str
    #: For programs: the `type` of a GatewayError.
    kind: str
    detail: Mapping[str, object]

    @property
    def phrase(self) -> str:
        """The status in words, without blanks."""
        known = HTTPStatus(self.status).phrase if self.status in _KNOWN else "Error"
        return known.title().replace(" ", "").replace("-", "")


_KNOWN = frozenset(HTTPStatus)
B = TypeVar("B", bound=Body)


class Dialect(ABC, Generic[B]):
    """One API; instances have no state."""

    name: ClassVar[str]
    title: ClassVar[str]
    request: type[B]
    response: ClassVar[Any]
    error: ClassVar[type[BaseModel]]

    @abstractmethod
    def question(self, asked: B, serving: Serving) -> Question:
        """What is asked. Raises InvalidRequestError for what is not supported."""

    @abstractmethod
    def answer(self, answers: Answers, serving: Serving) -> object:
        """The answer's body, ready for JSON."""

    @abstractmethod
    def fault(self, fault: Fault) -> dict[str, object]:
        """The body of an error."""

    def status(self, fault: Fault) -> int:
        """The error's HTTP status."""
        return fault.status

    def headers(self, answers: Answers) -> dict[str, str]:
        """Headers of an answer that only this dialect has."""
        return {}
