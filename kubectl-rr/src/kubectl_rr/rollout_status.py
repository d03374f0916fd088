"""`kubectl rr rollout status` and `history`: what is on its way, what proves it, what served."""

import time
from collections.abc import Callable, Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kubectl_rr.cluster import Access, connect
from kubectl_rr.errors import Unusable
from kubectl_rr.raw import Json, at, number, rows, table, text
from kubectl_rr.read import (
    condition,
    is_current,
    nothing_served,
    pending_changes,
    refusal,
    unsettled,
)
from kubectl_rr.terminal import console, show
from reranker_operator.api.meta import RERANKER_SERVICE

_SECONDS = 2.0
#: What a rollout has come to, where nothing goes on by itself.
_ENDED_BADLY = frozenset({"RolledBack", "Aborted", "GateFailed", "ProgressDeadlineExceeded"})
#: A spec that stays refused until it is another one.
_REFUSED = frozenset({"InvalidSpec", "UnknownSource"})
_STYLES = {"Passed": "green", "Failed": "bold red", "Waiting": "yellow", "NoData": "dim"}


def run(access: Access, name: str, *, watch: bool, color: str) -> int:
    """Print; 0 when the newest wish has the traffic for good. With `watch` until that is known."""
    cluster, screen = connect(access), console(color)

    def look() -> Json:
        return cluster.get(RERANKER_SERVICE, cluster.namespace, name)

    service, before = look(), ""
    for seen in follow(look) if watch else [service]:
        service = seen
        drawn = draw(service)
        with screen.capture() as captured:
            screen.print(drawn)
        if captured.get() != before:
            before = captured.get()
            show(screen, drawn)
            screen.file.flush()
    return 0 if outcome(service) else 1


def follow(look: Callable[[], Json], pause: Callable[[float], None] = time.sleep) -> Iterator[Json]:
    """The service again and again until its rollout has come to an end."""
    service = look()
    while True:
        yield service
        if outcome(service) is not None:
            return
        pause(_SECONDS)
        try:
            service = look()
        except Unusable:
            # The API server comes back; until then the last one is as good as any.
            continue


def outcome(service: Json) -> bool | None:
    """True when the newest wish, spec or undo, has the traffic for good; False: it will not.

    An undo is newer than the spec, or it would have ended with it.
    """
    refused = refusal(service)
    if refused is not None and refused.reason in _REFUSED:
        return False
    told = condition(service, "Progressing")
    if not is_current(service) or told is None:
        return None
    if told.reason in _ENDED_BADLY:
        return False
    under_way = table(service, "status", "rollout")
    if under_way or told.status == "True" or told.reason in ("AwaitingPromotion", "FloorReached"):
        return None
    return told.reason == "Undone" or (told.reason == "Stable" and not pending_changes(service))


def draw(service: Json) -> RenderableType:
    """What serves, what is on its way, and what was given up."""
    status = table(service, "status")
    name, serving = text(service, "metadata", "name"), text(status, "revision")
    does = "is starting" if nothing_served(service) else "serves"
    said = [": revision ", (serving, "bold"), f" {does}"] if serving else [": nothing serves yet"]
    parts: list[RenderableType] = [Text.assemble((name, "bold"), *said)]
    under_way = table(status, "rollout")
    if under_way:
        parts += _under_way(under_way)
    told = condition(service, "Progressing")
    if told is not None and told.reason != "Stable":
        parts.append(Text(f"{told.reason}: {told.message}"))
    if note := unsettled(service):
        parts.append(Text(note))
    return Group(*parts)


def _under_way(stand: Json) -> Iterator[RenderableType]:
    line = f"  {text(stand, 'phase') or 'on its way'}: revision {text(stand, 'revision')}"
    weight = number(stand, "weight")
    if weight is not None:
        how = {"route": "by route", "replicas": "by the number of pods"}.get(text(stand, "by"), "")
        line += f", {weight:g} % of the requests {how}".rstrip()
    if at(stand, "held") is True:
        line += ", stands still"
    yield Text(line)
    if why := text(stand, "why"):
        yield Text(f"  {why}")
    found = Table.grid(padding=(0, 2))
    for gate in rows(stand, "gates"):
        state = text(gate, "state")
        found.add_row(
            Text(f"    {text(gate, 'name')}"),
            Text(state, style=_STYLES.get(state, "")),
            Text(text(gate, "message")),
        )
    if found.row_count:
        yield found


def history(access: Access, name: str, *, color: str) -> int:
    """Print what served and what was given up; 0."""
    cluster = connect(access)
    show(console(color), draw_history(cluster.get(RERANKER_SERVICE, cluster.namespace, name)))
    return 0


def draw_history(service: Json) -> RenderableType:
    """The newest first. What is kept can be gone back to."""
    status = table(service, "status")
    serving = text(status, "revision")
    served = [*_unproven(service), *rows(status, "history")]
    found = Table.grid(padding=(0, 2))
    found.add_row(*(Text(title, style="bold") for title in ("REVISION", "TIME", "STATE", "WHY")))
    seen: set[str] = set()
    for row in served:
        revision = text(row, "revision")
        kept = "kept" if text(row, "template") else ""
        state = "serves" if revision == serving and revision not in seen else kept
        seen.add(revision)
        found.add_row(*map(Text, (revision, text(row, "time"), state, text(row, "why"))))
    for row in rows(status, "failed"):
        message = f"{text(row, 'gate')}: {text(row, 'message')}"
        found.add_row(
            Text(text(row, "revision")),
            Text(text(row, "time")),
            Text("given up", style="red"),
            Text(message),
        )
    return found if found.row_count > 1 else Text("Nothing has served yet.")


def _unproven(service: Json) -> Iterator[Json]:
    """What serves but is still judged: the operator records it when that is over."""
    status = table(service, "status")
    serving, stand = text(status, "revision"), table(status, "rollout")
    newest = next((text(row, "revision") for row in rows(status, "history")), "")
    if serving in ("", newest) or nothing_served(service):
        return
    about = stand if text(stand, "revision") == serving else {}
    yield {"revision": serving, "time": at(about, "since"), "why": at(about, "why")}
