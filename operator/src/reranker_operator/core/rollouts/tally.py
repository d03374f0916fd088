"""What is counted of compared scores in one rollout, though the pods that count come and go.

Pods count as long as they live. Of each there is what is taken off its counters, and what is left:
that stays when the pod goes. Both together are the counters as they were seen last.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from reranker_operator.api.rollout import Compared
from reranker_operator.core.load import PodLoad

#: Pods that are counted at the same time.
_MOST_PODS = 100
#: Counts are whole numbers; what is less is how they were added up.
_LESS = 0.5
#: In place of the name of all pods that are gone.
_GONE = ""


class Tally(NamedTuple):
    """`before` is taken off each pod's counters, `counted` is of this rollout."""

    before: tuple[Compared, ...] = ()
    counted: tuple[Compared, ...] = ()


def compared(loads: Iterable[PodLoad], former: str | None, new: str) -> tuple[Compared, ...]:
    """The counters of each pod of `former` that was read, of the scores of `new`.

    Those that failed are of any revision; while one is on its way there is no other.
    """
    found = []
    for load in loads:
        if load.role == "serving" and load.revision == former and load.last is not None:
            shadowed = (entry for entry in load.last.shadowed if entry.revision == new)
            requests, tau = next(((entry.requests, entry.tau) for entry in shadowed), (0.0, 0.0))
            failed = load.last.unanswered
            found.append(Compared(pod=load.pod, requests=requests, tau=tau, failed=failed))
    return tuple(sorted(found, key=lambda entry: entry.pod))


def begin(known: Tally, read: Iterable[Compared]) -> Tally:
    """Nothing that was counted until now is of this rollout; of pods that can't be read it stays
    what was `known`.
    """
    before = {entry.pod: entry for entry in (*known.before, *read)}
    return Tally(_sorted(before.values())[:_MOST_PODS])


def go_on(known: Tally, read: Iterable[Compared], pods: Collection[str]) -> Tally:
    """Counters as they are now, of those of the `pods` that could be read."""
    before = {entry.pod: entry for entry in known.before if entry.pod in pods}
    counted = {entry.pod: entry for entry in known.counted if entry.pod in pods}
    for entry in read:
        off = before.get(entry.pod)
        if off is None:
            # What it did before it was seen at all may be of an earlier try.
            if len(before) < _MOST_PODS:
                before[entry.pod] = entry
            continue
        had = counted.get(entry.pod, Compared(pod=entry.pod))
        if _began_anew(_sum(entry.pod, (off, had)), entry):
            before[entry.pod] = off = _less(Compared(pod=entry.pod), had)
        counted[entry.pod] = _less(entry, off)
    counted[_GONE] = _sum(_GONE, (entry for entry in known.counted if entry.pod not in pods))
    return Tally(_sorted(before.values()), _sorted(filter(_is_any, counted.values())))


def _began_anew(last: Compared, now: Compared) -> bool:
    return now.requests < last.requests - _LESS or now.failed < last.failed - _LESS


def _is_any(entry: Compared) -> bool:
    return entry.requests > 0 or entry.failed > 0


def _less(one: Compared, other: Compared) -> Compared:
    return Compared(
        pod=one.pod,
        requests=one.requests - other.requests,
        tau=one.tau - other.tau,
        failed=one.failed - other.failed,
    )


def _sum(pod: str, entries: Iterable[Compared]) -> Compared:
    requests = tau = failed = 0.0
    for entry in entries:
        requests += entry.requests
        tau += entry.tau
        failed += entry.failed
    return Compared(pod=pod, requests=requests, tau=tau, failed=failed)


def _sorted(entries: Iterable[Compared]) -> tuple[Compared, ...]:
    return tuple(sorted(entries, key=lambda entry: entry.pod))
