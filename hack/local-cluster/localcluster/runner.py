"""Starts the components inside the node's namespaces and watches them while others wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from localcluster import binaries, commands, processes
from localcluster.cgroups import ClusterCgroup
from localcluster.components import Component
from localcluster.console import Console, last_lines
from localcluster.errors import ClusterError
from localcluster.layout import Layout
from localcluster.namespaces import Node
from localcluster.processes import ProcessRecord

_MAX_OUTPUT_BYTES = 256 * 1024


class ComponentFailedError(ClusterError):
    """A component ended, or said that it cannot work; ``output`` is what it wrote."""

    def __init__(self, component: str, output: str, log: Path) -> None:
        super().__init__(f"{component} has failed:{last_lines(log)}\n  see {log}")
        self.output = output


def record_path(layout: Layout, component: str) -> Path:
    """Return where the record of a component's process is."""
    return layout.run / f"{component}.json"


def log_path(layout: Layout, component: str) -> Path:
    """Return where a component's output goes."""
    return layout.logs / f"{component}.log"


def current_record(layout: Layout, component: Component) -> ProcessRecord | None:
    """Return the component's process if it runs and was started from today's files."""
    record = processes.live_record(record_path(layout, component.name))
    if record is None or record.spec != component.fingerprint(layout, binaries.stamp_of):
        return None
    return record


@dataclass(frozen=True)
class Runner:
    """Runs components in one node."""

    layout: Layout
    node: Node
    cgroup: ClusterCgroup
    console: Console

    def ensure(self, component: Component) -> None:
        """Start a component that does not run; restart one that runs from something older."""
        if current_record(self.layout, component) is not None:
            return
        path = record_path(self.layout, component.name)
        outdated = processes.live_record(path)
        if outdated is not None:
            self.console.say(f"restarting {component.name}: its configuration changed")
            processes.stop(outdated)
        else:
            self.console.say(f"starting {component.name}")
        processes.spawn(
            [*self.node.enter, *component.argv],
            record=path,
            spec=component.fingerprint(self.layout, binaries.stamp_of),
            log=log_path(self.layout, component.name),
            env={**commands.environment(), "TMPDIR": "/run/cluster/tmp"},
            before_exec=self.cgroup.join,
        )

    def ensure_ready(
        self,
        component: Component,
        ready: Callable[[], bool],
        *,
        timeout_seconds: float,
        hopeless: Callable[[str], bool] = lambda output: False,
    ) -> None:
        """Start a component and wait until it is ready.

        ComponentFailedError when it ends instead, or when ``hopeless`` holds for
        what it has written since its start.
        """
        log = log_path(self.layout, component.name)
        written = log.stat().st_size if log.exists() else 0
        self.ensure(component)

        def check() -> bool:
            output = _output_since(log, written)
            if not self.runs(component.name) or hopeless(output):
                raise ComponentFailedError(component.name, output, log)
            return ready()

        self.console.wait_for(
            component.name, check, timeout_seconds=timeout_seconds, explain=lambda: f"see {log}"
        )

    def wait(
        self,
        what: str,
        ready: Callable[[], bool],
        *,
        needs: Sequence[str],
        timeout_seconds: float = 300,
        explain: Callable[[], str] = lambda: "",
    ) -> None:
        """Wait for a condition; give up as soon as a component that it needs has ended."""

        def check() -> bool:
            for name in needs:
                if not self.runs(name):
                    raise ComponentFailedError(name, "", log_path(self.layout, name))
            return ready()

        self.console.wait_for(what, check, timeout_seconds=timeout_seconds, explain=explain)

    def stop(self, component: str) -> None:
        """End a component, if it runs."""
        record = processes.live_record(record_path(self.layout, component))
        if record is not None:
            processes.stop(record)

    def runs(self, component: str) -> bool:
        """Tell whether the process of a component is alive."""
        return processes.live_record(record_path(self.layout, component)) is not None


def _output_since(log: Path, position: int) -> str:
    try:
        with log.open("rb") as stream:
            size = stream.seek(0, 2)
            # A log that was rotated meanwhile starts anew.
            start = position if position <= size else 0
            stream.seek(max(start, size - _MAX_OUTPUT_BYTES))
            return stream.read().decode(errors="replace")
    except OSError:
        return ""
