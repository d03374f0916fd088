"""From samples of counters to the few numbers that the decision is made of.

Nothing here knows Kubernetes, so the same arithmetic runs in the simulation. What can't be read is
never taken for nothing: a ready pod without news is `unknown`. What arrives and waits is what the
others tell of; they may well have the unknown one's share, so nobody knows how much more there is.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from reranker_operator.core.load import FRESH_SECONDS, PodLoad, Sample, began_anew

#: Seconds of a quick look at what arrives, in four parts whose spread tells how sure it is.
QUICK = 8.0
_PARTS = 4
#: Seconds of a long one: what arrives on the whole, and whether a service is idle.
LONG = 60.0
#: Seconds of samples without which nothing is said about what arrives.
_LEAST = 6.0
#: Seconds in which work that waits was never less than this counts as waiting.
_STANDING = 6.0
#: Share of its time that a pod is busy from which its speed counts, and from which also a lower
#: one does: with little to do batches are small and slow.
_BUSY, _SATURATED = 0.3, 0.7
#: Seconds of such work after which it tells what a pod can do, whatever it did before.
_PROOF = 30.0
#: Requests within the quick look without which nothing is said about waits and refusals.
_ENOUGH = 10
#: Times that a pod which was never read must have been tried until that is told.
_TRIES = 3
#: A pod with more seconds of work than this is busy.
_BUSY_SECONDS = 1.0


@dataclass(frozen=True)
class PodView:
    """A pod that the address leads to or will lead to; times in seconds since the epoch.

    `since`: when it got ready, or when it last was not.
    """

    name: str
    ready: bool
    created: float
    since: float
    no_node_since: float | None = None
    #: It has been ready since its start, as far as can be told.
    first: bool = True


@dataclass(frozen=True)
class Seen:
    """What was observed at one moment; None where nothing can be said."""

    now: float
    ready: int = 0
    unknown: int = 0
    #: Those of them that were hardly tried yet, by a process that has only just begun.
    unread: int = 0
    #: Pods that are not ready and young enough to get ready.
    unready: int = 0
    #: Pods that are not ready and had time enough.
    stuck: int = 0
    pending: int = 0
    pending_since: float | None = None
    busy: int = 0
    #: Tokens per second of the known pods, as far as a quick look is sure of it, and over the last
    #: minute.
    arriving: float | None = None
    arriving_mean: float | None = None
    backlog: float = 0.0
    #: Requests that activators hold; None while one can't be read that may hold some, and no other
    #: holds any.
    held: int | None = None
    #: Seconds since that one was read; None where it never was.
    unheard: float | None = None
    #: Share of the last seconds in which the ready pods had work.
    at_work: float | None = None
    queue_seconds: float | None = None
    refused: float | None = None
    #: Tokens per second of one pod, by pods whose word counts: for a higher one, and for any.
    speed: float | None = None
    speed_saturated: float | None = None
    #: The same by any pod, idle ones too, whose figure may be of a warm-up.
    speed_at_all: float | None = None
    #: Only of pods of `revision`: by any of them, and by the work of the last seconds alone where
    #: there was enough. What a pod tells also has in it what it did before, in a canary for one.
    speed_own: float | None = None
    speed_proven: float | None = None
    #: Share of these seconds in which they had work, and the least that one did per second of any
    #: third of them.
    busy_proven: float = 0.0
    rate_proven: float = 0.0
    start_seconds: float | None = None
    #: Seconds since the youngest of the ready pods got ready.
    settled: float = math.inf
    #: Nothing came and nothing is in progress, anywhere, for as long as can be seen.
    quiet: bool | None = None
    #: Another revision is on its way to the traffic.
    rolling: bool = False
    revision: str | None = None


class _Life(NamedTuple):
    """Samples of one process, and their times beside them, to be found quickly."""

    samples: Sequence[Sample]
    times: list[float]

    @property
    def first(self) -> Sample:
        return self.samples[0]

    @property
    def last(self) -> Sample:
        return self.samples[-1]


def see(
    pods: Sequence[PodView],
    loads: Iterable[PodLoad],
    now: float,
    *,
    start_timeout: float,
    rolling: bool = False,
    revision: str | None = None,
    start: float | None = None,
) -> Seen:
    """Look at the pods of the traffic and at what holds requests for them.

    `start`: seconds that one of them was measured to take until it was ready.
    """
    loads = list(loads)
    by_pod = {load.pod: load for load in loads if load.role == "serving"}
    ready = [pod for pod in pods if pod.ready]
    known = [
        load
        for pod in ready
        if (load := by_pod.get(pod.name)) and load.is_known(now, FRESH_SECONDS)
    ]
    activators = [load for load in loads if load.role == "activator"]
    holding = [load for load in activators if load.is_known(now, FRESH_SECONDS)]
    waiting = [pod for pod in pods if not pod.ready]
    homeless = [pod.no_node_since for pod in waiting if pod.no_node_since is not None]
    seen = Seen(
        now=now,
        ready=len(ready),
        unknown=len(ready) - len(known),
        unread=sum(_is_unread(by_pod.get(pod.name)) for pod in ready),
        unready=sum(now - pod.since <= start_timeout for pod in waiting),
        stuck=sum(now - pod.since > start_timeout for pod in waiting),
        pending=len(homeless),
        pending_since=min(homeless, default=None),
        held=_held(holding, len(activators) - len(holding)),
        unheard=max((now - load.last.at for load in activators if load.last), default=None),
        start_seconds=min(_starts(ready, start), default=None),
        settled=min((now - pod.since for pod in ready), default=math.inf),
        rolling=rolling,
        revision=revision,
    )
    if not ready:
        # What is held is all that is known of what arrives, and all of it waits.
        seen = _with_flow(seen, [_life(load.samples) for load in holding])
        held = sum(_last(load).backlog_tokens for load in holding) if seen.held else 0.0
        return replace(seen, backlog=held)
    lives = [_life(load.samples) for load in known]
    own = [_life(load.samples) for load in known if load.revision == revision]
    return _with_own_speed(_with_speed(_with_flow(seen, lives), lives), own)


def _with_flow(seen: Seen, lives: list[_Life]) -> Seen:
    """What arrives, waits and is refused."""
    if not lives:
        return seen
    now = min(life.last.at for life in lives)
    span = max(now - life.first.at for life in lives)
    seen = replace(seen, backlog=sum(_standing(life) for life in lives))
    if span < _LEAST:
        return seen
    quick, long = min(QUICK, span), min(LONG, span)
    requests = _grown(lives, now - quick, "requests")
    refused = _grown(lives, now - quick, "refused")
    return replace(
        seen,
        at_work=_grown(lives, now - quick, "busy_seconds") / quick / len(lives),
        quiet=_is_quiet(lives, now),
        arriving=_surely(lives, now, quick),
        arriving_mean=_grown(lives, now - long, "arrived_tokens") / long,
        queue_seconds=_ninety_fifth(lives, now - quick),
        refused=refused / requests if requests >= _ENOUGH else None,
    )


def _with_speed(seen: Seen, lives: list[_Life]) -> Seen:
    figures = [(life.last.tokens_per_second, _busy_share(life)) for life in lives]
    figures = [(speed, busy) for speed, busy in figures if speed > 0]
    seen = replace(
        seen,
        speed=_mean(speed for speed, busy in figures if busy >= _BUSY),
        speed_saturated=_mean(speed for speed, busy in figures if busy >= _SATURATED),
        speed_at_all=_mean(speed for speed, _ in figures),
    )
    if seen.speed_at_all is None:
        return seen
    limit = seen.speed_at_all * _BUSY_SECONDS
    return replace(seen, busy=sum(life.last.backlog_tokens > limit for life in lives))


def _held(known: Sequence[PodLoad], unknown: int) -> int | None:
    """Requests that are held for certain, or None: one that can't be read may hold some."""
    held = round(sum(_last(load).in_progress for load in known))
    return None if not known or (unknown and not held) else held


