"""`kubectl rr diff`: what the operator would change about a service's pods, or is changing.

The operator itself says so in `status.pendingChanges`, by the code that acts. Only the number of
pods is compared here: it is followed at once, so it never waits there.
"""

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.text import Text

from kubectl_rr.cluster import Access, connect
from kubectl_rr.errors import Forbidden
from kubectl_rr.raw import Json, at, integer, label, number, table, text
from kubectl_rr.read import condition, is_current, pending_changes, unsettled
from kubectl_rr.snapshot import Condition
from kubectl_rr.terminal import console, show
from reranker_operator import names
from reranker_operator.api.meta import DEPLOYMENT, RERANKER_SERVICE

_ARROW = " → "
#: A former revision serves, and goes on doing so.
_AT_REST = frozenset({"Aborted", "RolledBack", "Undone"})


def run(access: Access, name: str, *, color: str) -> int:
    """Print; 0 when nothing would change, else 1, like `kubectl diff`."""
    cluster = connect(access)
    service = cluster.get(RERANKER_SERVICE, cluster.namespace, name)
    try:
        found = cluster.list(DEPLOYMENT, cluster.namespace, f"{names.SERVICE_LABEL}={name}")
    except Forbidden:
        found = []
    lines = changes(service, found)
    show(console(color), draw(service, lines))
    return 1 if lines or unsettled(service) or _waits_to_start(service) else 0


def changes(service: Json, deployments: Iterable[Json]) -> list[str]:
    """One line for each difference between what serves and what is asked for."""
    lines = list(pending_changes(service))
    wanted = _wanted(service)
    live = [
        integer(raw, "spec", "replicas")
        for raw in deployments
        if at(raw, "metadata", "deletionTimestamp") is None
        # The activator's has none.
        and label(raw, names.REVISION_LABEL)
        # Without surge, the revisions share the number.
        and (
            text(service, "spec", "rollout", "strategy") == "noSurge"
            or label(raw, names.REVISION_LABEL) == text(service, "status", "revision")
        )
    ]
    if live and wanted is not None and sum(live) != wanted and not _moves(service):
        lines.append(f"replicas: {sum(live)}{_ARROW}{wanted}")
    return lines


def draw(service: Json, lines: list[str]) -> RenderableType:
    """What it means, then line by line."""
    parts = [Text.assemble((text(service, "metadata", "name"), "bold"), _headline(service, lines))]
    parts += [_line(line) for line in lines]
    if note := unsettled(service):
        parts.append(Text(note))
    return Group(*parts)


def _headline(service: Json, lines: list[str]) -> str:
    if _waits_to_start(service):
        return " is not started while spec.rollout.paused is true"
    if not lines:
        return ": nothing is known to change" if unsettled(service) else ": nothing would change"
    progressing = condition(service, "Progressing")
    if _paused(service):
        return ": held back by spec.rollout.paused"
    rests = progressing is not None and progressing.reason in _AT_REST
    going = "not under way" if rests and not table(service, "status", "rollout") else "under way"
    return f": {going}{_step(progressing)}"


def _step(progressing: Condition | None) -> str:
    if progressing is None or progressing.reason == "Stable":
        return ""
    return f", {progressing.reason}: {progressing.message}"


def _line(line: str) -> Text:
    title, separator, values = line.partition(": ")
    before, arrow, after = values.partition(_ARROW)
    if not separator or not arrow:
        return Text(f"  {line}")
    return Text.assemble(f"  {title}: ", (before, "red"), _ARROW, (after, "green"))


def _wanted(service: Json) -> int | None:
    """The number that the operator aims at, or will when it has seen a newer spec."""
    scale = table(service, "status", "scale")
    aimed = number(scale, "replicas")
    if aimed is not None and is_current(service):
        return int(aimed)
    asked = number(service, "spec", "replicas")
    return 1 if asked is None else int(asked)


def _moves(service: Json) -> bool:
    """Pods change hands: their number differs for a while."""
    return bool(table(service, "status", "rollout")) and not _paused(service)


def _paused(service: Json) -> bool:
    return at(service, "spec", "rollout", "paused") is True


def _waits_to_start(service: Json) -> bool:
    return _paused(service) and not text(service, "status", "revision")
