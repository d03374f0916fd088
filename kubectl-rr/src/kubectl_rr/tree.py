"""A snapshot as a tree to print. Pure: the same snapshot gives the same text."""

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from kubectl_rr import runbook
from kubectl_rr.snapshot import (
    Activator,
    Condition,
    Engine,
    Pod,
    Revision,
    Service,
    Snapshot,
    Stage,
    Step,
)
from kubectl_rr.terminal import age

OK, BUSY, BAD, FAINT = "green", "yellow", "bold red", "dim"
_STAGES = {"done": ("✓", OK), "running": ("●", BUSY), "failed": ("✗", BAD), "waiting": ("○", FAINT)}
_STUCK = frozenset({"Failed", "Error", "Unknown", "OOMKilled", "Evicted"})


def draw(snapshot: Snapshot, *, namespaces: bool = False) -> RenderableType:
    """All services, one below the other, then what could not be read."""
    trees = [_service(entry, snapshot, namespaces=namespaces) for entry in snapshot.services]
    return Group(*trees, *(Text(f"({note})", style=FAINT) for note in snapshot.notes))


def state(service: Service) -> tuple[str, str]:
    """The service in a word, and its colour."""
    if service.deleting is not None:
        return "Deleting", BUSY
    if service.ready:
        return "Ready", OK
    blocker = service.blocker
    bad = blocker is not None and runbook.failing(blocker.status, blocker.reason)
    return service.stage or "Pending", BAD if bad else BUSY


def mark(condition: Condition) -> tuple[str, str]:
    """Symbol and colour of a condition; what does not go on by itself may have come to its end."""
    failing = runbook.failing(condition.status, condition.reason)
    if condition.type == "Progressing" and not failing:
        return ("●", BUSY) if condition.status == "True" else ("-", FAINT)
    if condition.status == "True":
        return "✓", OK
    return verdict(condition)


def verdict(condition: Condition) -> tuple[str, str]:
    """Symbol and colour of what keeps something from being ready."""
    return ("✗", BAD) if runbook.failing(condition.status, condition.reason) else ("●", BUSY)


def words(*parts: tuple[str, str] | str) -> Text:
    """Parts with two blanks between; empty ones are left out."""
    pairs = [(part, "") if isinstance(part, str) else part for part in parts]
    return Text("  ").join(Text(text, style=style) for text, style in pairs if text)


def _service(service: Service, snapshot: Snapshot, *, namespaces: bool) -> Tree:
    name = f"{service.namespace}/{service.name}" if namespaces else service.name
    pods = f"{service.ready_pods}/{service.wanted} ready" if service.seen else ""
    since = (age(service.created, snapshot.now), FAINT)
    root = Tree(
        words((name, "bold"), state(service), pods, (service.url, "cyan"), since),
        guide_style=FAINT,
        highlight=False,
    )
    for note in _remarks(service):
        root.add(Text(note, style=BUSY))
    _add_model(root, service, snapshot)
    _add_scaling(root, service, snapshot)
    if service.activator is not None:
        _add_activator(root, service.activator, snapshot)
    for engine in service.engines:
        _add_engine(root, engine, service, snapshot)
    known = {engine.name for engine in service.engines}
    for revision in service.revisions:
        if revision.engine not in known:
            _add_revision(root, revision, snapshot)
    if service.conditions:
        root.add(Group(Text("conditions"), _conditions(service.conditions)))
    return root


def _remarks(service: Service) -> Iterable[str]:
    if service.deleting is not None:
        yield "is being deleted: " + (
            f"waits for {', '.join(service.finalizers)}"
            if service.finalizers
            else "what it made goes first"
        )
    elif not service.seen:
        yield "the operator has not looked at it yet"
    elif not service.current:
        yield "the operator has not looked at the newest spec yet"
    if service.paused and service.pending:
        number = len(service.pending)
        waits = "1 change waits" if number == 1 else f"{number} changes wait"
        yield f"paused: {waits}, see `kubectl rr diff {service.name}`"
    elif service.paused:
        yield "paused"


def _add_scaling(root: Tree, service: Service, snapshot: Snapshot) -> None:
    """Who decides about the number of pods, and why it is what it is."""
    scaling = service.scaling
    if scaling is None:
        return
    if not scaling.most:
        root.add(words("pods", f"{service.wanted} wanted", (f"by {scaling.owner}", FAINT)))
        return
    told = service.condition("Autoscaled")
    bad = told is not None and runbook.failing(told.status, told.reason)
    busy = scaling.reason in ("ScalingOut", "ScalingIn", "Measuring")
    style = BAD if bad else BUSY if busy else OK
    reason = told.reason if bad and told is not None else scaling.reason
    root.add(
        words(
            "pods",
            (f"{scaling.desired} wanted", "bold"),
            (f"of {scaling.least} to {scaling.most}", FAINT),
            (reason, style),
            scaling.why,
            (f"{age(scaling.time, snapshot.now)} ago" if scaling.time else "", FAINT),
        )
    )
    if scaling.ignored:
        remedy = "spec.autoscaling decides: set its min and max"
        root.add(Text(f"{scaling.ignored}, which is not looked at; {remedy}", style=BUSY))


