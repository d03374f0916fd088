"""Whether a service need be looked at again because of what its pods say of their load.

Between two looks this is asked at each round of reading, of each service: it must be cheap, keep
little, and say yes whenever the plan would be another one.
"""

from collections.abc import Callable, Sequence

from reranker_operator.core.autoscale.observe import outlook
from reranker_operator.core.load import PodLoad
from reranker_operator.core.world import ServiceWorld

#: Whether nobody need look when the loads are these, at a time in seconds since the epoch.
Calm = Callable[[Sequence[PodLoad], float], bool]


def recheck(world: ServiceWorld) -> Calm | None:
    """The question for the time until the next look at this world; None: nothing depends on it."""
    found = outlook(world)
    return None if found is None else found.holds