def _starts(ready: Iterable[PodView], measured: float | None) -> Iterator[float]:
    """Seconds until pods were ready. One that lost its readiness since tells of no start."""
    yield from (pod.since - pod.created for pod in ready if pod.first)
    if measured is not None:
        yield measured


def _with_own_speed(seen: Seen, lives: list[_Life]) -> Seen:
    """Of the pods of the serving revision; by what they did in the last seconds, too."""
    seen = replace(seen, speed_own=_mean(s for life in lives if (s := life.last.tokens_per_second)))
    begun = [life for life in lives if life.first.at <= life.last.at - _PROOF]
    proven = [life for life in begun if _lately(life, "busy_seconds") >= _SATURATED]
    if not proven or not (tokens := sum(_lately(life, "tokens") for life in proven)):
        return seen
    busy = sum(_lately(life, "busy_seconds") for life in proven)
    return replace(
        seen,
        speed_proven=tokens / busy,
        busy_proven=busy / len(proven),
        rate_proven=min(_least(life) for life in proven),
    )


def _lately(life: _Life, counter: str) -> float:
    """By how much it grew per second."""
    return _grown([life], life.last.at - _PROOF, counter) / _PROOF


def _least(life: _Life) -> float:
    """Tokens per second in that third of the last seconds in which they were fewest."""
    edges = [life.last.at - _PROOF + _PROOF * third / 3 for third in range(4)]
    done = [_value_at(life, edge, "tokens") for edge in edges]
    return min(after - before for before, after in pairwise(done)) * 3 / _PROOF


