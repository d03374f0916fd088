"""`kubectl rr rollout pause|resume|promote|abort|undo|retry`: a wish; the operator acts.

`pause` and `resume` set a field of the spec; the others set annotations that name the revision they
are about, so that none is ever taken for another one.
"""

import datetime
import sys

from kubectl_rr.cluster import Access, connect
from kubectl_rr.errors import RequestFailed
from kubectl_rr.raw import Json, at, integer, rows, table, text
from reranker_operator import names
from reranker_operator.api.meta import RERANKER_SERVICE

_GOING_BACK = "Returning"


def run(access: Access, name: str, verb: str, *, full: bool, to: str | None) -> int:
    """Change the service and say what that does; 0. Raises RrError where it makes no sense."""
    cluster = connect(access)
    service = cluster.get(RERANKER_SERVICE, cluster.namespace, name)
    change, said = _change(service, verb, full=full, to=to)
    if change:
        cluster.patch(RERANKER_SERVICE, cluster.namespace, name, change)
    sys.stdout.write(f"{name}: {said}\n")
    if change and verb not in ("pause", "resume") and _paused(service):
        sys.stdout.write("It is paused: this happens after `kubectl rr rollout resume`.\n")
    return 0


def _change(service: Json, verb: str, *, full: bool, to: str | None) -> tuple[Json, str]:
    """The patch, empty where nothing is to be done, and what it does."""
    match verb:
        case "pause" | "resume":
            return _pause(service, wanted=verb == "pause")
        case "promote":
            return _promote(service, full=full)
        case "abort":
            return _abort(service)
        case "undo":
            return _undo(service, to)
        case _:
            return _retry(service)


def _pause(service: Json, *, wanted: bool) -> tuple[Json, str]:
    if _paused(service) == wanted:
        return {}, "is paused already" if wanted else "is not paused"
    said = "what would change its pods is held back" if wanted else "changes of its pods go on"
    return {"spec": {"rollout": {"paused": wanted}}}, said


def _promote(service: Json, *, full: bool) -> tuple[Json, str]:
    revision, stand = _on_its_way(service, "promote")
    if full:
        return _annotate(service, {names.PROMOTE: revision}), f"revision {revision} goes to its end"
    # Counted from 0; people count from 1.
    step, phase = integer(stand, "step"), text(stand, "phase") or "its phase"
    return (
        _annotate(service, {names.PROMOTE: f"{revision}/{step}"}),
        f"revision {revision} goes on after {phase}, step {step + 1}",
    )


def _abort(service: Json) -> tuple[Json, str]:
    revision, _ = _on_its_way(service, "abort")
    return (
        _annotate(service, {names.ABORT: revision}),
        f"revision {revision} is given up; the former one gets all the traffic",
    )


def _undo(service: Json, to: str | None) -> tuple[Json, str]:
    serving = text(service, "status", "revision")
    records = rows(service, "status", "history")
    kept = list(dict.fromkeys(text(row, "revision") for row in records if text(row, "template")))
    others = [revision for revision in kept if revision != serving]
    revision = to or (others[0] if others else "")
    if not revision:
        stand = table(service, "status", "rollout")
        new = text(stand, "revision")
        if new and text(stand, "phase") != _GOING_BACK and (kept or serving):
            name = text(service, "metadata", "name")
            raise RequestFailed(
                f"no former revision is kept to go back to, but revision {new} is still on its "
                f"way: take it back with `kubectl rr rollout abort {name}`"
            )
        if not serving:
            raise RequestFailed("nothing has served yet: there is nothing to go back to")
        raise RequestFailed(
            "no former revision is kept to go back to: see `kubectl rr rollout history`; apply the "
            "former manifest instead, and raise spec.rollout.keepEngines for the next time"
        )
    if revision not in kept:
        there = ", ".join(others) or "none"
        raise RequestFailed(f"revision {revision} is not kept to go back to; kept are: {there}")
    spec = text(service, "status", "specHash")
    if not spec:
        raise RequestFailed("the operator is too old to go back: it tells no status.specHash")
    return (
        _annotate(service, {names.UNDO: f"{revision}/{spec}"}),
        f"revision {revision} serves again, until the spec changes",
    )


def _retry(service: Json) -> tuple[Json, str]:
    failed = [row for row in rows(service, "status", "failed") if at(row, "inForce") is True]
    notes = table(service, "metadata", "annotations")
    if not failed and not {names.UNDO, names.ABORT} & set(notes):
        raise RequestFailed("nothing was given up or undone: there is nothing to try again")
    now = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"
    change: dict[str, str | None] = {names.RETRY: now}
    change |= {key: None for key in (names.ABORT, names.UNDO) if key in notes}
    what = f"revision {text(failed[0], 'revision')}" if failed else "what the spec asks for"
    return _annotate(service, change), f"{what} is tried again"


def _on_its_way(service: Json, verb: str) -> tuple[str, Json]:
    """The revision that is not proven yet, and how far it is."""
    stand = table(service, "status", "rollout")
    revision = text(stand, "revision")
    if not revision or text(stand, "phase") == _GOING_BACK:
        raise RequestFailed(f"no new revision is on its way to the traffic: nothing to {verb}")
    return revision, stand


def _annotate(service: Json, notes: dict[str, str | None]) -> Json:
    """Only of the service as it was read: it may be about another revision by now."""
    version = text(service, "metadata", "resourceVersion")
    meta = {"annotations": notes} | ({"resourceVersion": version} if version else {})
    return {"metadata": meta}


def _paused(service: Json) -> bool:
    return at(service, "spec", "rollout", "paused") is True
