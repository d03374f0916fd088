"""Who may come in: bounds on bytes in the process and on tokens in the queue.

Bytes are bounded first, while a body arrives, because tokens are unknown until the texts have been
tokenised. A request over the token bound is refused at once with the time after which there should
be room, instead of waiting in a queue that it cannot leave in time.
"""

import math
from types import TracebackType
from typing import Self

from reranker_gateway.errors import OverloadedError
from reranker_gateway.throughput import Throughput

_LONGEST_RETRY = 600


class HeldBytes:
    """The share of the byte bound that one request holds; leaving the context gives it back."""

    def __init__(self, admission: "Admission") -> None:
        self._admission = admission
        self._held = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._admission.give_back(self._held)

    def add(self, count: int) -> None:
        """Hold `count` more bytes. Raises OverloadedError when all requests hold too many."""
        self._admission.take(count)
        self._held += count


class Admission:
    """The two bounds."""

    def __init__(self, *, max_bytes: int, max_queue_tokens: int, throughput: Throughput) -> None:
        self._max_bytes = max_bytes
        self._max_tokens = max_queue_tokens
        self._throughput = throughput
        self._bytes = 0

    def hold_bytes(self) -> HeldBytes:
        """A context to hold the bytes of one request."""
        return HeldBytes(self)

    def take(self, count: int) -> None:
        """Count bytes in, or raise OverloadedError and count nothing."""
        if self._bytes + count > self._max_bytes:
            raise OverloadedError(
                f"the bodies of requests in progress hold {self._bytes} bytes of at most "
                f"{self._max_bytes}; retry later or send smaller requests",
                retry_after=1,
            )
        self._bytes += count

    def give_back(self, count: int) -> None:
        """Count bytes out."""
        self._bytes -= count

    def check_tokens(self, tokens: int, waiting: int) -> None:
        """Refuse `tokens` more beside those `waiting`; with an empty queue any request comes in."""
        excess = waiting + tokens - self._max_tokens
        if waiting and excess > 0:
            seconds = math.ceil(self._throughput.backlog_seconds(excess))
            raise OverloadedError(
                f"the queue holds {waiting} tokens of at most {self._max_tokens} and this request "
                f"has {tokens}; retry later or add replicas",
                retry_after=min(max(seconds, 1), _LONGEST_RETRY),
            )
