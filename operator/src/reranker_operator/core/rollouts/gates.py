"""Gates: is a new revision as good as the one before it, by what the gateways count?

Both are looked at side by side, over the last minute where that has enough requests. Pure
arithmetic on samples.
"""

import datetime
import math
from collections.abc import Callable, Container, Iterable

from reranker_contracts import ParityReport
from reranker_operator.api.rollout import Compared, GatesSpec, GateStatus, Measured, ShadowGate
from reranker_operator.core.autoscale.words import counted
from reranker_operator.core.load import FRESH_SECONDS, PodLoad, Sample, window

#: What one revision did lately, and in a longer time.
Sides = tuple[Measured, Measured]
Key = Callable[[Measured], float]
Gate = Callable[[GatesSpec, Measured, Measured], GateStatus]

#: What is called lately.
WINDOW_SECONDS = 60.0
_HOPELESS = 5
#: Seconds of work after which one fails by what it has not done, and is not taken for proven.
_STUCK_SECONDS, _SOME_SECONDS = 30.0, 5.0
#: Tokens that may be in the engine at a time, and how many times longer than allowed is far off.
_IN_FLIGHT, _FAR_OFF = 32_768.0, 5.0
_NO_TRAFFIC = "no traffic to judge"
#: What sums of many are off.
_ROUNDING = 1e-6
#: Time for which a stage is drawn out for pods that can't be read.
READING = datetime.timedelta(seconds=30)
#: A gate fails when it was found failing for this long: the first batches of a pod are slow ones.
PERSISTS = datetime.timedelta(seconds=10)


def lately(loads: Iterable[PodLoad], revision: str | None, since: float = -math.inf) -> Measured:
    """What the pods of a revision did in the last minute, and not before the time `since`."""
    total = Measured()
    for load in _of(loads, revision):
        ends = window([sample for sample in load.samples if sample.at >= since], WINDOW_SECONDS)
        if ends is not None:
            total = _sum(total, _done(*ends))
    return total


def in_all(loads: Iterable[PodLoad], revision: str | None) -> Measured:
    """What the pods of a revision did since they were started, as far as they still run."""
    total = Measured()
    for load in _of(loads, revision):
        if load.last is not None:
            total = _sum(total, _done(Sample(load.last.at), load.last))
    return total


def _done(first: Sample, last: Sample) -> Measured:
    """Between two samples of one process."""
    return Measured(
        requests=max(0.0, last.requests - first.requests),
        failed=max(0.0, last.failed - first.failed),
        tokens=max(0.0, last.tokens - first.tokens),
        busy_seconds=max(0.0, last.busy_seconds - first.busy_seconds),
    )


def unread(loads: Iterable[PodLoad], pods: Container[str], now: float) -> int:
    """How many of these pods should be read and tell nothing of the last seconds.

    So are all for the first seconds of another process of ours.
    """
    return sum(
        load.role == "serving"
        and load.pod in pods
        and (len(load.samples) < 2 or not load.is_known(now, FRESH_SECONDS))
        for load in loads
    )


def judge(
    limits: GatesSpec,
    new: Sides,
    former: Sides,
    *,
    unread: int = 0,
    alone: Measured | str | None = None,
    left: str | None = None,
) -> tuple[GateStatus, GateStatus]:
    """Errors and time per token; `unread` pods of the new revision are not in its numbers, and
    `left` is what it has not finished.

    `alone`: what it did with all the traffic, where it was asked a mere share before, which fills
    no batches and says nothing of its speed; or why there is no such yet.
    """
    requests: Key = lambda done: done.requests  # noqa: E731 - two words where they are used
    tokens: Key = lambda done: done.tokens  # noqa: E731 - as above

    def sides(gate: Gate, key: Key, least: float) -> GateStatus:
        found = gate(limits, _enough(new, key, least), _enough(former, key, least))
        if unread and found.message == _NO_TRAFFIC:
            told = {"state": "Waiting", "message": _unread_text(unread)}
            return found.model_copy(update=told)
        return found

    def all_errors() -> GateStatus:
        # First what fails now, of however few: hours that were good must not hide it.
        recent = _errors(limits, new[0], _enough(former, requests, limits.min_requests), new[1])
        return recent if recent.state == "Failed" else sides(_errors, requests, limits.min_requests)

    errors = _reckoned("errorRate", all_errors)
    if isinstance(alone, str):
        return errors, GateStatus(name="latency", state="NoData", message=alone)
    if alone is not None:
        new = alone, alone

    def latency() -> GateStatus:
        base = _enough(former, tokens, limits.min_tokens)
        stuck = next(filter(None, (_stuck(limits, side, base) for side in new)), None)
        if stuck is not None:
            return GateStatus(name="latency", state="Failed", message=stuck)
        found = sides(_latency, tokens, limits.min_tokens)
        if left is not None and found.state in ("Waiting", "NoData"):
            return found.model_copy(update={"state": "Waiting", "message": left})
        return found

    return errors, _reckoned("latency", latency)


