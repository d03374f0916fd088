"""The number of pods, from what was seen and what is remembered: one pure function.

    pods = ceil((arriving tokens/s + what waits / the time it may take)
                / (tokens/s of one pod * how busy it should be))

Out at once, in only after fewer were enough for some time. What is not there yet or can't be read
holds the number where it is: pods that start are the ones that would be taken first, and a pod
without news may be the busiest of all.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum

from reranker_operator.api.autoscaling import AutoscalingSpec
from reranker_operator.core.autoscale.learn import learn
from reranker_operator.core.autoscale.measure import LONG, Seen
from reranker_operator.core.autoscale.memory import Memory, Need
from reranker_operator.core.autoscale.words import counted, short

#: Seconds in which the limits per direction count.
_PERIOD = 60.0
#: Pods that may be added in that time in any case.
_FEW = 4
#: Pods are only taken when the rest would be this much less busy than they should be.
_SLACK = 0.9
#: Seconds without a node after which it is no use to ask for more pods.
_SHORTAGE = 60.0
#: Seconds for which it may be unknown whether requests are held.
_BLIND = 60.0
#: Seconds, at most, from the first request that is held until it is seen.
_NOTICED = 2.0
#: Of refused requests this share gets more pods.
_REFUSED = 0.01
#: If pods are at least this part as busy as they should be.
_HALF = 0.5
#: Seconds that pods must have been ready before waits and refusals ask for still more.
_SETTLED = 15.0
#: Moments of former needs are kept to this part of the delay, so that they are seldom written.
_GRAIN = 5


class Outcome(StrEnum):
    """Where the number stands; also reasons of the condition `Autoscaled`."""

    LOAD_MATCHED = "LoadMatched"
    SCALING_OUT = "ScalingOut"
    SCALING_IN = "ScalingIn"
    AT_MAXIMUM = "AtMaximum"
    SCALED_TO_ZERO = "ScaledToZero"
    MEASURING = "Measuring"
    PODS_PENDING = "PodsPending"
    METRICS_UNAVAILABLE = "MetricsUnavailable"


@dataclass(frozen=True)
class Decision:
    """`why` is one sentence; `memory.desired` is the number.

    `tells`: something was seen. It is not so right after a start of the process, and what was known
    before stands then.
    """

    memory: Memory
    outcome: Outcome
    why: str
    seen: Seen
    tells: bool = True

    @property
    def desired(self) -> int:
        """Pods to have."""
        return self.memory.desired or 0


@dataclass(frozen=True)
class _Wish:
    pods: int
    because: str


@dataclass(frozen=True)
class _Case:
    """One decision in the making; `current` is the number until now."""

    rules: AutoscalingSpec
    seen: Seen
    memory: Memory
    current: int
    #: Pods that were asked for and are not ready, those left out that had time enough.
    starting: int = 0

    @property
    def least(self) -> int:
        """Fewest pods of a service that is not idle."""
        return max(1, self.rules.min)

    @property
    def awake_since(self) -> float | None:
        """The service was woken within the last minute, and no pod is ready yet."""
        memory, seen = self.memory, self.seen
        if seen.ready or not seen.held or memory.period is None or memory.period_from != 0:
            return None
        return memory.period if seen.now - memory.period < _PERIOD else None

    @property
    def unseen(self) -> int:
        """Pods without news, each of which is taken to be just right: it brings no others, and the
        known ones don't do its work. Those beyond the number, as in a rollout, count for nothing.
        """
        known = self.seen.ready - self.seen.unknown
        return min(self.seen.unknown, max(0, self.current - known))

    def bounded(self, pods: int) -> int:
        return min(max(pods, self.least), self.rules.max)

    def pods_for(self, arriving: float, backlog: float = 0.0, *, slack: float = 1.0) -> int:
        """Pods that this takes; 0 where it is not known what a pod can do."""
        if not self.memory.speed:
            return 0
        share = self.rules.target_utilization_percent / 100 * slack
        # A pod that takes a minute to come is not asked for to save two seconds.
        within = max(self.rules.target_backlog_seconds, self.memory.start_seconds or 0.0)
        if self.awake_since is not None:
            # What has come in a while is done in such a while, by those who keep up with it.
            within = max(within, self.seen.now - self.awake_since + _NOTICED)
        rate = arriving + backlog / within
        # The rounding of a quotient must not cost a pod.
        return math.ceil(rate / (self.memory.speed * share) - 1e-9) + self.unseen


def decide(
    rules: AutoscalingSpec, seen: Seen, memory: Memory, *, begin: int = 1, given: int = 0
) -> Decision:
    """The number of pods from now on; `begin` is the one to begin with when none is remembered.

    `given` is the number that was acted upon last, which the process that decided may not have
    lived to write down.
    """
    before = memory = memory.until(seen.now)
    remembered = begin if memory.desired is None else memory.desired
    if seen.ready and seen.unread == seen.ready:
        # Nothing was read yet, so nothing speaks for fewer.
        remembered = max(remembered, given)
    current = min(max(remembered, rules.min), rules.max)
    memory = learn(rules, seen, memory)
    memory = replace(memory, blind_since=_blind_since(seen, memory, current))
    case = _Case(rules, seen, memory, current, _starting(rules, seen, memory, current))
    if current == 0:
        return _wake(case)
    if _is_idle(case):
        return _concluded(case, 0, Outcome.SCALED_TO_ZERO, _idle_words(case))
    wish = _out(case)
    if wish.pods > current:
        return _grow(case, wish)
    decision = _shrink(case, wish)
    blank = seen.unread or (seen.ready and seen.arriving_mean is None and not seen.unknown)
    if blank and decision.desired == before.desired and not seen.pending:
        return replace(decision, memory=before, tells=False)
    return decision


def _blind_since(seen: Seen, memory: Memory, current: int) -> float | None:
    if current > 0 or seen.held is not None:
        return None
    if memory.blind_since is not None:
        return memory.blind_since
    return max(seen.now - (seen.unheard or 0.0), 0.0)


def _starting(rules: AutoscalingSpec, seen: Seen, memory: Memory, current: int) -> int:
    """Also pods that were asked for and that nobody has made yet."""
    missing = max(0, current - seen.ready - seen.unready - seen.stuck)
    since = memory.changed if memory.changed is not None else seen.now
    return seen.unready + (missing if seen.now - since <= rules.start_timeout_seconds else 0)


def _wake(case: _Case) -> Decision:
    seen = case.seen
    if seen.held:
        pods = case.bounded(min(case.pods_for(seen.arriving or 0.0, seen.backlog), _most(case)))
        text = f"{counted(seen.held, 'request is held', 'requests are held')}"
        return _concluded(case, pods, Outcome.SCALING_OUT, text)
    blind = case.memory.blind_since
    if blind is not None and seen.now - blind >= _BLIND:
        text = "it can't be seen whether requests are held, so a pod is there for them"
        return _concluded(case, case.least, Outcome.METRICS_UNAVAILABLE, text)
    return _concluded(case, 0, Outcome.SCALED_TO_ZERO, _idle_words(case))


def _is_idle(case: _Case) -> bool:
    """Every pod is known, idle, and has been ready, and what comes next would be held."""
    seen, since = case.seen, case.memory.idle_since
    return (
        case.rules.min == 0
        and since is not None
        and seen.now - since >= case.rules.idle_seconds
        and seen.quiet is True
        and not seen.unknown
        and not case.starting
        and not seen.rolling
        and seen.held == 0
    )


def _out(case: _Case) -> _Wish:
    """Pods that the load asks for now."""
    seen = case.seen
    arriving = max(seen.arriving or 0.0, seen.arriving_mean or 0.0)
    # While pods start, what waits tells of their absence, not of what they will do; but for those
    # that were held since the first one was asked for, which nobody had seen then.
    backlog = 0.0 if case.starting else _left(case)
    if case.awake_since is not None:
        backlog = seen.backlog
    wish = _Wish(case.pods_for(arriving, backlog), _load_words(case, arriving, backlog))
    pressing = _pressing(case)
    if pressing and wish.pods <= case.current:
        wish = _Wish(case.current + max(1, case.current // 4), pressing)
    if seen.pending_since is not None and seen.now - seen.pending_since >= _SHORTAGE:
        return _Wish(min(wish.pods, case.current), wish.because)
    return wish


def _left(case: _Case) -> float:
    """Tokens that will still wait when another pod could be ready."""
    seen, memory = case.seen, case.memory
    known = seen.ready - seen.unknown
    spare = known * (memory.speed or 0.0) - (seen.arriving_mean or 0.0)
    return max(0.0, seen.backlog - max(0.0, spare) * (memory.start_seconds or 0.0))


def _pressing(case: _Case) -> str:
    """What asks for more pods whatever the load seems to be; it never asks for fewer.

    Where pods have little to do, a large request waits for itself, and more of them are no help.
    """
    seen, limit = case.seen, case.rules.target_backlog_seconds
    full = (seen.at_work or 0.0) * 100 / case.rules.target_utilization_percent
    if case.starting or seen.settled < _SETTLED:
        return ""
    if seen.refused is not None and seen.refused > _REFUSED and full >= _HALF:
        return f"{seen.refused:.0%} of the requests are refused"
    if seen.queue_seconds is not None and seen.queue_seconds > limit and full >= 1:
        return f"one in twenty requests waits longer than {short(seen.queue_seconds)} s"
    return ""


def _grow(case: _Case, wish: _Wish) -> Decision:
    pods = min(wish.pods, case.rules.max, max(_most(case), case.current))
    case = replace(case, memory=replace(case.memory, recent=()))
    if wish.pods > case.rules.max:
        text = f"{wish.because}; that takes {wish.pods} pods, and spec.autoscaling.max is lower"
        return _concluded(case, pods, Outcome.AT_MAXIMUM, text)
    return _concluded(case, pods, Outcome.SCALING_OUT, wish.because)


def _shrink(case: _Case, wish: _Wish) -> Decision:
    """Fewer pods, when they have been enough for long enough and nothing speaks against it."""
    seen, current = case.seen, case.current
    if seen.arriving_mean is None or not case.memory.speed:
        return _hold(case, wish)
    enough = case.pods_for(seen.arriving_mean, _left(case), slack=_SLACK)
    # What pressed for more pods, or for these, is an argument for them.
    need = min(case.bounded(max(enough, wish.pods, current if _pressing(case) else 0)), current)
    memory = replace(case.memory, recent=_recent(case, need))
    case = replace(case, memory=memory)
    least = max([need, *(entry.replicas for entry in _within(case, memory.recent))])
    if least >= current or _waits(case):
        return _hold(case, wish)
    base = _base(case)
    floor = base - max(1, math.floor(base * case.rules.scale_down_limit_percent / 100))
    pods = max(least, floor, seen.busy)
    if pods >= current:
        return _hold(case, wish)
    kept = tuple(entry for entry in memory.recent if entry.replicas < pods)
    case = replace(case, memory=replace(memory, recent=kept))
    return _concluded(case, pods, Outcome.SCALING_IN, wish.because)


def _waits(case: _Case) -> bool:
    """Something is on its way or can't be seen, so that nothing may be taken away."""
    seen, changed = case.seen, case.memory.changed
    fresh = changed is not None and seen.now - changed < LONG
    return bool(case.starting or seen.unknown or seen.rolling or not seen.ready or fresh)


