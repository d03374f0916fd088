"""What is wrong with a request that does not have its dialect's form, in words for people."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from reranker_gateway.errors import InvalidRequestError

_MOST_ERRORS: Final = 10
_LONGEST_NAME: Final = 64
_TEXT: Final = '{"text": "…"}'
#: As pydantic calls the choices where a field may be of several kinds.
_CHOICES: Final = {"str": "a string", "list[str]": "a list of strings", "TextDocument": _TEXT}
#: By pydantic's types of errors. Only values that are no texts are shown.
_WORDS: Final = {
    "bool_type": "must be true or false",
    "extra_forbidden": "Extra inputs are not permitted; remove it",
    "greater_than_equal": "must be at least {ge}, not {value}",
    "int_type": "must be a whole number",
    "list_type": "must be a list",
    "literal_error": "must be {expected}, not {value!r}",
    "model_type": f"must be an object {_TEXT.replace('{', '{{').replace('}', '}}')}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must not be empty",
    "string_type": "must be a string",
    "too_short": "must not be empty",
    "value_error": "{error}",
}
_LONGEST_VALUE: Final = 20


def invalid_request(error: ValidationError) -> InvalidRequestError:
    """What is told of `error`."""
    entries = error.errors(include_url=False)
    problems = [
        {"loc": [_short(part) for part in entry["loc"]], "msg": entry["msg"], "type": entry["type"]}
        for entry in entries[:_MOST_ERRORS]
    ]
    not_json = entries[0]["type"] == "json_invalid"
    return InvalidRequestError(
        _message(entries), {"errors": problems}, status=400 if not_json else 422
    )


def _message(entries: Sequence[Mapping[str, Any]]) -> str:
    """The first of them."""
    place, choice = _place(entries[0])
    if choice is not None:
        others = [_place(entry) for entry in entries[:_MOST_ERRORS]]
        choices = dict.fromkeys(_CHOICES[what] for where, what in others if what and where == place)
        words = f"must be {' or '.join(choices)}"
    else:
        words = _words(entries[0])
    return f"{'.'.join(str(_short(part)) for part in place) or 'body'}: {words}"


def _place(entry: Mapping[str, Any]) -> tuple[tuple[int | str, ...], str | None]:
    """Where it is, and which of several kinds it then is not."""
    where = entry["loc"]
    # A field that nobody knows may have any name.
    if entry["type"] != "extra_forbidden":
        for at, part in enumerate(where):
            if at and part in _CHOICES:
                return where[:at], part
    return where, None


def _words(entry: Mapping[str, Any]) -> str:
    if entry["type"] == "model_type" and not entry["loc"]:
        return "must be a JSON object"
    value = entry["input"]
    shown = (value if isinstance(value, str) else str(value))[:_LONGEST_VALUE]
    words = _WORDS.get(entry["type"])
    if words is None or (entry["type"] == "literal_error" and not isinstance(value, str)):
        return str(entry["msg"])
    return words.format(**entry.get("ctx", {}), value=shown)


def _short(part: int | str) -> int | str:
    return part[:_LONGEST_NAME] if isinstance(part, str) else part
