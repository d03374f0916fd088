"""Request and answer of `/v1/ranking`, and the strict reading of a request.

A body is read in two passes. The first looks only at its structure outside of strings: a ranking
request has a handful of bytes there per passage, so anything with more is refused before a parser
turns sixteen megabytes of brackets into gigabytes of objects. The second is pydantic's own parser.
"""

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reranker_gateway.errors import InvalidRequestError

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_BLANKS = b" \t\r\n"
_STRINGS_BASE = 64
_STRINGS_PER_PASSAGE = 2
_STRUCTURE_BASE = 256
_STRUCTURE_PER_PASSAGE = 16
_MOST_ERRORS = 10
_LONGEST_NAME = 64


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class Query(_Strict):
    """What the passages are ranked for."""

    text: str = Field(min_length=1)


class Passage(_Strict):
    """One text to rank; may be empty."""

    text: str


class RankingRequest(_Strict):
    """Body of `POST /v1/ranking`."""

    model: str = Field(min_length=1, max_length=128)
    query: Query
    passages: list[Passage] = Field(min_length=1)
    truncate: Literal["NONE", "END"] | None = Field(
        None, description="NONE refuses over-long pairs, END cuts them; default set by the server"
    )


class Ranking(BaseModel):
    """One passage's place; `index` is its position in the request."""

    index: int
    logit: float


class Usage(BaseModel):
    """Tokens of all pairs, padding not counted."""

    prompt_tokens: int
    total_tokens: int


class RankingResponse(BaseModel):
    """Answer of `POST /v1/ranking`: every passage, highest logit first."""

    rankings: list[Ranking]
    usage: Usage


class ErrorBody(BaseModel):
    """Every error."""

    object: Literal["error"]
    message: str
    detail: dict[str, Any]
    type: str
    code: int


def parse_ranking(body: bytes, max_passages: int) -> RankingRequest:
    """Read a request. Raises InvalidRequestError: 400 for what is not JSON, 422 for the rest."""
    # As many strings as a ranking request can hold; more of them count as structure themselves.
    strings = _STRINGS_BASE + _STRINGS_PER_PASSAGE * max_passages
    structure = _STRING.sub(b"", body, count=strings).translate(None, _BLANKS)
    if len(structure) > _STRUCTURE_BASE + _STRUCTURE_PER_PASSAGE * max_passages:
        raise InvalidRequestError(
            "the body is not a ranking request: it holds too much besides texts; send model, query "
            f"and at most {max_passages} passages"
        )
    try:
        request = RankingRequest.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error) from None
    if len(request.passages) > max_passages:
        raise InvalidRequestError(
            f"passages: {len(request.passages)} items, at most {max_passages} are allowed; "
            "split them over several requests"
        )
    return request


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
