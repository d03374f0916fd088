"""Reading JSON of unknown shape: what is missing or of another type reads as empty.

An older or newer operator, or an object that somebody made up, must never end the plugin.
"""

import datetime
import math
from collections.abc import Mapping
from typing import Any

from kubectl_rr.terminal import clean

#: An object as the API server sent it.
Json = Mapping[str, Any]


def at(node: object, *path: str) -> object:
    """The value at `path`, or None."""
    for key in path:
        if not isinstance(node, Mapping):
            return None
        node = node.get(key)
    return node


def text(node: object, *path: str) -> str:
    """A string that is safe to print; numbers are written out."""
    value = at(node, *path)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return clean(str(value))


def number(node: object, *path: str) -> float | None:
    """A finite number, or None."""
    value = at(node, *path)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def integer(node: object, *path: str) -> int:
    """A whole number; 0 when there is none."""
    return int(number(node, *path) or 0)


def table(node: object, *path: str) -> Json:
    """An object; empty when there is none."""
    value = at(node, *path)
    return value if isinstance(value, Mapping) else {}


def rows(node: object, *path: str) -> list[Json]:
    """The objects of a list."""
    value = at(node, *path)
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []


def moment(node: object, *path: str) -> datetime.datetime | None:
    """A time with its zone, or None."""
    value = at(node, *path)
    if not isinstance(value, str):
        return None
    try:
        found = datetime.datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


def owners(node: object) -> set[str]:
    """Uids of the objects that own this one."""
    return {text(row, "uid") for row in rows(node, "metadata", "ownerReferences")}


def label(node: object, name: str) -> str:
    """The value of a label, or an empty string."""
    return text(node, "metadata", "labels", name)
