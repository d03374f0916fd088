"""The strict reading of a request's body, whatever the dialect.

A body is read in two passes. The first counts its strings, and the brackets, commas and colons
outside of them: a request has a handful of each per passage, so anything with more is refused
before a parser turns sixteen megabytes of brackets into gigabytes of objects. The second is
pydantic's own parser. Where several dialects share the path, the JSON's own fields say whose
request it is.
"""

import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from reranker_gateway.api.dialects.base import Body
from reranker_gateway.api.dialects.table import Route, choose
from reranker_gateway.api.invalid import invalid_request
from reranker_gateway.errors import BodyTooLargeError, InvalidRequestError, TooManyPassagesError

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
#: What a parser makes objects of, besides strings: no value goes without one of them.
_STRUCTURE = b"[]{},:"
_BASE = 256
#: Documents with this many fields each, where there are as many as there may be.
_FIELDS = 8
_STRINGS_PER_PASSAGE = 2 * _FIELDS
_STRUCTURE_PER_PASSAGE = 3 * _FIELDS
#: So much of a body's beginning and end has its fields, but for long queries.
_LOOK = 4096
_MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]{1,128})"')


def choose_route(body: bytes, routes: Sequence[Route]) -> tuple[Route, Any]:
    """Whose request it is, and its JSON where that had to be looked at.

    Raises InvalidRequestError with 400 for what is not JSON.
    """
    if len(routes) == 1:
        return routes[0], None
    try:
        asked = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequestError(f"body: Invalid JSON: {str(error)[:200]}", status=400) from None
    return choose(routes, asked), asked


def guess_route(body: bytes, routes: Sequence[Route]) -> Route:
    """Whose request a body that is not to be parsed seems to be."""
    look = body[:_LOOK] + body[-_LOOK:]
    names = {name for route in routes for name in route.fields}
    asked = {name: "" for name in names if f'"{name}"'.encode() in look}
    if model := _MODEL.search(look):
        asked["model"] = model[1].decode(errors="replace")
    return choose(routes, asked)


def parse(route: Route, body: bytes, asked: Any) -> Body:
    """The request in the route's dialect. Raises InvalidRequestError."""
    kind: type[Body] = route.dialect.request
    try:
        return kind.model_validate_json(body) if asked is None else kind.model_validate(asked)
    except ValidationError as error:
        raise invalid_request(error) from None


def check_count(field: str, count: int, max_passages: int) -> None:
    """Raises TooManyPassagesError for more passages than one request may have."""
    if count > max_passages:
        raise TooManyPassagesError(
            f"{field}: {count} items, at most {max_passages} are allowed; "
            "split them over several requests"
        )


def check_structure(body: bytes, max_passages: int) -> None:
    """Raises BodyTooLargeError for more than a request can hold, as TooManyPassagesError if so."""
    most = _BASE + _STRINGS_PER_PASSAGE * max_passages
    rest, strings = _STRING.subn(b"", body, count=most + 1)
    if strings > most:
        raise TooManyPassagesError(
            f"the body holds more than {most} names and texts: at most {max_passages} passages are "
            f"allowed, with {_FIELDS} fields each; split them over several requests"
        )
    structure = len(rest) - len(rest.translate(None, _STRUCTURE))
    if structure > _BASE + _STRUCTURE_PER_PASSAGE * max_passages:
        raise BodyTooLargeError(
            "the body is not a ranking request: it holds too much besides texts; send model, query "
            f"and at most {max_passages} passages"
        )
