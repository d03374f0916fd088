"""Which kind of cluster a directory holds, or shall hold.

``CLUSTER`` decides: ``local``, ``kind`` or ``current``. Unset, a directory that
holds a cluster keeps its kind; a new one uses kind where a Docker engine and
kind are at hand, and this package's own cluster everywhere else.
"""

from __future__ import annotations

import os
from typing import Protocol

from localcluster import kind, state
from localcluster.console import Console
from localcluster.current import CurrentContext
from localcluster.errors import PrerequisiteError
from localcluster.health import ComponentHealth
from localcluster.layout import Layout, valid_name
from localcluster.local import LocalCluster


class Backend(Protocol):
    """What every kind of cluster can do."""

    def up(self) -> None:
        """Bring the cluster up; do nothing when it is."""

    def down(self, *, purge: bool) -> None:
        """Remove the cluster; with ``purge`` what was built for it too."""

    def binaries(self) -> None:
        """Build or fetch the programs that the cluster runs."""

    def status(self) -> list[ComponentHealth]:
        """Return the health of every part; empty when there is no cluster."""

    def load_images(self, sources: list[str]) -> None:
        """Make images available to pods: archives, or names in buildah's store."""


def select(layout: Layout, name: str | None, console: Console) -> Backend:
    """Return the backend for a directory, from its state and from ``CLUSTER``."""
    known = state.load(layout)
    wanted = os.environ.get("CLUSTER", "") or (known.backend if known else _detect())
    if wanted not in state.BACKENDS:
        raise PrerequisiteError(
            f"CLUSTER={wanted}: use one of {', '.join(state.BACKENDS)}, or leave it unset"
        )
    if known is not None and known.backend != wanted:
        raise PrerequisiteError(
            f"{layout.root} holds a {known.backend} cluster, CLUSTER asks for {wanted}: take that "
            f"one down first (CLUSTER={known.backend} ... down), or use another --dir"
        )
    if known is not None and name is not None and known.name != name:
        raise PrerequisiteError(
            f"{layout.root} holds cluster {known.name}, --name asks for {name}: take that one "
            "down first, or use another --dir"
        )
    chosen = name or (known.name if known else layout.default_name)
    if not valid_name(chosen):
        raise PrerequisiteError(
            f"--name {chosen}: use at most 40 lower-case letters, digits and dashes"
        )
    if wanted == state.CURRENT:
        return CurrentContext(layout, chosen, console)
    if wanted == state.KIND:
        return kind.KindCluster(layout, chosen, console)
    return LocalCluster(layout, chosen, console)


def _detect() -> str:
    """Return the kind of cluster that a machine is best served with."""
    return state.KIND if kind.is_available() else state.LOCAL
