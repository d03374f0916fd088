"""What is told to a caller in place of an answer."""

from dataclasses import dataclass
from typing import Any, Final, NoReturn

import grpc

from reranker_gateway.errors import GatewayError

STATUS: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


@dataclass(frozen=True)
class Refusal:
    """A status and its message.

    Not the error itself: its traceback holds the caller's message for as long as it lives.
    """

    status: grpc.StatusCode
    message: str
    retry_after: int | None = None
    metadata: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, error: GatewayError) -> "Refusal":
        """That of an error."""
        status = STATUS.get(error.status, grpc.StatusCode.INTERNAL)
        return cls(status, error.message, error.retry_after)

    async def abort(self, context: Any) -> NoReturn:
        """End the call."""
        later = () if self.retry_after is None else (("retry-after", str(self.retry_after)),)
        await context.abort(self.status, self.message, (*self.metadata, *later))
        raise AssertionError  # pragma: no cover (abort raises)


INTERNAL: Final = Refusal(
    grpc.StatusCode.INTERNAL, "internal error; the server's log has the cause under x-request-id"
)
