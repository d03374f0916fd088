"""One service under one trace and one rule: pods that start, work and drain, second by second.

Deterministic: the same trace, rule and times give the same numbers. A pod shares its speed between
its requests, as the gateway's turns do; alone a request makes small batches, which are slower.
Requests go to any ready pod by lot, as kube-proxy sends them. While none is ready they are held,
for every rule alike.
"""

import heapq
import random
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, Protocol

from reranker_operator.core.load import PodLoad, Sample

#: Tokens per second of a pod with full batches.
SPEED = 30_000.0
#: Share of it that a request gets which is alone, and that each further one adds.
_ALONE, _EACH = 0.7, 0.1
#: Tokens that may wait in a pod; beyond it requests are refused.
_MOST_WAITING = 262_144.0
#: Seconds that a pod goes on serving after it was told to end.
_DRAIN = 5.0
#: An answer is in time within this many seconds and so many times what it takes alone.
GOAL_SECONDS, GOAL_TIMES = 1.0, 2.0
_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, float("inf"))
_SCRAPE = 2
_KEPT = 32


class Request(NamedTuple):
    """When it comes, in seconds, and how much it is."""

    at: float
    tokens: float


class Rule(Protocol):
    """Says how many pods there should be."""

    name: str
    #: Whether the pods with the least to do go first, or as a ReplicaSet does: the youngest.
    idlest_first: bool

    def wish(self, now: int, service: "Service") -> int:
        """Asked once a second; the number in force when it is not time to decide."""


@dataclass
class Pod:
    """A pod from the moment it was asked for to its end; times in seconds."""

    name: str
    created: float
    ready_at: float
    ending: float | None = None
    last: float = 0.0
    #: Tokens that each request has got so far: all get the same at a time.
    share: float = 0.0
    queue: list[tuple[float, float, float]] = field(default_factory=list)
    waiting: float = 0.0
    arrived: float = 0.0
    done: float = 0.0
    busy: float = 0.0
    answered: int = 0
    refused: int = 0
    waits: list[int] = field(default_factory=lambda: [0] * len(_BOUNDS))
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=_KEPT))
    late: int = 0

    def advance(self, to: float) -> None:
        """Work until then."""
        while self.queue and self.last < to:
            number = len(self.queue)
            rate = SPEED * min(1.0, _ALONE + _EACH * (number - 1)) / number
            ends, came, tokens = self.queue[0]
            seconds = min((ends - self.share) / rate, to - self.last)
            self.share += seconds * rate
            self.last += seconds
            self.busy += seconds
            self.done += seconds * rate * number
            self.waiting = max(0.0, self.waiting - seconds * rate * number)
            if ends - self.share <= 1e-6:
                heapq.heappop(self.queue)
                self._answer(self.last - came, tokens)
        self.last = to

    def take(self, request: Request, came: float) -> bool:
        """Accept a request, or refuse it for want of room."""
        self.advance(request.at)
        self.arrived += request.tokens
        if self.queue and self.waiting + request.tokens > _MOST_WAITING:
            self.refused += 1
            self.answered += 1
            self.late += 1
            return False
        self.waiting += request.tokens
        heapq.heappush(self.queue, (self.share + request.tokens, came, request.tokens))
        return True

    def sample(self, now: float) -> None:
        """As the operator reads the gateway's metrics."""
        first = self.samples[0] if self.samples else None
        busy = self.busy - (first.busy_seconds if first else 0.0)
        worked = self.done - (first.tokens if first else 0.0)
        speed = worked / busy if busy > 1.0 else SPEED
        total, buckets = 0, []
        for bound, count in zip(_BOUNDS, self.waits, strict=True):
            total += count
            buckets.append((bound, float(total)))
        self.samples.append(
            Sample(
                at=now,
                backlog_tokens=self.waiting,
                in_progress=float(len(self.queue)),
                tokens_per_second=speed,
                arrived_tokens=self.arrived,
                tokens=self.done,
                busy_seconds=self.busy,
                requests=float(self.answered),
                refused=float(self.refused),
                queue_buckets=tuple(buckets),
            )
        )

    def load(self) -> PodLoad:
        """The last minute."""
        return PodLoad(self.name, "serving", "r1", tuple(self.samples))

    def _answer(self, seconds: float, tokens: float) -> None:
        alone = tokens / SPEED
        self.answered += 1
        self.late += seconds > GOAL_SECONDS + GOAL_TIMES * alone
        waited = max(0.0, seconds - alone / _ALONE)
        self.waits[next(at for at, bound in enumerate(_BOUNDS) if waited <= bound)] += 1


