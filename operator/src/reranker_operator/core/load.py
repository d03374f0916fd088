"""What a pod's metrics say of its work: samples of counters, and what follows from two of them.

A pod whose metrics can't be read is unknown, never idle: who decides by it must say what unknown
means to him. All is plain numbers, so the same arithmetic runs in the simulation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from reranker_operator.api.v1alpha1 import RerankerService

#: How often pods are read: as usual, or as often as it takes to notice that somebody waits.
Pace = Literal["steady", "asleep"]
#: What a pod is there for: it ranks, or it holds requests while none does.
Role = Literal["serving", "activator"]
#: Seconds for which what a pod said holds.
FRESH_SECONDS = 10.0


class Shadowed(NamedTuple):
    """Requests whose scores were compared with those of another revision since the start."""

    revision: str
    requests: float
    #: Sum of Kendall's tau over them, so that it may fall.
    tau: float


class Sample(NamedTuple):
    """One scrape. `at` is in seconds since the epoch; counters grow until the process ends."""

    at: float
    ready: bool = True
    #: Tokens that wait or are in the engine; of an activator some that it holds, by their bytes.
    backlog_tokens: float = 0.0
    #: Requests in progress; of an activator the ones it holds.
    in_progress: float = 0.0
    #: Tokens per busy second; 0 while unknown.
    tokens_per_second: float = 0.0
    #: Counter: tokens of requests that came in, refused ones too.
    arrived_tokens: float = 0.0
    #: Counter: tokens that went through the engine.
    tokens: float = 0.0
    #: Counter: seconds in which the engine had work.
    busy_seconds: float = 0.0
    #: Counter: requests that were served or should have been; those refused as wrong are not.
    requests: float = 0.0
    #: Counter: 429, refused for want of room.
    refused: float = 0.0
    #: Counter: 5xx, but for 503 of a pod that is draining or starting.
    failed: float = 0.0
    #: Counter: requests by how long they waited, `(upper bound in seconds, cumulative count)`.
    queue_buckets: tuple[tuple[float, float], ...] = ()
    #: By the other revision.
    shadowed: tuple[Shadowed, ...] = ()
    #: Counter: requests that were sent to another revision for that, and not scored there.
    unanswered: float = 0.0


@dataclass(frozen=True)
class PodLoad:
    """The last minute or so of one pod, oldest sample first; empty when none was ever read."""

    pod: str
    role: Role
    revision: str | None
    samples: tuple[Sample, ...] = ()
    #: Times in a row that it could not be read.
    failures: int = 0

    @property
    def last(self) -> Sample | None:
        """The newest sample."""
        return self.samples[-1] if self.samples else None

    def is_known(self, now: float, within: float) -> bool:
        """The newest sample is at most `within` seconds old, or off as much by a clock put back."""
        return self.last is not None and abs(now - self.last.at) <= within

    def window(self, seconds: float) -> tuple[Sample, Sample] | None:
        """First and last sample of the last `seconds`, of one life of the process; None if fewer
        than two are there.
        """
        return window(self.samples, seconds)


def window(samples: Sequence[Sample], seconds: float) -> tuple[Sample, Sample] | None:
    """See PodLoad.window. A counter that fell tells of another process: nothing before counts."""
    if len(samples) < 2:
        return None
    last = first = samples[-1]
    for sample in reversed(samples[:-1]):
        if began_anew(sample, first) or last.at - sample.at > seconds:
            break
        first = sample
    return (first, last) if first.at < last.at else None


def began_anew(before: Sample, after: Sample) -> bool:
    """Any of the counters fell: the later sample is of another process."""
    # Those that are rare count too: a process may soon have had more requests than the one before.
    return (
        before.requests > after.requests
        or before.tokens > after.tokens
        or before.arrived_tokens > after.arrived_tokens
        or before.busy_seconds > after.busy_seconds
        or before.refused > after.refused
        or before.failed > after.failed
    )


def needs_loads(service: RerankerService) -> Pace | None:
    """How often the service's pods should be read for its next decision; None: not at all."""
    under_way = service.status.rollout
    if under_way is not None and under_way.gates:
        # The new revision is judged by them, beside the former one.
        return "steady"
    if service.spec.autoscaling is None:
        return None
    scaling = service.status.autoscaling
    return "asleep" if scaling is not None and scaling.desired == 0 else "steady"
