"""What the loads of a service's pods come to: how long the work lasts, how many pods it would fill.

All of it is about ready pods that were read lately. A pod that can't be read is unknown: how much
that matters is for who decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from reranker_operator.core.load import FRESH_SECONDS, PodLoad, Sample

#: Seconds over which rates are taken. Shorter ones would be those of single batches.
RATE_SECONDS = 20.0


@dataclass(frozen=True)
class Signals:
    """Of one service. Pods that are unknown or not ready are in none of the sums."""

    #: Ready pods that were read lately.
    known: int = 0
    #: Serving pods that were not.
    unknown: int = 0
    backlog_tokens: float = 0.0
    #: Tokens per busy second of the known pods together; 0 while none has been measured.
    tokens_per_second: float = 0.0
    #: Seconds of work that wait or are in the engine, of all pods one after the other.
    pod_seconds: float = 0.0
    #: Pods that the arriving tokens would keep busy; None until two samples are there.
    busy_pods: float | None = None
    #: Requests in progress, and those that activators hold.
    requests: float = 0.0
    #: Requests per second that are refused for want of room.
    refused: float = 0.0

    @property
    def backlog_seconds(self) -> float:
        """Time in which the known pods together would be done; 0 while no speed is known."""
        if self.tokens_per_second <= 0:
            return 0.0
        return self.backlog_tokens / self.tokens_per_second

    @property
    def idle(self) -> bool:
        """Nothing waits, is worked on or has just arrived; what is unknown is not idle."""
        busy = self.backlog_tokens or self.requests or self.busy_pods or self.refused
        return not busy and not self.unknown


def signals(loads: Sequence[PodLoad], now: float) -> Signals:
    """`now` in seconds since the epoch."""
    fresh = [(load, load.samples[-1]) for load in loads if load.is_known(now, FRESH_SECONDS)]
    serving = [(load, last) for load, last in fresh if load.role == "serving"]
    ready = [(load, last) for load, last in serving if last.ready]
    rates = [_rates(load, last) for load, last in ready]
    measured = [rate for rate in rates if rate is not None]
    return Signals(
        known=len(ready),
        unknown=sum(load.role == "serving" for load in loads) - len(serving),
        backlog_tokens=sum(last.backlog_tokens for _, last in ready),
        tokens_per_second=sum(last.tokens_per_second for _, last in ready),
        pod_seconds=sum(
            last.backlog_tokens / last.tokens_per_second
            for _, last in ready
            if last.tokens_per_second > 0
        ),
        busy_pods=sum(busy for busy, _ in measured) if measured else None,
        requests=sum(last.in_progress for _, last in fresh),
        refused=sum(refused for _, refused in measured),
    )


def _rates(load: PodLoad, last: Sample) -> tuple[float, float] | None:
    """How many pods like this one its arriving tokens would fill, and refusals per second."""
    span = load.window(RATE_SECONDS)
    if span is None:
        return None
    first, _ = span
    seconds = last.at - first.at
    busy = (last.busy_seconds - first.busy_seconds) / seconds
    if last.tokens_per_second > 0:
        # Refused work has kept nobody busy.
        arrived = (last.arrived_tokens - first.arrived_tokens) / seconds
        busy = max(busy, arrived / last.tokens_per_second)
    return max(0.0, busy), max(0.0, (last.refused - first.refused) / seconds)


def much_the_same(before: Signals, after: Signals) -> bool:
    """Whether nobody who has looked at `before` need look at `after`."""
    if before.idle != after.idle or bool(before.refused) != bool(after.refused):
        return False
    if (before.known, before.unknown) != (after.known, after.unknown):
        return False
    return _near(before.busy_pods or 0.0, after.busy_pods or 0.0, 0.05) and _near(
        before.backlog_seconds, after.backlog_seconds, 0.5
    )


def _near(before: float, after: float, least: float) -> bool:
    return abs(before - after) <= max(least, 0.1 * max(before, after))
