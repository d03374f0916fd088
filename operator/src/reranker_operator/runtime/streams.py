"""Which watches can't be kept at the moment, so that somebody is told."""

import logging
from typing import NamedTuple

logger = logging.getLogger(__name__)


class Stream(NamedTuple):
    """One watch; without a namespace it is of all of them."""

    resource: str
    namespace: str

    def __str__(self) -> str:
        return f"{self.resource} in {self.namespace}" if self.namespace else self.resource


class Streams:
    """Told of all watches; runs on the event loop."""

    def __init__(self) -> None:
        self._failing: set[Stream] = set()

    @property
    def failing(self) -> list[Stream]:
        """Those whose changes go unnoticed until the next resync."""
        return sorted(self._failing)

    def failed(self, stream: Stream, why: str) -> None:
        """It is tried again; only the first failure of a row is worth a line."""
        if stream not in self._failing:
            logger.warning("changes of %s go unnoticed until they can be watched: %s", stream, why)
        self._failing.add(stream)

    def works(self, stream: Stream) -> None:
        """Something came."""
        if stream in self._failing:
            logger.info("changes of %s are noticed again", stream)
        self._failing.discard(stream)

    def ended(self, stream: Stream) -> None:
        """Nobody watches any more."""
        self._failing.discard(stream)