def _is_unread(load: PodLoad | None) -> bool:
    return load is None or (not load.samples and load.failures < _TRIES)


def _last(load: PodLoad) -> Sample:
    return load.samples[-1]


def _life(samples: Sequence[Sample]) -> _Life:
    """Samples of the present process: a counter that fell tells of another one."""
    first, last = samples[0], samples[-1]
    if began_anew(first, last):
        # One that has counted more since than the one before is not told apart; it hardly matters.
        began = max(
            at
            for at, (before, after) in enumerate(pairwise(samples), 1)
            if began_anew(before, after)
        )
        samples = samples[began:]
    return _Life(samples, [sample.at for sample in samples])


def _grown(lives: Iterable[_Life], since: float, counter: str) -> float:
    """By how much a counter has grown in all pods; of a younger pod since it was first seen."""
    return sum(
        float(getattr(life.last, counter)) - _value_at(life, since, counter) for life in lives
    )


def _value_at(life: _Life, at: float, counter: str) -> float:
    """A counter at some moment, on the line between two samples."""
    index = bisect_right(life.times, at)
    if index in (0, len(life.times)):
        return float(getattr(life.samples[max(0, index - 1)], counter))
    before, after = life.samples[index - 1], life.samples[index]
    low, high = float(getattr(before, counter)), float(getattr(after, counter))
    return low + (high - low) * (at - before.at) / (after.at - before.at)


def _surely(lives: list[_Life], now: float, quick: float) -> float:
    """Tokens per second of which the quick look is sure: its mean less the error of the mean.

    A few large requests are no change of the load, and look like one for a while.
    """
    edges = [now - quick + quick * part / _PARTS for part in range(_PARTS + 1)]
    totals = [sum(_value_at(life, edge, "arrived_tokens") for life in lives) for edge in edges]
    parts = [(after - before) * _PARTS / quick for before, after in pairwise(totals)]
    mean = sum(parts) / _PARTS
    variance = sum((part - mean) ** 2 for part in parts) / (_PARTS - 1)
    return max(0.0, mean - math.sqrt(variance / _PARTS))


def _standing(life: _Life) -> float:
    """The least that waited in the last seconds: what is only passing through does not count."""
    recent = life.samples[bisect_right(life.times, life.times[-1] - _STANDING) :]
    return min(sample.backlog_tokens for sample in recent) if len(recent) > 1 else 0.0


def _is_quiet(lives: list[_Life], now: float) -> bool:
    if any(life.last.in_progress or life.last.backlog_tokens for life in lives):
        return False
    return all(_grown(lives, now - LONG, name) == 0 for name in ("arrived_tokens", "requests"))


def _busy_share(life: _Life) -> float:
    """Share of the last minute in which the engine had work."""
    since = max(life.first.at, life.last.at - LONG)
    seconds = life.last.at - since
    return _grown([life], since, "busy_seconds") / seconds if seconds else 0.0


def _ninety_fifth(lives: list[_Life], since: float) -> float | None:
    """Seconds that 95 % of the requests waited at most, on the line between two bounds."""
    counts: dict[float, float] = {}
    for life in lives:
        first = life.samples[min(bisect_left(life.times, since), len(life.times) - 1)]
        former = dict(first.queue_buckets)
        for bound, count in life.last.queue_buckets:
            counts[bound] = counts.get(bound, 0.0) + count - former.get(bound, 0.0)
    total = max(counts.values(), default=0.0)
    if total < _ENOUGH:
        return None
    low, below = 0.0, 0.0
    for bound in sorted(counts):
        count = counts[bound]
        if count >= 0.95 * total:
            if math.isinf(bound):
                return low
            return low + (bound - low) * (0.95 * total - below) / (count - below or 1.0)
        low, below = bound, count
    return low


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return sum(found) / len(found) if found else None
