"""Nodes as they were at one moment."""

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final, TypeVar

T = TypeVar("T")

_MOST_KEPT: Final = 1024


class Nodes(list[dict[str, Any]]):
    """Never changed. What was found out from all of them is kept.

    Every look at a service asks the same several times, and so does the next service.
    """

    def __init__(self, nodes: Iterable[dict[str, Any]] = ()) -> None:
        super().__init__(nodes)
        self._found: dict[Hashable, Any] = {}

    def once(self, question: Hashable, find: Callable[[], T]) -> T:
        """What `find` gives, which depends on nothing but the nodes and the `question`."""
        if question not in self._found:
            if len(self._found) >= _MOST_KEPT:
                self._found.clear()
            self._found[question] = find()
        found: T = self._found[question]
        return found
