"""For those who run the cluster: the budget of a node drain, and the scraping of metrics."""

import math
from collections.abc import Mapping

from reranker_operator import names
from reranker_operator.api.meta import BUDGET, SERVICE_MONITOR
from reranker_operator.api.v1alpha1 import RerankerService
from reranker_operator.render.exposure import head
from reranker_operator.render.pods import Json


def budget(service: RerankerService, selector: Mapping[str, str], replicas: int) -> Json | None:
    """Of the pods behind the address; those of a revision that only starts would count as missing.

    Pods that are not ready may always be evicted: a service that does not serve blocks no drain.
    """
    asked = service.spec.disruption
    if not asked.enabled or replicas < 2:
        return None
    if asked.min_available is not None:
        amount: Json = {"minAvailable": _leaves_one(asked.min_available, replicas)}
    else:
        amount = {"maxUnavailable": asked.max_unavailable or 1}
    spec = amount | {
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": dict(selector)},
    }
    return head(service, BUDGET, service.metadata.name, "disruption") | {"spec": spec}


def _leaves_one(wanted: int | str, replicas: int) -> int | str:
    """The number or share, or one pod fewer than there are: else no drain would ever get on."""
    pods = math.ceil(int(wanted[:-1]) * replicas / 100) if isinstance(wanted, str) else wanted
    return wanted if pods < replicas else replicas - 1


def service_monitor(service: RerankerService) -> Json | None:
    """Scrapes the pods behind the address; the Service for outside has no such port."""
    asked, name = service.spec.monitoring.service_monitor, service.metadata.name
    if asked is None:
        return None
    endpoint: Json = {"port": "metrics"}
    if asked.interval:
        endpoint["interval"] = asked.interval
    if asked.scrape_timeout:
        endpoint["scrapeTimeout"] = asked.scrape_timeout
    labels = {names.SERVICE_LABEL: name, names.APP_COMPONENT: "serving"}
    spec = {"selector": {"matchLabels": labels}, "endpoints": [endpoint]}
    return head(service, SERVICE_MONITOR, name, "monitoring", labels=asked.labels) | {"spec": spec}
