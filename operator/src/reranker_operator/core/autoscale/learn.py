"""What is learned from a look at the pods: what one can do, how long it takes to start."""

from dataclasses import replace

from reranker_operator.api.autoscaling import AutoscalingSpec
from reranker_operator.core.autoscale.measure import LONG, Seen
from reranker_operator.core.autoscale.memory import Memory
from reranker_operator.core.autoscale.words import two_digits

#: What is measured counts as unchanged within this share.
_SAME_SPEED, _SAME_START = 0.1, 0.25
#: A pod with work for more of its time can't do more. One that does this part of what another
#: revision can do has batches that are large enough.
_FULL, _HALF = 0.95, 0.5


def learn(rules: AutoscalingSpec, seen: Seen, memory: Memory) -> Memory:
    """What a pod can do, how long it takes to start, and since when the service is idle."""
    memory = replace(memory, idle_since=_idle_since(rules, seen, memory))
    start = seen.start_seconds
    if start is None and seen.ready:
        # Nobody can say where the remembered one is from.
        memory = replace(memory, start_seconds=None)
    elif start is not None and not _alike(start, memory.start_seconds, _SAME_START):
        memory = replace(memory, start_seconds=two_digits(start))
    speed = _speed(seen, memory)
    if speed is None:
        return memory
    if _alike(speed, memory.speed, _SAME_SPEED):
        speed = memory.speed
    return replace(memory, speed=two_digits(speed or 0.0), measured_on=seen.revision)


def _idle_since(rules: AutoscalingSpec, seen: Seen, memory: Memory) -> float | None:
    if rules.min > 0 or seen.held or seen.unready or seen.quiet is False:
        return None
    if seen.quiet is None or seen.unknown or memory.idle_since is not None:
        return memory.idle_since
    return max(seen.now - LONG, 0.0)


def _speed(seen: Seen, memory: Memory) -> float | None:
    if memory.speed is None:
        return seen.speed or seen.speed_at_all
    certain, likely = seen.speed_saturated, seen.speed
    if seen.revision is not None and seen.revision != memory.measured_on:
        certain, likely = _proven(seen, memory.speed), seen.speed_own
    if certain is not None:
        return certain
    # With little to do a pod is slower than it could be, never faster.
    return likely if likely is not None and likely > memory.speed else None


def _proven(seen: Seen, known: float) -> float | None:
    """What another revision can do; what the former one did holds until this one has as much to do,
    or can't do more.
    """
    proven, told = seen.speed_proven, seen.speed_own
    if proven is None or told is None:
        return None
    full = seen.busy_proven >= _FULL or seen.rate_proven >= _HALF * known
    # From then on it is taken at its word, which may have small batches in it for a while.
    return proven if full and told >= (1 - _SAME_SPEED) * proven else None


def _alike(value: float, known: float | None, share: float) -> bool:
    return known is not None and abs(value - known) <= share * known
