"""Pods: their state in a word, and how far a build has got by its containers."""

import datetime

from kubectl_rr.raw import Json, at, integer, moment, rows, table, text
from kubectl_rr.snapshot import Pod, Stage, StageState

#: Containers of a build that are no stages: they bring the files of a model image along.
_HELPERS = frozenset({"tools", "source"})
#: Waiting as every container does at first.
_USUAL = frozenset({"", "PodInitializing", "ContainerCreating"})


def pod(raw: Json) -> Pod:
    """The pod in short."""
    sidecars = {
        text(row, "name")
        for row in rows(raw, "spec", "initContainers")
        if at(row, "restartPolicy") == "Always"
    }
    init, main = _statuses(raw)
    counted = [row for row in init if text(row, "name") in sidecars] + main
    unready = next((row for row in [*init, *main] if _trouble(row)), None)
    return Pod(
        name=text(raw, "metadata", "name"),
        state=_state(raw, init, main, sidecars),
        ready=sum(at(row, "ready") is True for row in counted),
        containers=len(sidecars) + len(rows(raw, "spec", "containers")),
        restarts=sum(integer(row, "restartCount") for row in [*init, *main]),
        created=moment(raw, "metadata", "creationTimestamp"),
        trouble=_trouble(unready) or _unscheduled(raw),
        container=text(unready, "name"),
        logged=_has_begun(unready),
        ended=bool(table(unready, "lastState", "terminated")),
    )


def stages(raw: Json) -> list[Stage]:
    """The stages of a build's pod in their order, one for each container."""
    init, main = _statuses(raw)
    known = {text(row, "name"): row for row in [*init, *main]}
    containers = rows(raw, "spec", "initContainers") + rows(raw, "spec", "containers")
    names = [text(row, "name") for row in containers]
    return [_stage(name, known.get(name, {})) for name in names if name not in _HELPERS]


def _stage(name: str, status: Json) -> Stage:
    running, ended = table(status, "state", "running"), table(status, "state", "terminated")
    if ended:
        state: StageState = "done" if integer(ended, "exitCode") == 0 else "failed"
        return Stage(name, state, _between(moment(ended, "startedAt"), moment(ended, "finishedAt")))
    if running:
        return Stage(name, "running", since=moment(running, "startedAt"))
    return Stage(name, "waiting")


def _between(start: datetime.datetime | None, end: datetime.datetime | None) -> float | None:
    if start is None or end is None:
        return None
    return max(0.0, (end - start).total_seconds())


def _statuses(raw: Json) -> tuple[list[Json], list[Json]]:
    status = table(raw, "status")
    return rows(status, "initContainerStatuses"), rows(status, "containerStatuses")


def _state(raw: Json, init: list[Json], main: list[Json], sidecars: set[str]) -> str:
    """The column STATUS of `kubectl get pods`."""
    if at(raw, "metadata", "deletionTimestamp"):
        return "Terminating"
    for row in [*init, *main]:
        reason = text(row, "state", "waiting", "reason")
        if reason not in _USUAL:
            return reason
        ended = table(row, "state", "terminated")
        if integer(ended, "exitCode") != 0:
            return text(ended, "reason") or "Error"
    done = sum(_past(row, sidecars) for row in init)
    phase = text(raw, "status", "phase") or "Unknown"
    if phase == "Pending" and init and done < len(init):
        return f"Init:{done}/{len(init)}"
    return "Completed" if phase == "Succeeded" else phase


def _past(row: Json, sidecars: set[str]) -> bool:
    """The pod may go on to the next container."""
    if text(row, "name") in sidecars:
        return at(row, "started") is True
    ended = table(row, "state", "terminated")
    return bool(ended) and integer(ended, "exitCode") == 0


def _trouble(row: object) -> str:
    waiting = text(row, "state", "waiting", "reason")
    if waiting not in _USUAL:
        last = text(row, "lastState", "terminated", "reason")
        return text(row, "state", "waiting", "message") or last or waiting
    ended = table(row, "state", "terminated")
    if integer(ended, "exitCode") != 0:
        return f"{text(row, 'name')} ended with exit code {integer(ended, 'exitCode')}"
    return ""


def _has_begun(row: object) -> bool:
    ways = (("state", "running"), ("state", "terminated"), ("lastState", "terminated"))
    return any(table(row, *way) for way in ways)


def _unscheduled(raw: Json) -> str:
    for row in rows(raw, "status", "conditions"):
        if text(row, "type") == "PodScheduled" and text(row, "status") == "False":
            return text(row, "message")
    return ""
