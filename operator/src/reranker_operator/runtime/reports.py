"""Events, read where nothing else tells why something is stuck.

They are not watched, and reading them is a call that no cache answers: so only about objects that
should be further by now, and about few of them.
"""

import datetime
import itertools
import logging
from collections.abc import Iterable, Iterator

from reranker_operator.adapters.cluster import Cluster, Json
from reranker_operator.api.meta import EVENT
from reranker_operator.core import jobs as job_views
from reranker_operator.core.causes import silence
from reranker_operator.core.causes.pods import living
from reranker_operator.core.world import Manifest
from reranker_operator.errors import Forbidden

logger = logging.getLogger(__name__)

#: What holds one up mostly holds up all.
_MOST = 3
_CLAIM_PATIENCE = datetime.timedelta(seconds=5)


async def warnings(
    cluster: Cluster,
    now: datetime.datetime,
    *,
    jobs: Iterable[Json],
    pods: Iterable[Json],
    claims: Iterable[Json] = (),
) -> tuple[Json, ...]:
    """Events about Jobs without pod, pods that are stuck and claims that are not bound."""
    found: list[Json] = []
    wanted = _wanted(list(jobs), list(pods), claims, now)
    for entry, fields in itertools.islice(wanted, _MOST):
        meta = entry["metadata"]
        about = {"involvedObject.uid": meta["uid"]} | fields
        try:
            found += await cluster.list(EVENT, meta["namespace"], fields=about)
        except Forbidden as error:
            logger.warning("events can't be read: %s", error)
            break
    return tuple(found)


def _wanted(
    jobs: list[Json], pods: list[Json], claims: Iterable[Json], now: datetime.datetime
) -> Iterator[tuple[Manifest, dict[str, str]]]:
    for job in jobs:
        if job_views.is_overdue(job, pods, now):
            yield job, {"reason": "FailedCreate"}
    for claim in claims:
        if _is_overdue(claim, now):
            yield claim, {}
    for pod in living(pods):
        if silence.is_overdue(pod, now):
            yield pod, {"type": "Warning"}


def _is_overdue(claim: Json, now: datetime.datetime) -> bool:
    created = datetime.datetime.fromisoformat(claim["metadata"]["creationTimestamp"])
    pending = claim.get("status", {}).get("phase") == "Pending"
    return pending and now - created >= _CLAIM_PATIENCE
