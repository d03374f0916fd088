"""Without surge: two revisions share the number of pods, and one hands over to the other."""

import datetime
import math
from collections.abc import Mapping

from reranker_operator.core.causes.pods import has_ended, moment
from reranker_operator.core.plan import Action, Apply
from reranker_operator.core.revisions import (
    asked_of,
    has_all,
    held_by,
    is_available,
    ready_of,
    revision_of,
)
from reranker_operator.core.rollouts.give import delete, give
from reranker_operator.core.rollouts.view import View
from reranker_operator.core.split import split
from reranker_operator.core.world import Manifest
from reranker_operator.render import serving as render

#: Beyond its grace time, which a pod's deletionTimestamp is the end of.
_LATE = datetime.timedelta(seconds=60)


def hand_over(view: View) -> list[Action]:
    """One small step from the present numbers of pods."""
    world, live, target = view.world, view.live, view.target
    others = [revision for revision in live if revision != target]
    # Once it has the traffic alone, nothing is shared any more, also when pods are missing to it.
    if not others or view.arrived or (target in live and is_available(live[target], view.total)):
        room = _room(view, others)
        actions = give(world, live, target, room, view.template)
        actions.append(Apply(render.service_object(world.service, target)))
        if not view.arrived:
            return actions
        # The former ones end when the address was seen to lead to the new one alone; of the one to
        # go back to the Deployment stays until that is no longer needed.
        kept = None if view.trusted else view.base
        if room < view.total and not _has_failed(view):
            # Until then they are what tells that pods are going on account of a rollout.
            return actions + [taken for name in others for taken in give(world, live, name, 0)]
        actions += [delete(live[revision]) for revision in others if revision != kept]
        return actions + (give(world, live, kept, 0) if kept in live and kept else [])
    found = {revision for pod in world.pods if (revision := revision_of(pod))}
    old, new = held_by(world, live, {*others, *found} - {target}), held_by(world, live, {target})
    for_others, for_target = split(view.total, old, new, new_is_ready=_may_go_on(view))
    shares = share_out(live, others, view.serving, for_others)
    gives = {
        revision: give(world, live, revision, number) for revision, number in shares.items()
    } | {target: give(world, live, target, for_target, view.template)}
    shares[target] = for_target
    # What takes comes before what gives, so that no crash in between leaves more than the total.
    order = sorted(gives, key=lambda name: (shares[name] - asked_of(live.get(name)), name))
    address: list[Action] = [Apply(render.service_object(world.service, _address(view)))]
    return [*address, *(action for revision in order for action in gives[revision])]


def _room(view: View, others: list[str]) -> int:
    """Pods for the one that has the traffic. On the way back from another revision, those that are
    going still hold their GPUs; at other times the cluster sees to that.
    """
    world, asked = view.world, asked_of(view.entry)
    if not others and not _has_failed(view):
        return view.total
    going = sum(revision_of(pod) is not None and _ends_soon(pod, world.now) for pod in world.pods)
    taken = going + sum(asked_of(view.live[revision]) for revision in others)
    return min(view.total, max(asked, view.total - taken))


def _has_failed(view: View) -> bool:
    return any(entry.in_force for entry in view.world.service.status.failed)


def _ends_soon(pod: Manifest, now: datetime.datetime) -> bool:
    """It was told to end. One that is late may never do so: its node is lost."""
    due = moment(pod["metadata"].get("deletionTimestamp"))
    return due is not None and not has_ended(pod) and now - due < _LATE


def share_out(
    live: Mapping[str, Manifest], others: list[str], serving: str | None, total: int
) -> dict[str, int]:
    """Divide what is left to former revisions: those give first that were still on their way."""
    shares = {revision: asked_of(live[revision]) for revision in others}
    excess = sum(shares.values()) - total
    keeper = serving if serving in shares else max(others)
    for revision in sorted(others, key=lambda name: (name == keeper, has_all(live[name]), name)):
        given_up = max(0, min(shares[revision], excess))
        shares[revision] -= given_up
        excess -= given_up
    shares[keeper] += max(0, -excess)
    return shares


def floor(view: View) -> int:
    """Ready pods below which none is given up."""
    asked = view.world.service.spec.rollout.min_available
    if asked is None:
        return max(0, view.total - 1)
    if isinstance(asked, str):
        return math.ceil(int(asked[:-1]) * view.total / 100)
    return asked


def floor_holds(view: View) -> bool:
    """The next pod would be given up, but for the floor that was asked for."""
    asked = view.world.service.spec.rollout.min_available is not None
    others = [entry for revision, entry in view.live.items() if revision != view.target]
    left = sum(map(asked_of, others)) > 0 and not view.arrived
    return asked and view.hands_over and left and _is_ready(view) and not _above_floor(view)


def _may_go_on(view: View) -> bool:
    """The old side may give up its next pod."""
    first = view.stage.phase == "FirstPod" and asked_of(view.entry) >= 1
    return _is_ready(view) and not first and _above_floor(view)


def _is_ready(view: View) -> bool:
    entry = view.entry
    return entry is None or asked_of(entry) == 0 or has_all(entry)


def _above_floor(view: View) -> bool:
    others = [entry for revision, entry in view.live.items() if revision != view.target]
    # One was given up already; or those go first that are not ready, and nobody misses them.
    spare = view.total - sum(map(asked_of, others)) - asked_of(view.entry)
    if spare > 0 or any(asked_of(entry) > ready_of(entry) for entry in others):
        return True
    ready = sum(map(ready_of, others)) + ready_of(view.entry)
    return ready - 1 >= floor(view)


def _address(view: View) -> str | None:
    """All share the traffic; on the way back the one that failed gets none any more."""
    entry = view.entry
    # What was seen to be ready may have been taken from it since.
    enough = min(asked_of(entry), ready_of(entry)) >= max(1, view.total - 1)
    return view.target if view.trusted and enough else None