def _add_model(root: Tree, service: Service, snapshot: Snapshot) -> None:
    model, step = service.model, service.resolve
    if model.name:
        revision = f"at {model.revision[:19]}" if model.revision else ""
        branch = root.add(words("model", (model.name, "bold"), model.architecture, revision))
    else:
        branch = root.add(words("model", (model.source, "bold"), ("not resolved yet", FAINT)))
    if step is not None and any(stage.state != "done" for stage in step.stages):
        _add_step(branch, step, snapshot)


def _add_engine(root: Tree, engine: Engine, service: Service, snapshot: Snapshot) -> None:
    size = "" if engine.size_bytes is None else f"{engine.size_bytes / 1e6:.0f} MB"
    tau = "" if engine.kendall_tau is None else f"tau {engine.kendall_tau:.4f}"
    failed = f"{engine.failures} failed" if engine.failures else ""
    branch = root.add(
        words("engine", (engine.name, "bold"), _engine_state(engine), (failed, BAD), size, tau)
    )
    for step in engine.steps:
        _add_step(branch, step, snapshot)
    for revision in service.revisions:
        if revision.engine == engine.name:
            _add_revision(branch, revision, snapshot)


def _engine_state(engine: Engine) -> tuple[str, str]:
    if engine.deleting:
        return "Deleting", BUSY
    if engine.ready:
        return "Ready", OK
    bad = any(runbook.failing(c.status, c.reason) for c in engine.conditions)
    return engine.stage or "Pending", BAD if bad else BUSY


def _add_step(branch: Tree, step: Step, snapshot: Snapshot) -> None:
    title = Text(f"{step.name:<8}")
    node = branch.add(Text("  ").join([title, *(_stage(stage, snapshot) for stage in step.stages)]))
    if step.pod is not None:
        _add_pod(node, step.pod, snapshot, whole=False)


def _stage(stage: Stage, snapshot: Snapshot) -> Text:
    """Symbol, name and time stay on one line."""
    symbol, style = _STAGES[stage.state]
    text = Text(f"{symbol}\u00a0", style=style)
    text.append(stage.name, style="bold" if stage.state == "running" else "")
    if stage.seconds is not None:
        text.append(f"\u00a0{stage.seconds:.1f}\u00a0s", style=FAINT)
    elif stage.since is not None:
        running = max(0.0, (snapshot.now - stage.since).total_seconds())
        text.append(f"\u00a0{running:.0f}\u00a0s", style=FAINT)
    return text


def _add_activator(root: Tree, activator: Activator, snapshot: Snapshot) -> None:
    going = ("going", BUSY) if activator.deleting else ""
    _add_deployment(root, ["activator", going], activator, snapshot)


def _add_revision(branch: Tree, revision: Revision, snapshot: Snapshot) -> None:
    role = "going" if revision.deleting else revision.role
    shown = (role, OK if role == "serving" else BUSY)
    _add_deployment(branch, ["revision", (revision.name, "bold"), shown], revision, snapshot)


def _add_deployment(
    branch: Tree,
    title: Sequence[str | tuple[str, str]],
    made: Activator | Revision,
    snapshot: Snapshot,
) -> None:
    node = branch.add(
        words(
            *title,
            (f"{made.ready}/{made.wanted} ready", OK if made.ready >= made.wanted else BUSY),
            (f"Deployment {made.deployment}", FAINT),
        )
    )
    for pod in made.pods:
        _add_pod(node, pod, snapshot, whole=True)


def _add_pod(branch: Tree, pod: Pod, snapshot: Snapshot, *, whole: bool) -> None:
    """`whole`: a pod that serves; of one that builds, readiness says nothing."""
    stuck = bool(pod.trouble) or pod.state in _STUCK
    healthy = pod.all_ready if whole else pod.state in ("Running", "Completed")
    plural = "" if pod.restarts == 1 else "s"
    node = branch.add(
        words(
            f"pod {pod.name}",
            (pod.state, BAD if stuck else OK if healthy else BUSY),
            f"{pod.ready}/{pod.containers}" if whole else "",
            (f"{pod.restarts} restart{plural}" if pod.restarts else "", BUSY),
            (age(pod.created, snapshot.now), FAINT),
        )
    )
    if pod.trouble:
        node.add(Text(pod.trouble, style=BAD))


def _conditions(conditions: Iterable[Condition]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    told: dict[str, str] = {"": ""}
    for entry in conditions:
        symbol, style = mark(entry)
        title = Text.assemble((symbol, style), " ", entry.type)
        # `Ready` repeats what keeps it from being True; once is enough on a small screen.
        said = told.get(entry.message)
        message = Text(entry.message) if said is None else Text(said, style=FAINT)
        told.setdefault(entry.message, f"see {entry.type}")
        grid.add_row(title, Text(entry.reason, style=style), message)
    return grid
