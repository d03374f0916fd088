"""What the models refuse, in words for whoever wrote the manifest."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

_WORDS: dict[str, str | Callable[[Mapping[str, Any]], str]] = {
    "missing": "is missing",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be a text",
    "dict_type": "must be a map of keys and values",
    "model_type": "must be a map of fields",
    "model_attributes_type": "must be a map of fields",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "greater_than_equal": lambda ctx: f"must be at least {ctx['ge']}",
    "less_than_equal": lambda ctx: f"must be at most {ctx['le']}",
    "literal_error": lambda ctx: f"must be {ctx['expected']}",
    "string_pattern_mismatch": lambda ctx: f"must have the form {ctx['pattern']}",
    "string_too_short": lambda ctx: f"must have at least {ctx['min_length']} characters",
    "string_too_long": lambda ctx: f"must have at most {ctx['max_length']} characters",
    "too_short": lambda ctx: f"must have at least {ctx['min_length']} entries",
    "too_long": lambda ctx: f"must have at most {ctx['max_length']} entries",
    "value_error": lambda ctx: str(ctx["error"]),
}


def refused(error: ValidationError, raw: object) -> str:
    """The first field that was refused, and what it must be."""
    found: dict[str, list[str]] = {}
    for entry in error.errors():
        told = found.setdefault(_path(entry["loc"], raw, missing=entry["type"] == "missing"), [])
        words = _words(entry["type"], entry.get("ctx", {}), entry["msg"])
        if words not in told:
            told.append(words)
    # A field that may be one of several things is refused once for each of them.
    path, told = next(iter(found.items()))
    return f"{path} {' or '.join(told)}"


def _words(kind: str, context: Mapping[str, Any], message: str) -> str:
    words = _WORDS.get(kind)
    if words is None:
        return f"is refused: {message[:1].lower()}{message[1:]}"
    return words if isinstance(words, str) else words(context)


def _path(parts: tuple[int | str, ...], raw: object, *, missing: bool) -> str:
    """As people write it. pydantic adds what it tried to read a value as; that is no field."""
    path, node = "", raw
    for position, part in enumerate(parts):
        if isinstance(part, int) and isinstance(node, list):
            path, node = f"{path}[{part}]", node[part]
        elif isinstance(node, dict) and part in node:
            path, node = f"{path}.{part}", node[part]
        elif missing and position == len(parts) - 1:
            path = f"{path}.{part}"
    return path.removeprefix(".")
