"""What may be deleted from a store: by reference, by age, and by how full it is."""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

#: Share of the filesystem above which what is kept only for its age goes, too.
DEFAULT_HIGH_WATER = 0.85


@dataclass(frozen=True)
class Artefact:
    """A directory of the store; it was made, or last needed, at `made_at` (seconds since 1970)."""

    path: Path
    made_at: float


@dataclass(frozen=True)
class Retention:
    """What `tidy` leaves.

    Nothing that is in `keep`, and nothing made at `made_before` or later, is ever deleted. What
    else is younger than `keep_seconds` before that stays while the filesystem is filled to less
    than the share `high_water`.
    """

    keep: frozenset[str]
    made_before: datetime.datetime
    keep_seconds: float = 0
    high_water: float = DEFAULT_HIGH_WATER

    @property
    def limit(self) -> float:
        """`made_before` in seconds since 1970."""
        return self.made_before.timestamp()

    def divide(self, artefacts: Iterable[Artefact]) -> tuple[list[Artefact], list[Artefact]]:
        """What goes in any case, and what goes only where room is short, the oldest first."""
        spare = [
            entry
            for entry in artefacts
            if entry.path.name not in self.keep and entry.made_at < self.limit
        ]
        spare.sort(key=lambda entry: (entry.made_at, entry.path))
        oldest = self.limit - self.keep_seconds
        expired = [entry for entry in spare if entry.made_at < oldest]
        return expired, spare[len(expired) :]
