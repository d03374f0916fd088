"""What a caller can be told. Every failure of a request ends as one of these.

    GatewayError
    ├── InvalidRequestError    400, 422   the caller must change the request
    │   ├── InputTooLongError  422        a pair is longer than the engine takes
    │   └── TextError          422        a text cannot be scored
    ├── UnauthorizedError      401        no API key, or one that is not known
    ├── ModelNotFoundError     404        another model was asked for
    ├── SameRevisionError      409        a pod has asked one of its own kind to compare scores
    ├── BodyTooLargeError      413
    │   └── TooManyPassagesError  413
    ├── BodyTimeoutError       408
    ├── UnsupportedMediaTypeError  415
    ├── OverloadedError        429        come back after `retry_after` seconds
    ├── NotReadyError          503        starting, draining, or Triton is away
    ├── DeadlineExceededError  504        not done within the time that the caller gave
    └── EngineError            500        the engine answered wrongly
        └── EngineUnavailableError  503   the engine did not answer
            └── EngineTimeoutError  503   … in time

Messages name the field, the value and the remedy, and never hold texts of a request.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal


class GatewayError(Exception):
    """Base: an HTTP status, an error type for programs and a message for people."""

    status: int = 500
    type: ClassVar[str] = "internal_error"
    retry_after: int | None = None
    #: Whether the connection ends with the answer.
    closes: ClassVar[bool] = False
    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, message: str, detail: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail: Mapping[str, object] = detail or {}


class InvalidRequestError(GatewayError):
    """The body is not JSON (400) or not a valid request (422)."""

    status = 422
    type = "invalid_request_error"

    def __init__(
        self, message: str, detail: Mapping[str, object] | None = None, *, status: int = 422
    ) -> None:
        super().__init__(message, detail)
        self.status = status


class InputTooLongError(InvalidRequestError):
    """A pair has more tokens than one engine input may have. The wording is NIM's."""

    def __init__(self, length: int, limit: int) -> None:
        super().__init__(f"Input length {length} exceeds maximum allowed token size {limit}")


class TextError(InvalidRequestError):
    """A text that cannot be scored; what it is called is the dialect's to say."""

    def __init__(
        self, kind: Literal["query", "passages"], reason: str, *, may_be_cut: bool
    ) -> None:
        """`may_be_cut`: whether the field that has texts cut is a remedy."""
        super().__init__(f"{kind}: {reason}")
        self.kind = kind
        self.reason = reason
        self.may_be_cut = may_be_cut


class UnauthorizedError(GatewayError):
    """The request shows no API key, or one that is not known."""

    status = 401
    type = "authentication_error"
    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})


class ModelNotFoundError(GatewayError):
    """The request names a model that is not served here."""

    status = 404
    type = "model_not_found"


class SameRevisionError(GatewayError):
    """Scores of a revision are not compared with its own, nor with those of another service."""

    status = 409
    type = "conflict"


class BodyTooLargeError(GatewayError):
    """The body has more bytes than allowed, or more JSON than a request can hold."""

    status = 413
    type = "invalid_request_error"


class TooManyPassagesError(BodyTooLargeError):
    """More passages than one request may have."""

    type = "too_many_passages"


class BodyTimeoutError(GatewayError):
    """The body did not arrive in time; the rest of it is not waited for."""

    status = 408
    type = "timeout"
    closes = True


class UnsupportedMediaTypeError(GatewayError):
    """The body is declared to be something else than JSON."""

    status = 415
    type = "invalid_request_error"


class OverloadedError(GatewayError):
    """The queue is full; `retry_after` is when there should be room, in whole seconds."""

    status = 429
    type = "overloaded"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotReadyError(GatewayError):
    """The server is starting, draining or has lost its engine."""

    status = 503
    type = "service_unavailable"
    retry_after = 1


class DeadlineExceededError(GatewayError):
    """The time that the caller gave is over; what of it waited was dropped."""

    status = 504
    type = "timeout"


class EngineError(GatewayError):
    """The engine refused a batch or answered with something that is not a score."""

    type = "engine_error"


class EngineUnavailableError(EngineError):
    """The engine did not answer: it is restarting or hangs."""

    status = 503
    type = "service_unavailable"
    retry_after = 1


class EngineTimeoutError(EngineUnavailableError):
    """The engine did not answer in time: asking once more would take as long again."""
