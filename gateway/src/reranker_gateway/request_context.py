"""What accompanies a request through all layers: who asks, until when, and what became of it.

The front (HTTP middleware, gRPC) makes one for each request. It is a context variable, so that the
dialects need not hand it on, and tasks that work for a request have that request's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from reranker_gateway.errors import InvalidRequestError

#: What becomes of a passage that may be shortened.
LongPassages = Literal["cut", "chunk"]

#: Milliseconds that the caller waits, counted from the head of the request.
TIMEOUT_HEADER = b"x-request-timeout-ms"
#: `cut` or `chunk`, for passages that are too long and may be shortened.
LONG_PASSAGES_HEADER = b"x-long-passages"
_LONGEST_TIMEOUT_MS = 86_400_000


class Stage(NamedTuple):
    """A part of the way, on the gateway's clock."""

    name: str
    began: float
    ended: float


@dataclass(slots=True)
class RequestContext:
    """One request. Counts and times are 0 until they are known."""

    request_id: str = ""
    #: Share of whom it takes; "" is everybody who said nothing.
    caller: str = ""
    #: Name of the API that it came by.
    dialect: str = ""
    #: What it wants of passages that are too long; None is what the server does.
    long_passages: LongPassages | None = None
    passages: int = 0
    tokens: int = 0
    #: No work is taken: the server is starting, draining, or without its engine.
    turned_away: bool = False
    #: Passages that lost tokens to the length limit.
    truncated: int = 0
    #: The caller's W3C trace context, as headers.
    trace: dict[str, str] = field(default_factory=dict)
    #: In seconds of the gateway's clock.
    began: float = 0.0
    ended: float = 0.0
    #: When it began in nanoseconds since 1970.
    began_ns: int = 0
    stages: list[Stage] = field(default_factory=list)

    def wall_ns(self, moment: float) -> int:
        """A moment of the gateway's clock in nanoseconds since 1970."""
        return self.began_ns + round((moment - self.began) * 1e9)


_current: ContextVar[RequestContext] = ContextVar("reranker_request")


def current_request() -> RequestContext:
    """That of this task; an empty one outside of any request."""
    return _current.get(None) or RequestContext()


@contextmanager
def request_context(context: RequestContext) -> Iterator[RequestContext]:
    """Make `context` the current one."""
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)


def timeout_seconds(headers: list[tuple[bytes, bytes]]) -> float | None:
    """What the caller's timeout header says; None without one. Raises InvalidRequestError."""
    for name, value in headers:
        if name == TIMEOUT_HEADER:
            if len(value) > 8 or not value.isdigit() or not 0 < int(value) <= _LONGEST_TIMEOUT_MS:
                raise InvalidRequestError(
                    f"{TIMEOUT_HEADER.decode()}: {_shown(value)} is not a number of milliseconds "
                    f"from 1 to {_LONGEST_TIMEOUT_MS}"
                )
            return int(value) / 1000
    return None


def long_passages(headers: list[tuple[bytes, bytes]]) -> LongPassages | None:
    """What the caller's header says; None without one. Raises InvalidRequestError."""
    for name, value in headers:
        if name == LONG_PASSAGES_HEADER:
            match value.strip().lower():
                case b"cut":
                    return "cut"
                case b"chunk":
                    return "chunk"
            raise InvalidRequestError(
                f"{LONG_PASSAGES_HEADER.decode()}: {_shown(value)} is neither cut nor chunk"
            )
    return None


def _shown(value: bytes) -> str:
    return repr(value[:20].decode("latin-1"))
