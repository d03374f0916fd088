"""`kubectl rr status`: the tree, once or live."""

import datetime
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

from kubectl_rr.cluster import Access, Cluster, connect
from kubectl_rr.errors import Unusable
from kubectl_rr.read import read
from kubectl_rr.snapshot import Snapshot
from kubectl_rr.terminal import complain, console, plain_json, show
from kubectl_rr.tree import draw

_SECONDS = 2.0


def run(access: Access, name: str | None, *, watch: bool, as_json: bool, color: str) -> int:
    """Print; 0 when everything shown is ready. With `watch` until Ctrl-C or the service is gone."""
    cluster = connect(access)
    namespace = None if access.all_namespaces else cluster.namespace
    if watch:
        _live(follow(cluster, namespace, name), color=color, namespaces=namespace is None)
        return 0
    snapshot = read(cluster, namespace, name)
    if as_json:
        sys.stdout.write(plain_json(_json(snapshot)))
    elif not snapshot.services:
        complain(f"no RerankerServices in {namespace or 'any namespace'}")
    else:
        show(console(color), draw(snapshot, namespaces=namespace is None))
    return 0 if all(service.ready for service in snapshot.services) else 1


def follow(
    cluster: Cluster,
    namespace: str | None,
    name: str | None,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[Snapshot]:
    """Snapshots without end; while the cluster does not answer, the last one with a note."""
    last = read(cluster, namespace, name)
    while True:
        yield last
        pause(_SECONDS)
        try:
            last = read(cluster, namespace, name)
        except Unusable as error:
            known = tuple(note for note in last.notes if not note.startswith("stale: "))
            last = replace(last, notes=(*known, f"stale: {error}"))


def _json(snapshot: Snapshot) -> str:
    """What the tree is made from, with the verdict on each service."""
    whole = asdict(snapshot)
    for service, entry in zip(snapshot.services, whole["services"], strict=True):
        entry["ready"] = service.ready
    text = json.dumps(whole, indent=2, ensure_ascii=False, default=datetime.datetime.isoformat)
    return f"{text}\n"


def _live(snapshots: Iterator[Snapshot], *, color: str, namespaces: bool) -> None:
    """Redrawn in place on a terminal; elsewhere printed whenever something changed."""
    screen = console(color)
    if sys.stdout.isatty() and screen.is_terminal and not screen.is_dumb_terminal:
        from rich.live import Live  # noqa: PLC0415 - only this needs it

        with Live(console=screen, auto_refresh=False) as live:
            for snapshot in snapshots:
                live.update(draw(snapshot, namespaces=namespaces), refresh=True)
        return
    before: Snapshot | None = None
    for snapshot in snapshots:
        if before is None or replace(before, now=snapshot.now) != snapshot:
            screen.print(f"{snapshot.now:%Y-%m-%d %H:%M:%S} UTC")
            show(screen, draw(snapshot, namespaces=namespaces))
            screen.file.flush()
        before = snapshot
