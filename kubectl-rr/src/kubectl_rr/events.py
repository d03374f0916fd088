"""`kubectl rr events`: everything that was said about a service's objects, by time."""

import datetime
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from kubectl_rr.cluster import Access, Cluster, connect
from kubectl_rr.errors import Forbidden
from kubectl_rr.raw import Json, integer, moment, owners, text
from kubectl_rr.read import engines_of
from kubectl_rr.terminal import age, complain, console, show
from reranker_operator.api.meta import EVENT, PVC, RERANKER_ENGINE, RERANKER_SERVICE

_SECONDS = 2.0
_LONG_AGO = datetime.datetime.min.replace(tzinfo=datetime.UTC)
#: How an Event names the container that it is about.
_CONTAINER = re.compile(r"spec\.(?:containers|initContainers|ephemeralContainers)\{(.+)\}")
_BUILDERS = frozenset({"Job", "Pod"})
_SERVERS = frozenset({"Job", "Pod", "Deployment", "ReplicaSet"})


@dataclass(frozen=True)
class Event:
    """One Event about an object, and where it is a pod, perhaps about a `container` of it."""

    when: datetime.datetime
    warning: bool
    reason: str
    kind: str
    name: str
    message: str
    count: int
    container: str = ""


@dataclass(frozen=True)
class Family:
    """The names of a service and of what was made for it, also of what is gone by now."""

    service: str
    engines: frozenset[str] = frozenset()
    claims: frozenset[str] = frozenset()

    def owns(self, kind: str, name: str) -> bool:
        """Whether an object of this kind and name belongs to the service."""
        if kind == "PersistentVolumeClaim":
            return name in self.claims
        if kind in ("RerankerService", "Service"):
            return name == self.service
        if kind == "RerankerEngine":
            return name in self.engines
        if kind in _BUILDERS and any(name.startswith(f"{engine}-") for engine in self.engines):
            return True
        made = rf"{re.escape(self.service)}-(resolve-[0-9a-f]{{6}}|[0-9a-f]{{8}})(-.*)?"
        return kind in _SERVERS and re.fullmatch(made, name) is not None


def run(access: Access, name: str, *, warnings: bool, watch: bool, color: str) -> int:
    """Print them, oldest first, or of them the `warnings`; with `watch` also those to come."""
    cluster = connect(access)
    screen = console(color)
    told, what = False, "warnings" if warnings else "events"
    for events in follow(cluster, cluster.namespace, name):
        fresh = [event for event in events if event.warning or not warnings]
        if fresh:
            show(screen, draw(fresh, datetime.datetime.now(datetime.UTC)))
            screen.file.flush()
        elif not told:
            complain(f"no {what} of {name}; the cluster keeps events for an hour")
        told = True
        if not watch:
            break
    return 0


def follow(
    cluster: Cluster, namespace: str, name: str, pause: Callable[[float], None] = time.sleep
) -> Iterator[list[Event]]:
    """All events, then again and again those that are new or happened again."""
    known: set[Event] = set()
    while True:
        found = related(cluster, namespace, name)
        yield [event for event in found if event not in known]
        known = set(found)
        pause(_SECONDS)


def related(cluster: Cluster, namespace: str, name: str) -> list[Event]:
    """The events of a service's family by time. Raises RrError."""
    service = cluster.get(RERANKER_SERVICE, namespace, name)
    family = _family(cluster, namespace, service)
    events = (
        _event(raw)
        for raw in cluster.list(EVENT, namespace)
        if family.owns(text(raw, "involvedObject", "kind"), text(raw, "involvedObject", "name"))
    )
    return sorted(events, key=lambda event: event.when)


def draw(events: Iterable[Event], now: datetime.datetime) -> Table:
    """Age on the left; reason and object, then the message, on the right."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(overflow="fold")
    for event in events:
        head = Text.assemble(
            (event.reason, "bold red" if event.warning else "bold"),
            f"  {event.kind}/{event.name}",
            f"  {event.container}" if event.container else "",
        )
        if event.count > 1:
            head.append(f"  {event.count} times", style="dim")
        head.append(f"\n{event.message}", style="" if event.warning else "dim")
        grid.add_row(Text(age(event.when, now)), head)
    return grid


def _family(cluster: Cluster, namespace: str, service: Json) -> Family:
    engines = engines_of(service, cluster.list(RERANKER_ENGINE, namespace))
    uids = {text(raw, "metadata", "uid") for raw in engines}
    claims = {text(raw, "spec", "store", "existingClaim") for raw in engines}
    try:
        found = cluster.list(PVC, namespace)
    except Forbidden:
        found = []
    claims |= {text(raw, "metadata", "name") for raw in found if owners(raw) & uids}
    return Family(
        text(service, "metadata", "name"),
        frozenset(text(raw, "metadata", "name") for raw in engines),
        frozenset(claims),
    )


def _event(raw: Json) -> Event:
    times = (
        moment(raw, "series", "lastObservedTime"),
        moment(raw, "lastTimestamp"),
        moment(raw, "eventTime"),
        moment(raw, "metadata", "creationTimestamp"),
    )
    container = _CONTAINER.fullmatch(text(raw, "involvedObject", "fieldPath"))
    return Event(
        when=next((found for found in times if found is not None), _LONG_AGO),
        warning=text(raw, "type") == "Warning",
        reason=text(raw, "reason"),
        kind=text(raw, "involvedObject", "kind"),
        name=text(raw, "involvedObject", "name"),
        message=text(raw, "message"),
        count=integer(raw, "series", "count") or integer(raw, "count") or 1,
        container=container[1] if container else "",
    )