@dataclass
class Service:
    """The pods, and what is held while none is ready."""

    start_seconds: float
    seed: int = 1
    pods: list[Pod] = field(default_factory=list)
    gone: list[Pod] = field(default_factory=list)
    held: list[Request] = field(default_factory=list)
    wanted: int = 0
    _made: int = 0

    def __post_init__(self) -> None:
        self._lots = random.Random(self.seed)  # noqa: S311 - no secret

    def ready(self, now: float) -> list[Pod]:
        """Pods that take requests."""
        return [pod for pod in self.pods if pod.ending is None and pod.ready_at <= now]

    def staying(self) -> list[Pod]:
        """Pods that were not told to end."""
        return [pod for pod in self.pods if pod.ending is None]

    def scale(self, number: int, now: float, *, idlest_first: bool, at_once: bool = False) -> None:
        """As a ReplicaSet does; pods that are not ready go first."""
        self.wanted = number
        staying = self.staying()
        for _ in range(number - len(staying)):
            self._made += 1
            made = now - self.start_seconds if at_once else now
            self.pods.append(Pod(f"p{self._made}", made, made + self.start_seconds, last=now))
        order = sorted(
            staying,
            key=lambda pod: (
                pod.ready_at <= now,
                pod.waiting if idlest_first else -pod.created,
                -pod.created,
            ),
        )
        for pod in order[: max(0, len(staying) - number)]:
            pod.ending = now

    def take(self, request: Request) -> None:
        """A request comes."""
        pods = self.ready(request.at)
        if pods:
            self._lots.choice(pods).take(request, request.at)
        else:
            self.held.append(request)

    def second(self, now: int) -> None:
        """Work until now; let go of what has drained, hand over what was held, be scraped."""
        for pod in self.pods:
            pod.advance(now)
        for pod in list(self.pods):
            if pod.ending is not None and not pod.queue and now - pod.ending >= _DRAIN:
                self.pods.remove(pod)
                self.gone.append(pod)
        pods = self.ready(now)
        if pods and self.held:
            for request in self.held:
                self._lots.choice(pods).take(Request(now, request.tokens), request.at)
            self.held.clear()
        if now % _SCRAPE == 0:
            for pod in pods:
                pod.sample(now)


@dataclass(frozen=True)
class Result:
    """What one rule made of one trace."""

    rule: str
    trace: str
    start_seconds: float
    replica_hours: float
    late: float
    requests: int
    #: The number of pods wished, each second.
    wished: tuple[int, ...]

    @property
    def turns(self) -> int:
        """Changes of direction of the number of pods."""
        return turns(self.wished)


def turns(numbers: Sequence[float]) -> int:
    """How often a row of numbers goes from up to down or back."""
    signs = [after > before for before, after in pairwise(numbers) if after != before]
    return sum(one != other for one, other in pairwise(signs))


def simulate(
    trace: str, requests: Iterable[Request], seconds: int, rule: Rule, start_seconds: float
) -> Result:
    """Play the trace; it begins with two pods that are ready."""
    service = Service(start_seconds)
    service.scale(2, 0, idlest_first=False, at_once=True)
    coming, wished, spent, total = iter(requests), [], 0.0, 0
    upcoming = next(coming, None)
    for now in range(1, seconds + 1):
        while upcoming is not None and upcoming.at <= now:
            service.take(upcoming)
            total += 1
            upcoming = next(coming, None)
        service.second(now)
        number = rule.wish(now, service)
        if number != service.wanted:
            service.scale(number, now, idlest_first=rule.idlest_first)
        wished.append(number)
        spent += len(service.pods)
    late = len(service.held) + sum(pod.late for pod in (*service.pods, *service.gone))
    late += sum(len(pod.queue) for pod in service.pods)
    return Result(
        rule.name, trace, start_seconds, spent / 3600, late / max(1, total), total, tuple(wished)
    )
