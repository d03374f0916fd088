"""What the pods' metrics say of a rollout, and which pods say nothing."""

from typing import NamedTuple

from reranker_operator.api.rollout import GateStatus
from reranker_operator.core.causes.pods import is_ready
from reranker_operator.core.revisions import pods_of
from reranker_operator.core.rollouts import gates, tally
from reranker_operator.core.rollouts.tally import Tally
from reranker_operator.core.rollouts.view import View
from reranker_operator.core.world import is_leaving
from reranker_operator.render import shadow


class Reading(NamedTuple):
    """Pods that are in no number: of the target, and of those that compare scores; and what those
    have counted.
    """

    unread: int
    unread_comparing: int
    tally: Tally


def read(view: View) -> Reading:
    """What is known of the target now."""
    return Reading(_unread(view, view.target), _unread_comparing(view), _compared(view))


def _unread(view: View, revision: str | None) -> int:
    """Ready pods of a revision that are in no number."""
    world = view.world
    ready = {
        str(pod["metadata"]["name"])
        for pod in pods_of(world, revision)
        if is_ready(pod) and not is_leaving(pod)
    }
    return gates.unread(world.loads, ready, world.now.timestamp())


def _takes_part(view: View) -> bool:
    """Pods of the former revision were made to have requests scored by another one, too."""
    entry = view.live.get(view.base or "")
    return entry is not None and shadow.takes_part(entry)


def _compared(view: View) -> Tally:
    """What is counted of this rollout: from when its pods are ready until it has the traffic."""
    stand = view.stand
    if shadow.gate_of(view.world.service) is None or view.straight:
        return Tally()
    known = Tally(stand.compared_before, stand.compared) if stand is not None else Tally()
    if view.arrived:
        return known
    if not _takes_part(view):
        return Tally()
    told = tally.compared(view.world.loads, view.base, view.target)
    if stand is None or not (stand.ready or view.number):
        return tally.begin(known, told)
    pods = {str(pod["metadata"]["name"]) for pod in pods_of(view.world, view.base)}
    return tally.go_on(known, told, pods)


def agreement(view: View, found: Reading) -> tuple[GateStatus, ...]:
    """The gate of compared scores, where it was asked for."""
    limits = shadow.gate_of(view.world.service)
    if limits is None:
        return ()
    gate = gates.shadow(
        limits,
        found.tally.counted,
        unread=found.unread_comparing,
        takes_part=_takes_part(view),
        over=view.arrived,
    )
    return (gate,)


def _unread_comparing(view: View) -> int:
    """Pods whose comparisons of scores are in no number."""
    asked = shadow.gate_of(view.world.service) is not None and not view.arrived
    return _unread(view, view.base) if asked and _takes_part(view) else 0