def _reckoned(name: str, gate: Callable[[], GateStatus]) -> GateStatus:
    """Pods choose what they say: numbers that can't be reckoned with are as good as none."""
    try:
        return gate()
    except (ArithmeticError, ValueError):
        return GateStatus(name=name, state="NoData", message="the pods' numbers make no sense")


def shadow(
    limits: ShadowGate,
    done: Iterable[Compared],
    *,
    unread: int = 0,
    takes_part: bool = True,
    over: bool = False,
) -> GateStatus:
    """Scores of the same requests, as they were counted in this rollout.

    `unread` pods of the former revision are not in the numbers; `takes_part`: they compare at all;
    `over`: there is nothing to compare any more, and no verdict but what there was.
    """
    if not takes_part:
        text = (
            f"{_NO_TRAFFIC}: the former revision was made without spec.rollout.gates.shadow, as it "
            "is now; scores are compared from the next change on"
        )
        return GateStatus(name="shadow", state="NoData", message=text)
    found = _reckoned("shadow", lambda: _agreement(limits, tuple(done), unread))
    if over and found.state != "Passed":
        text = f"{found.message}; no longer judged, since the address leads to the new revision"
        return GateStatus(name="shadow", state="NoData", message=text)
    return found


def _agreement(limits: ShadowGate, done: tuple[Compared, ...], unread: int) -> GateStatus:
    """Raises ValueError for numbers that can't be."""
    count, tau = sum(entry.requests for entry in done), sum(entry.tau for entry in done)
    failed = sum(entry.failed for entry in done)
    if count < 1:
        return _nothing_compared(limits, failed, unread)
    mean = tau / count
    if not abs(mean) <= 1 + _ROUNDING:
        raise ValueError("no mean of tau")
    numbers = (
        f"mean Kendall tau {mean:.4f} of the scores of {count:.0f} requests, compared with the "
        f"former revision's; {limits.min_kendall_tau:g} is needed"
    )
    state = "Failed" if mean < limits.min_kendall_tau - _ROUNDING else "Passed"
    if count < limits.min_requests:
        state, numbers = "Waiting", f"{numbers}; judged from {limits.min_requests} requests on"
    if failed >= 1:
        numbers = f"{numbers}; {_failed_text(failed)}"
    if unread:
        numbers = f"{numbers}; {_unread_text(unread)}"
    return GateStatus(name="shadow", state=state, message=numbers)


def _nothing_compared(limits: ShadowGate, failed: float, unread: int) -> GateStatus:
    """One that answers nobody is no better than one that answers otherwise."""
    also = _unread_text(unread) if unread else ""
    if not failed >= 1:
        text = also or f"{_NO_TRAFFIC}: no scores were compared yet"
        return GateStatus(name="shadow", state="Waiting" if unread else "NoData", message=text)
    state, text = "Failed", _failed_text(failed)
    if failed < limits.min_requests:
        state, text = "Waiting", f"{text}; judged from {limits.min_requests} requests on"
    return GateStatus(name="shadow", state=state, message=f"{text}; {also}" if also else text)


def _failed_text(failed: float) -> str:
    one, many = "request could not", "requests could not"
    them = "it" if round(failed) == 1 else "them"
    number = counted(round(failed), one, many)
    return f"{number} be compared: the new revision did not answer {them}"


def _unread_text(unread: int) -> str:
    return f"the metrics of {counted(unread, 'pod', 'pods')} could not be read lately"


def parity(report: ParityReport | None) -> GateStatus:
    """Of an engine that serves: one that ranks differently never gets as far as pods."""
    if report is None:
        return GateStatus(
            name="parity", state="NoData", message="measured by each pod at its start"
        )
    text = (
        f"Kendall tau {report.kendall_tau:.4f}, NDCG@10 difference {report.ndcg10_delta:.4f}, as "
        "spec.engine.parity asks"
    )
    return GateStatus(name="parity", state="Passed", message=text)


def readiness(ready: int, asked: int) -> GateStatus:
    """All pods that it was given are ready."""
    state = "Passed" if ready >= asked else "Waiting"
    return GateStatus(name="ready", state=state, message=f"{ready} of {asked} pods are ready")


def _errors(
    limits: GatesSpec, new: Measured, former: Measured, total: Measured | None = None
) -> GateStatus:
    """`total`: what it did in a longer time than `new` is of."""
    name, count, failed = "errorRate", new.requests, new.failed
    if limits.max_error_increase >= 1:
        return GateStatus(name=name, state="Passed", message="not judged")
    if count < 1:
        return GateStatus(name=name, state="NoData", message=_NO_TRAFFIC)
    base = former.failed / former.requests if former.requests >= 1 else 0.0
    numbers = (
        f"{_percent(failed / count)} of {count:.0f} requests failed, of the former revision's "
        f"{_percent(base)} of {former.requests:.0f}; {_percent(limits.max_error_increase)} more "
        "are allowed"
    )
    allowed = min(1.0, base + limits.max_error_increase)
    expected = count * allowed
    # Twice the spread of a Poisson count, and one: what chance alone hardly brings about.
    failing = failed > expected + 2 * math.sqrt(max(0.0, expected)) + 1
    # Of few requests most fail, or too many of one that was asked enough: nobody waits for more.
    known = total is not None and total.requests >= limits.min_requests
    many = failed >= count / 2 and failed > expected
    hopeless = failed >= _HOPELESS and (many or (known and failing))
    if count < limits.min_requests and not hopeless:
        text = f"{numbers}; judged from {limits.min_requests} requests on"
        return GateStatus(name=name, state="Waiting", message=text)
    state = "Failed" if failing or hopeless else "Passed"
    return GateStatus(name=name, state=state, message=numbers)


