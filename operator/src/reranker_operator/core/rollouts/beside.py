"""One revision beside another: surge, canary, blueGreen, and the way back of all three.

The former revision is complete all the time, so that the traffic can be given back at once.
"""

from reranker_operator.core.plan import Action, Apply
from reranker_operator.core.revisions import asked_of, has_all
from reranker_operator.core.rollouts.give import delete, give
from reranker_operator.core.rollouts.stages import Address
from reranker_operator.core.rollouts.view import View
from reranker_operator.core.rollouts.wish import proven
from reranker_operator.render import serving as render


def beside(view: View) -> list[Action]:
    """Carry out the present stage."""
    world, live = view.world, view.live
    kept = {view.target, view.base, view.serving}
    gone = [revision for revision in live if revision not in kept]
    if view.trusted and view.arrived:
        gone = [revision for revision in live if revision != view.target]
    # First what goes, so that there are never more pods than of two revisions.
    actions: list[Action] = [delete(live[revision]) for revision in gone]
    if view.target in live or not _is_superseded(view):
        count = view.stage.count(view.total)
        actions += give(world, live, view.target, count, view.template)
    if view.base is not None and view.base not in gone:
        # On the way back from it, it only waits for its end.
        leaves = view.trusted and view.base != proven(world.service)
        number = asked_of(live[view.base])
        if not leaves and (not view.arrived or number == 0):
            number = view.total
        elif not leaves:
            # It has no traffic; what comes on top is for the one that has it.
            number = min(number, view.total)
        actions += give(world, live, view.base, number)
    actions.append(Apply(render.service_object(world.service, _address(view))))
    return actions


def _is_superseded(view: View) -> bool:
    """What has the traffic is neither wanted nor proven: it gives it back before all else."""
    return view.serving not in (None, view.target, view.base)


def _address(view: View) -> str | None:
    """The revision that the address leads to; None for all."""
    if view.base is None or view.arrived:
        return view.target
    if _is_superseded(view):
        return view.base
    entry, leads = view.entry, view.stage.address
    if leads == "new":
        if entry is not None and asked_of(entry) >= view.total and has_all(entry):
            return view.target
        leads = _before(view)
    return None if leads == "both" else view.base


def _before(view: View) -> Address:
    return view.stages[view.number - 1].address if view.number else "former"
