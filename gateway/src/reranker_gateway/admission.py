"""Who may come in: bounds on bytes and requests in the process and on tokens in the queue.

Bytes are bounded first, as they arrive, because tokens are unknown until the texts have been
tokenised. Two kinds of uploads make room for others when the bound is reached: slow ones, and large
ones for small ones. So nobody keeps others out by sending most of a large body and no more. Small
ones have a reserve beside it, because large ones that are complete make no room. A request over the
token bound is refused at once with the time after which there should be room, instead of waiting in
a queue that it cannot leave in time.

All of these are shared out between callers (`shares`): one alone may have all of the bound, and an
eighth more is kept for those who have little.
"""

import math
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from reranker_gateway.clock import Clock
from reranker_gateway.errors import OverloadedError
from reranker_gateway.request_context import current_request
from reranker_gateway.shares import Shares
from reranker_gateway.throughput import Throughput

_LONGEST_RETRY = 600
_SMALL_BYTES = 256 << 10
#: An upload that has taken longer than this is slow.
_FAIR_SECONDS = 1.0
_FAIR_BYTES_PER_SECOND = 4 << 20


class Entry:
    """One request on its way through the bounds; leaving the context gives everything back."""

    def __init__(self, admission: "Admission", began: float, caller: str) -> None:
        self._admission = admission
        self._began = began
        self._interrupt: Callable[[], None] = lambda: None
        self._working = False
        self.caller = caller
        self.held = 0
        #: Where its bytes are counted.
        self.place: Shares | None = None
        self.gave_way = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._admission.forget_bytes(self)
        if self._working:
            self._admission.end_work(self.caller)

    def on_giving_way(self, interrupt: Callable[[], None]) -> None:
        """Call `interrupt` when this upload must make room: nothing more may be read."""
        self._interrupt = interrupt

    def add(self, count: int) -> None:
        """Hold `count` more bytes. Raises OverloadedError when there is no room."""
        self.check()
        self._admission.take(self, count)

    def arrived(self) -> None:
        """The body is complete: from now on it stays, and is worked on. Raises OverloadedError.

        Nothing when it was said before: one request has one place.
        """
        if self._working:
            return
        self.check()
        self._admission.begin_work(self)
        self._working = True

    def tokenised(self) -> None:
        """The texts are gone: tokens are bounded by the queue."""
        self._admission.forget_bytes(self)

    def check(self) -> None:
        """Raises OverloadedError after giving way."""
        if self.gave_way:
            raise OverloadedError(
                "the upload was slow or large and had to make room; retry later or send smaller "
                "requests",
                retry_after=1,
            )

    def give_way(self) -> None:
        """Make room for another one."""
        self.gave_way = True
        self._interrupt()

    def slow(self, now: float) -> bool:
        """Whether it takes longer than an upload of its size should."""
        return now - self._began > _FAIR_SECONDS + self.held / _FAIR_BYTES_PER_SECOND

    def occupation(self, now: float) -> float:
        """What it takes from the others: bytes times seconds."""
        return self.held * (now - self._began)


class Admission:
    """The three bounds."""

    def __init__(
        self,
        *,
        max_bytes: int,
        small_bytes: int,
        max_requests: int,
        max_queue_tokens: int,
        throughput: Throughput,
        clock: Clock,
    ) -> None:
        self._bytes = Shares(max_bytes)
        self._reserve = Shares(small_bytes)
        self._requests = Shares(max_requests)
        self._tokens = Shares(max_queue_tokens)
        self._throughput = throughput
        self._clock = clock
        self._arriving: set[Entry] = set()
        #: Tokens that were refused since there was room: they come again, too.
        self._refused = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of all bodies that are counted now."""
        return self._bytes.total + self._reserve.total

    def enter(self) -> Entry:
        """A context for one request, from before its first byte to its answer."""
        entry = Entry(self, self._clock(), current_request().caller)
        self._arriving.add(entry)
        return entry

    def take(self, entry: Entry, count: int) -> None:
        """Count bytes in, or raise OverloadedError and count nothing."""
        small = entry.held + count <= _SMALL_BYTES
        places = (self._bytes, self._reserve) if small else (self._bytes,)
        while not any(self._put(entry, count, place) for place in places):
            other = self._least_deserving(entry, small)
            if other is None:
                own = sum(place.of(entry.caller) for place in (self._bytes, self._reserve))
                raise OverloadedError(
                    f"the bodies of requests in progress hold {self.held_bytes} bytes, {own} of "
                    f"this caller, of at most {sum(place.bound for place in places)}; retry later "
                    "or send smaller requests",
                    retry_after=1,
                )
            self.forget_bytes(other)
            other.give_way()

    def forget_bytes(self, entry: Entry) -> None:
        """Count its bytes out."""
        self._arriving.discard(entry)
        self._take_out(entry)

    def begin_work(self, entry: Entry) -> None:
        """Count a request in. Raises OverloadedError."""
        caller = entry.caller
        if self._requests.deficit(caller, 1) > 0:
            raise OverloadedError(
                f"{self._requests.total} requests are in progress, {self._requests.of(caller)} of "
                f"this caller, of at most {self._requests.bound}; retry later or add replicas",
                retry_after=1,
            )
        self._arriving.discard(entry)
        self._requests.take(caller, 1)

    def end_work(self, caller: str) -> None:
        """Count a request out."""
        self._requests.give_back(caller, 1)

    def check_tokens(self, tokens: int, waiting: Mapping[str, int], *, about: bool = False) -> None:
        """Refuse `tokens` more of this request's caller beside those of each that wait.

        With an empty queue any request comes in. Raises OverloadedError.
        """
        held, own = sum(waiting.values()), waiting.get(current_request().caller, 0)
        bound = self._tokens.bound
        # What came into an empty queue may be larger than the bound, but nobody takes the part that
        # is kept for others.
        total = sum(min(count, bound) for count in waiting.values())
        missing = self._tokens.deficit_beside(min(own, bound), total, tokens)
        if held and missing > 0:
            missing = min(missing + held - total + self._refused, held)
            self._refused += tokens
            seconds = math.ceil(self._throughput.backlog_seconds(missing))
            raise OverloadedError(
                f"the queue holds {held} tokens, {own} of this caller, of at most {bound} and "
                f"this request has {'about ' * about}{tokens}; retry later or add replicas",
                retry_after=min(max(seconds, 1), _LONGEST_RETRY),
            )
        self._refused = 0

    def _put(self, entry: Entry, count: int, place: Shares) -> bool:
        """Whether `place` has room for all that it holds and `count` more, which lies there now."""
        whole = entry.held + count
        if place.deficit(entry.caller, count if entry.place is place else whole) > 0:
            return False
        self._take_out(entry)
        place.take(entry.caller, whole)
        entry.place, entry.held = place, whole
        return True

    def _take_out(self, entry: Entry) -> None:
        if entry.place is not None:
            entry.place.give_back(entry.caller, entry.held)
        entry.place, entry.held = None, 0

    def _least_deserving(self, entry: Entry, small: bool) -> Entry | None:
        now = self._clock()
        candidates = (
            other
            for other in self._arriving
            if other is not entry
            and other.held
            and (small or other.place is self._bytes)
            and (other.slow(now) or (small and other.held > _SMALL_BYTES))
        )
        return max(candidates, key=lambda other: other.occupation(now), default=None)