def _latency(limits: GatesSpec, new: Measured, former: Measured) -> GateStatus:
    name = "latency"
    if new.tokens < 1 or new.busy_seconds <= 0:
        return GateStatus(name=name, state="NoData", message=_NO_TRAFFIC)
    own = new.busy_seconds / new.tokens
    if former.tokens < limits.min_tokens or former.busy_seconds <= 0:
        text = f"{_per_token(own)}, and nothing of the former revision to compare with"
        return GateStatus(name=name, state="NoData", message=text)
    ratio = own / (former.busy_seconds / former.tokens)
    numbers = (
        f"{_per_token(own)} over {new.tokens:.0f} tokens, {ratio:.2f} times the former revision's "
        f"{_per_token(own / ratio)}; {limits.max_slowdown:g} times is allowed"
    )
    if new.tokens < limits.min_tokens:
        text = f"{numbers}; judged from {limits.min_tokens} tokens on"
        return GateStatus(name=name, state="Waiting", message=text)
    state = "Failed" if ratio > limits.max_slowdown else "Passed"
    return GateStatus(name=name, state=state, message=numbers)


def _stuck(
    limits: GatesSpec, new: Measured, former: Measured, seconds: float = _STUCK_SECONDS
) -> str | None:
    """It has worked for longer than it may take for all that it is judged by, and has not done it.

    Who hangs, or takes a hundred times as long, never gets as far as `minTokens`.
    """
    done, spent = new.tokens, new.busy_seconds
    if done >= limits.min_tokens or spent < seconds:
        return None
    numbers = f"finished {done:.0f} tokens in {spent:.0f} s of work"
    own = former.busy_seconds / former.tokens if former.tokens >= 1 else 0.0
    if own <= 0:
        return numbers if done < 1 and spent >= 1.5 * seconds else None
    # Where very many tokens are asked for, less is enough of one that is far off.
    count = min(float(limits.min_tokens), _FAR_OFF * (done + _IN_FLIGHT))
    if spent <= limits.max_slowdown * own * count:
        return None
    return (
        f"{numbers}; the former revision needs {own * limits.min_tokens:.2g} s for "
        f"{limits.min_tokens}, and {limits.max_slowdown:g} times is allowed"
    )


def unfinished(
    limits: GatesSpec, new: Sides, former: Sides, waiting: tuple[float, float]
) -> str | None:
    """What a revision was asked for and has not done, where that is enough to judge it by.

    What nobody asked for is no such. `waiting`: see there.
    """
    tokens, requests = waiting
    did, total = new
    base = _enough(former, lambda done: done.tokens, limits.min_tokens)
    if total.tokens < limits.min_tokens:
        # Since the start; what was slow once, and is asked for no more, is over.
        if (text := _stuck(limits, did, base, _SOME_SECONDS)) is not None:
            return text
        if tokens >= 1 and did.tokens < 1 and did.busy_seconds >= _SOME_SECONDS:
            return f"finished none of {tokens:.0f} tokens in {did.busy_seconds:.0f} s of work"
        if total.tokens + tokens >= limits.min_tokens:
            return f"finished {total.tokens:.0f} tokens, and {tokens:.0f} more wait"
    if total.requests < limits.min_requests <= total.requests + requests:
        return f"answered {total.requests:.0f} requests, and {requests:.0f} more wait"
    return None


def waiting(loads: Iterable[PodLoad], revision: str | None, now: float) -> tuple[float, float]:
    """Tokens and requests that a revision was asked for and has not finished."""
    last = [
        load.last
        for load in _of(loads, revision)
        if load.last is not None and load.is_known(now, FRESH_SECONDS)
    ]
    return sum(one.backlog_tokens for one in last), sum(one.in_progress for one in last)


def _enough(sides: Sides, key: Key, least: float) -> Measured:
    """The first that has enough to be judged by, else the one with most."""
    return next((side for side in sides if key(side) >= least), max(sides, key=key))


def _of(loads: Iterable[PodLoad], revision: str | None) -> list[PodLoad]:
    return [load for load in loads if load.role == "serving" and load.revision == revision]


def _sum(one: Measured, other: Measured) -> Measured:
    return Measured(
        requests=one.requests + other.requests,
        failed=one.failed + other.failed,
        tokens=one.tokens + other.tokens,
        busy_seconds=one.busy_seconds + other.busy_seconds,
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _per_token(seconds: float) -> str:
    return f"{1e6 * seconds:.1f} µs per token"
