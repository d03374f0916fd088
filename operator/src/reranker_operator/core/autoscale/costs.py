"""Which pods go when a Deployment gets fewer: those with the least to do.

A ReplicaSet takes pods that are not ready first, then those whose `pod-deletion-cost` is lowest.
The annotation is written right before the number is, and only on the pods that are to go.
"""

from collections.abc import Iterator

from reranker_operator.api.meta import POD
from reranker_operator.core.causes.pods import is_ready
from reranker_operator.core.load import FRESH_SECONDS
from reranker_operator.core.plan import Patch
from reranker_operator.core.revisions import live_deployments, pods_of
from reranker_operator.core.rollout import Rollout
from reranker_operator.core.world import Manifest, ServiceWorld, is_leaving

COST = "controller.kubernetes.io/pod-deletion-cost"
#: Lower than what anybody would write who wants a pod to go first.
_CHEAP = "-1000000"


def mark_idlest(world: ServiceWorld, rollout: Rollout) -> tuple[Patch, ...]:
    """Annotate those that should go, before the Deployments get their numbers."""
    patches: list[Patch] = []
    for revision, entry in live_deployments(world).items():
        number = rollout.applied.get(entry["metadata"]["name"])
        if number:
            patches += _marks(world, revision, number)
    return tuple(patches)


def _marks(world: ServiceWorld, revision: str, number: int) -> Iterator[Patch]:
    pods = [pod for pod in pods_of(world, revision) if not is_leaving(pod)]
    ready = [pod for pod in pods if is_ready(pod)]
    surplus = len(ready) - number
    work = _work(world)
    if surplus <= 0 or not work:
        return
    known = [pod for pod in ready if _name(pod) in work]
    going = {_name(pod) for pod in sorted(known, key=lambda pod: work[_name(pod)])[:surplus]}
    for pod in sorted(ready, key=_name):
        marked = pod["metadata"].get("annotations", {}).get(COST) == _CHEAP
        if marked != (_name(pod) in going):
            cost = None if marked else _CHEAP
            yield Patch(POD, _name(pod), {"metadata": {"annotations": {COST: cost}}})


def _work(world: ServiceWorld) -> dict[str, tuple[float, float, str]]:
    """What each pod has to do, by name; a pod without news is not among them."""
    now = world.now.timestamp()
    return {
        load.pod: (load.last.backlog_tokens, load.last.in_progress, load.pod)
        for load in world.loads
        if load.role == "serving" and load.last is not None and load.is_known(now, FRESH_SECONDS)
    }


def _name(pod: Manifest) -> str:
    return str(pod["metadata"]["name"])
