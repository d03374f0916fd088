"""`kubectl rr explain`: why a service is not ready, what that means, and where to look next."""

import datetime
import shlex
from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from kubectl_rr import events, runbook
from kubectl_rr.cluster import Access, connect
from kubectl_rr.errors import Forbidden
from kubectl_rr.events import Event
from kubectl_rr.read import read
from kubectl_rr.snapshot import ORDER, Condition, Engine, Pod, Service, Step
from kubectl_rr.terminal import age, console, show
from kubectl_rr.tree import FAINT, OK, verdict
from reranker_operator import names

_WARNINGS = 4
_OPERATOR = "app.kubernetes.io/part-of=reranker-operator,app.kubernetes.io/component=operator"
_NO_ENTRY = "This version of kubectl rr has no text for it: see the runbook of your operator."


def run(access: Access, name: str, *, color: str) -> int:
    """Print; 0 when the service is ready, else 1."""
    cluster = connect(access)
    snapshot = read(cluster, cluster.namespace, name)
    service = snapshot.services[0]
    try:
        found = events.related(cluster, cluster.namespace, name)
    except Forbidden:
        found = []
    show(console(color), draw(service, found, snapshot.now, access))
    return 0 if service.ready else 1


def draw(
    service: Service, found: Iterable[Event], now: datetime.datetime, access: Access
) -> RenderableType:
    """The whole explanation; the commands in it look where `access` does."""
    if service.ready:
        parts = [*_serves(service), *_troubles(service, "But")]
        return Group(*parts, *_section("Try it", _lines(_tries(service), access)))
    parts = list(_why(service, now))
    warnings = [event for event in found if event.warning and _is_current(event, service)]
    if warnings:
        parts += _section("Newest warnings", [_indented(events.draw(warnings[-_WARNINGS:], now))])
    return Group(*parts, *_section("Look further", _lines(_looks(service), access)))


def _section(title: str, body: Iterable[RenderableType]) -> list[RenderableType]:
    return [Text(), Text(title, style="bold"), *body]


def _indented(part: RenderableType) -> Padding:
    return Padding(part, (0, 0, 0, 2))


def _is_current(event: Event, service: Service) -> bool:
    """Whether it is about what is wrong now.

    Time alone does not tell: a pod complains before a condition turns, and the time of a condition
    stays when only its reason changes. So what the operator says counts while a condition has this
    reason, what is said of pods and Deployments while they are there and not ready, and all else
    (claims, Jobs), of which no readiness is known, since the service is not ready.
    """
    if event.kind in ("RerankerService", "RerankerEngine"):
        said = [*service.conditions, *(c for engine in service.engines for c in engine.conditions)]
        return any(c.reason == event.reason and c.status != "True" for c in said)
    if event.kind == "Pod":
        return event.name in _unready_pods(service)
    if event.kind in ("Deployment", "ReplicaSet"):
        unready = (made.deployment for made in service.deployments if made.ready < made.wanted)
        return any(f"{event.name}-".startswith(f"{name}-") for name in unready)
    ready = service.condition("Ready")
    return ready is None or ready.since is None or event.when >= ready.since


def _unready_pods(service: Service) -> set[str]:
    serving = {pod.name for made in service.deployments for pod in made.pods if not pod.all_ready}
    steps = [service.resolve, *(step for engine in service.engines for step in engine.steps)]
    building = (step.pod for step in steps if step is not None and step.pod is not None)
    return serving | {pod.name for pod in building if pod.state not in ("Running", "Completed")}


def _why(service: Service, now: datetime.datetime) -> Iterator[RenderableType]:
    name, blocker = (service.name, "bold"), service.blocker
    if service.deleting is not None:
        waits = ", ".join(service.finalizers) or "what it made to go first"
        since = age(service.deleting, now)
        yield Text.assemble(name, f" is being deleted for {since}; it waits for {waits}.")
    elif not service.seen or blocker is None:
        which = "it" if not service.seen else "its newest spec"
        yield Text.assemble(name, f" is not ready: the operator has not looked at {which} yet.")
        yield Text("Is the operator running, and does it watch this namespace?")
    else:
        symbol, style = verdict(blocker)
        ready = service.condition("Ready")
        # Not the blocker's: the time of a condition stays when only its reason changes.
        until = ready.since if ready is not None and ready.status != "True" else None
        is_not = f"has not been ready for {age(until, now)}" if until else "is not ready"
        yield Text.assemble(
            (f"{symbol} ", style), name, f" {is_not}: {blocker.type} is {blocker.status}"
        )
        yield _indented(Text.assemble((blocker.reason, style), f": {blocker.message}"))
        if not service.current:
            yield Text("This was said of an older spec; the operator has not seen the newest.")
        yield from _section("What it means", [_indented(Text(_meaning(blocker)))])
        yield from _troubles(service, "Besides", blocker)