def _hold(case: _Case, wish: _Wish) -> Decision:
    """The number stays; why is told by what hinders most."""
    seen, current = case.seen, case.current
    if seen.pending:
        text = f"{counted(seen.pending, 'pod waits', 'pods wait')} for a node"
        return _concluded(case, current, Outcome.PODS_PENDING, text)
    if case.starting:
        outcome = Outcome.SCALING_OUT if seen.ready else Outcome.MEASURING
        text = f"{counted(case.starting, 'pod starts', 'pods start')}"
        return _concluded(case, current, outcome, f"{text}; {wish.because}" if seen.ready else text)
    if seen.unknown > seen.unread:
        text = f"the metrics of {counted(seen.unknown, 'pod', 'pods')} can't be read"
        return _concluded(case, current, Outcome.METRICS_UNAVAILABLE, text)
    # Those that were just begun with are no trouble yet.
    if seen.unknown or seen.arriving_mean is None or not case.memory.speed:
        return _concluded(case, current, Outcome.MEASURING, "too little was seen of the load yet")
    if wish.pods > case.rules.max:
        text = f"{wish.because}; that takes {wish.pods} pods, and spec.autoscaling.max is lower"
        return _concluded(case, current, Outcome.AT_MAXIMUM, text)
    return _concluded(case, current, Outcome.LOAD_MATCHED, wish.because)


