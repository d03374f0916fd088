"""What a cluster remembers of itself between commands: ``cluster.json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from localcluster import files
from localcluster.addressing import INDEXES
from localcluster.layout import Layout, valid_name

LOCAL = "local"
KIND = "kind"
CURRENT = "current"
BACKENDS = (LOCAL, KIND, CURRENT)


@dataclass(frozen=True)
class State:
    """How the cluster in this directory was made."""

    backend: str
    name: str
    index: int | None = None
    """The address range, for a local cluster."""


def load(layout: Layout) -> State | None:
    """Return the state; None when there is none or it is damaged."""
    value = files.read_json(layout.state)
    backend, name, index = value.get("backend"), value.get("name"), value.get("index")
    if backend not in BACKENDS or not isinstance(name, str) or not valid_name(name):
        return None
    if index is not None and not (isinstance(index, int) and 0 <= index < INDEXES):
        return None
    if backend == LOCAL and index is None:
        return None
    return State(backend, name, index)


def save(layout: Layout, state: State) -> None:
    """Store the state atomically."""
    files.write_json(layout.state, asdict(state))