def _meaning(blocker: Condition) -> str:
    entry = runbook.entries().get(blocker.reason)
    return _NO_ENTRY if entry is None else entry.text


def _serves(service: Service) -> Iterator[RenderableType]:
    model, facts = service.model, []
    serving = next((entry for entry in service.revisions if entry.role == "serving"), None)
    yield Text.assemble(("✓ ", OK), (service.name, "bold"), " is ready.")
    facts.append(("model", f"{model.name} ({model.architecture}) at {model.revision[:19]}"))
    if serving is not None:
        facts.append(("engine", serving.engine))
        facts.append(("revision", f"{serving.name}, Deployment {serving.deployment}"))
    facts.append(("pods", f"{service.ready_pods} of {service.wanted} ready"))
    facts.append(("url", service.url))
    for title, text in facts:
        yield Text.assemble((f"  {title:<10}", FAINT), text)


def _troubles(
    service: Service, title: str, told: Condition | None = None
) -> Iterator[RenderableType]:
    """What fails without being asked for by `Ready`, and was not `told`."""
    for entry in service.conditions:
        if entry.type in (*ORDER, "Ready") or not runbook.failing(entry.status, entry.reason):
            continue
        if told is not None and entry.reason == told.reason:
            continue
        words = Text(f"{entry.type} is {entry.status}, {entry.reason}: {entry.message}")
        yield from _section(title, [_indented(words), Text(), _indented(Text(_meaning(entry)))])


def _lines(commands: Iterable[list[str]], access: Access) -> Iterator[Text]:
    """One command to copy per line: longer ones are left to the terminal to break."""
    for command in commands:
        words = command + access.options(None if "-A" in command else access.namespace)
        yield Text(f"  {shlex.join(words)}", no_wrap=True, overflow="ignore", style="cyan")


def _tries(service: Service) -> Iterator[list[str]]:
    yield ["kubectl", "rr", "rank", service.name, "a question", "a passage", "another passage"]


def _looks(service: Service) -> Iterator[list[str]]:
    yield ["kubectl", "rr", "status", service.name, "--watch"]
    yield ["kubectl", "rr", "events", service.name]
    yield ["kubectl", "describe", "rerankerservice", service.name]
    blocker = service.blocker
    if blocker is None:
        yield ["kubectl", "get", "pods", "-A", "-l", _OPERATOR]
        return
    if blocker.type == "ModelResolved" and service.resolve is not None:
        yield from _log_of(service.resolve)
    elif blocker.type == "EngineReady":
        for engine in service.engines:
            yield from _engine_looks(engine)
    elif blocker.type == "Integrated":
        kinds = "services,ingresses,networkpolicies,poddisruptionbudgets"
        yield ["kubectl", "get", kinds, "-l", f"{names.SERVICE_LABEL}={service.name}"]
    elif blocker.type in ("Serving", "Ready"):
        for revision in service.revisions:
            for pod in revision.pods:
                yield from _pod_looks(pod)


def _engine_looks(engine: Engine) -> Iterator[list[str]]:
    if engine.ready:
        return
    yield ["kubectl", "describe", "rerankerengine", engine.name]
    for step in engine.steps:
        yield from _log_of(step)


def _log_of(step: Step) -> Iterator[list[str]]:
    """The log of the stage that runs or failed; before one has begun only the pod itself tells."""
    if step.pod is None:
        return
    for stage in step.stages:
        if stage.state in ("running", "failed"):
            yield ["kubectl", "logs", step.pod.name, "-c", stage.name]
            return
    if any(stage.state == "waiting" for stage in step.stages):
        yield ["kubectl", "describe", "pod", step.pod.name]


def _pod_looks(pod: Pod) -> Iterator[list[str]]:
    if pod.all_ready:
        return
    yield ["kubectl", "describe", "pod", pod.name]
    if pod.logged:
        again = ["--previous"] if pod.ended else []
        yield ["kubectl", "logs", pod.name, "-c", pod.container, *again]