def _concluded(case: _Case, pods: int, outcome: Outcome, why: str) -> Decision:
    memory, now = case.memory, case.seen.now
    if pods != memory.desired:
        if memory.period is None or now - memory.period >= _PERIOD:
            memory = replace(memory, period_from=case.current, period=now)
        memory = replace(memory, desired=pods, changed=now)
    if pods == 0:
        memory = replace(memory, recent=())
    return Decision(memory, outcome, why, case.seen)


def _most(case: _Case) -> int:
    """Pods that there may be within this minute."""
    base = max(1, _base(case))
    return base + max(_FEW, math.floor(base * case.rules.scale_up_limit_percent / 100))


def _base(case: _Case) -> int:
    """Pods at the beginning of the minute in which the limits count."""
    memory = case.memory
    if memory.period is None or memory.period_from is None:
        return case.current
    return case.current if case.seen.now - memory.period >= _PERIOD else memory.period_from


def _recent(case: _Case, need: int) -> tuple[Need, ...]:
    """Needs within the delay, greatest first, each with when it was last; the last is the present.

    Nothing is kept while as many pods are needed as there are. A need that comes back for a moment
    is only noted when a part of the delay has passed: noise would be written down all the time.
    """
    now, current = case.seen.now, case.current
    kept = [entry for entry in case.memory.recent if entry.replicas <= current]
    if not kept:
        return () if need >= current else (Need(current, now), Need(need, now))
    *_, present = kept
    if need < present.replicas:
        return (*kept[:-1], Need(present.replicas, now), Need(need, now))
    if need == present.replicas:
        return tuple(kept)
    noted = next((entry for entry in reversed(kept) if entry.replicas >= need), None)
    grain = case.rules.scale_down_delay_seconds / _GRAIN
    if noted is not None and now - noted.time < grain:
        return tuple(kept)
    if need >= current:
        return ()
    return (*(entry for entry in kept if entry.replicas > need), Need(need, now))


def _within(case: _Case, recent: tuple[Need, ...]) -> list[Need]:
    delay = case.rules.scale_down_delay_seconds
    return [entry for entry in recent if case.seen.now - entry.time < delay]


def _load_words(case: _Case, arriving: float, backlog: float) -> str:
    speed = case.memory.speed
    if not speed:
        return "it is not known yet what a pod can do"
    share = case.rules.target_utilization_percent
    waiting = f", {short(backlog)} tokens wait" if backlog else ""
    blank = f"; {case.unseen} more can't be read and count as just right" if case.unseen else ""
    return (
        f"{short(arriving)} tokens/s arrive{waiting}, and a pod does {short(speed)} tokens/s, of "
        f"which {share} % count{blank}"
    )


def _idle_words(case: _Case) -> str:
    return f"no request for {case.rules.idle_seconds} s; the next one starts a pod"
