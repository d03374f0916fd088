"""The strict reading of a request's body, whatever the dialect.

A body is read in two passes. The first looks only at its structure outside of strings: a request
has a handful of bytes there per passage, so anything with more is refused before a parser turns
sixteen megabytes of brackets into gigabytes of objects. The second is pydantic's own parser. Where
several dialects share the path, the JSON's own fields say whose request it is.
"""

import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from reranker_gateway.api.dialects.base import Body
from reranker_gateway.api.dialects.table import Route, choose
from reranker_gateway.errors import BodyTooLargeError, InvalidRequestError, TooManyPassagesError

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_BLANKS = b" \t\r\n"
_STRINGS_BASE = 64
_STRINGS_PER_PASSAGE = 2
_STRUCTURE_BASE = 256
_STRUCTURE_PER_PASSAGE = 16
_MOST_ERRORS = 10
_LONGEST_NAME = 64


def choose_route(body: bytes, routes: Sequence[Route], max_passages: int) -> tuple[Route, Any]:
    """Whose request it is, and its JSON where that had to be looked at.

    Raises BodyTooLargeError, and InvalidRequestError with 400 for what is not JSON.
    """
    check_structure(body, max_passages)
    if len(routes) == 1:
        return routes[0], None
    try:
        asked = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequestError(f"body: Invalid JSON: {str(error)[:200]}", status=400) from None
    return choose(routes, asked), asked


def parse(route: Route, body: bytes, asked: Any) -> Body:
    """The request in the route's dialect. Raises InvalidRequestError."""
    kind: type[Body] = route.dialect.request
    try:
        return kind.model_validate_json(body) if asked is None else kind.model_validate(asked)
    except ValidationError as error:
        raise _invalid(error) from None


def check_count(field: str, count: int, max_passages: int) -> None:
    """Raises TooManyPassagesError for more passages than one request may have."""
    if count > max_passages:
        raise TooManyPassagesError(
            f"{field}: {count} items, at most {max_passages} are allowed; "
            "split them over several requests"
        )


def check_structure(body: bytes, max_passages: int) -> None:
    """Raises BodyTooLargeError for more JSON than a request can hold beside its texts."""
    # As many strings as a request can hold; more of them count as structure themselves.
    strings = _STRINGS_BASE + _STRINGS_PER_PASSAGE * max_passages
    structure = _STRING.sub(b"", body, count=strings).translate(None, _BLANKS)
    if len(structure) > _STRUCTURE_BASE + _STRUCTURE_PER_PASSAGE * max_passages:
        raise BodyTooLargeError(
            "the body is not a ranking request: it holds too much besides texts; send model, query "
            f"and at most {max_passages} passages"
        )


def _invalid(error: ValidationError) -> InvalidRequestError:
    entries = error.errors(include_url=False, include_context=False, include_input=False)
    problems = [
        {"loc": [_short(part) for part in entry["loc"]], "msg": entry["msg"], "type": entry["type"]}
        for entry in entries[:_MOST_ERRORS]
    ]
    first = problems[0]
    message = f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}"
    if first["type"] == "extra_forbidden":
        message += "; remove it"
    not_json = first["type"] == "json_invalid"
    return InvalidRequestError(message, {"errors": problems}, status=400 if not_json else 422)


def _short(part: int | str) -> int | str:
    return part[:_LONGEST_NAME] if isinstance(part, str) else part
