"""Objects of ours, read with patience for what another version of the operator wrote.

Whoever goes back to an older operator must not lose a service by it. A status is only what was
observed: keys that are not known are passed over, and a part that makes no sense is left out and so
observed anew. Of a spec unknown keys are told, since what they ask for can't be carried out; any
other error in it is the user's to mend.
"""

import copy
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from reranker_operator.adapters.cluster import Json
from reranker_operator.api.conditions import ConditionType
from reranker_operator.api.meta import RERANKER_SERVICE, ApiModel, Resource
from reranker_operator.api.refusal import refused
from reranker_operator.api.v1alpha1 import (
    RerankerEngineSpec,
    RerankerEngineStatus,
    RerankerServiceSpec,
    RerankerServiceStatus,
)
from reranker_operator.core.world import Sibling, is_leaving
from reranker_operator.render.pods import store_claim_name

#: After so many tries the status is left out as a whole: one error may hide others.
_ROUNDS = 8

_Path = tuple[int | str, ...]
_T = TypeVar("_T", bound=ApiModel)


class Unreadable(Exception):  # noqa: N818 - a state of the object
    """What is not the status makes no sense; the message names the field."""


def read(kind: type[_T], raw: Json) -> tuple[_T, tuple[str, ...]]:
    """The object, and the keys of its spec that were passed over. Raises Unreadable."""
    unknown: dict[str, None] = {}
    lost = False
    for left in range(_ROUNDS, -1, -1):
        try:
            return kind.model_validate(raw), tuple(unknown)
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            paths = _in_the_way(raw, found)
            if not paths:
                raise Unreadable(refused(error, raw)) from None
        raw = copy.deepcopy(raw)
        if left <= 1 and all(entry["loc"][:1] == ("status",) for entry in found):
            raw.pop("status", None)
            continue
        unknown |= dict.fromkeys(_title(entry["loc"]) for entry in found if _is_extra(entry))
        for path in paths:
            _drop(raw, path)
        lost = lost or any(entry["type"] != "extra_forbidden" for entry in found)
        if lost and isinstance(raw.get("status"), dict):
            # It was not observed so, and is written anew for that.
            raw["status"].pop("observedGeneration", None)
    raise Unreadable("spec can't be read")


def unknown_keys(raw: Json) -> tuple[str, ...]:
    """Of the spec of a RerankerService that can be read: those that `read` says nothing of."""
    try:
        RerankerServiceSpec.model_validate(raw["spec"], extra="forbid")
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        return tuple(_title(("spec", *entry["loc"])) for entry in found)
    return ()


def sibling(raw: Json) -> Sibling | None:
    """What an engine says of its files; None for one that may have more than we know of."""
    try:
        spec = RerankerEngineSpec.model_validate(raw.get("spec"))
    except ValidationError:
        return None
    digests = (spec.digest, spec.identity.prepared)
    return Sibling(store_claim_name(spec.store), digests, is_leaving(raw), _has_prepared(raw))


def _has_prepared(raw: Json) -> bool:
    status = raw.get("status") or {}
    # Of one that came from a registry nothing was prepared here.
    foreign = (status.get("registry") or {}).get("origin")
    said = {entry.get("type"): entry.get("status") for entry in status.get("conditions") or ()}
    return said.get(ConditionType.PREPARED) == "True" and not foreign


class _OfService(ApiModel):
    status: RerankerServiceStatus = RerankerServiceStatus()


class _OfEngine(ApiModel):
    status: RerankerEngineStatus = RerankerEngineStatus()


def status_of(resource: Resource, raw: Json) -> RerankerServiceStatus | RerankerEngineStatus:
    """The status of an object of which all else may be unreadable."""
    if resource is RERANKER_SERVICE:
        return read(_OfService, raw)[0].status
    return read(_OfEngine, raw)[0].status


def _is_extra(entry: ErrorDetails) -> bool:
    return entry["type"] == "extra_forbidden" and entry["loc"][0] != "status"


def _title(path: Iterable[object]) -> str:
    return ".".join(str(part) for part in path)


def _in_the_way(raw: Json, found: list[ErrorDetails]) -> list[_Path]:
    """What can be left out, the last entries of a list first."""
    paths = set()
    for entry in found:
        path = entry["loc"]
        if entry["type"] == "extra_forbidden" and _holder(raw, path) is not None:
            paths.add(path)
        elif path[0] == "status":
            # Of a list only the entry, of anything else all of it.
            length = 3 if len(path) > 2 and isinstance(path[2], int) else 2
            paths.add(path[:length])
    return sorted(paths, key=lambda path: [str(part).rjust(20) for part in path], reverse=True)


def _holder(raw: Json, path: _Path) -> Any:
    """The mapping or list with the last part of the path in it; None where there is none."""
    node: Any = raw
    for part in path[:-1]:
        node = _part(node, part)
    return None if _part(node, path[-1]) is None else node


def _part(node: Any, part: int | str) -> Any:
    if isinstance(node, dict) and isinstance(part, str):
        return node.get(part)
    if isinstance(node, list) and isinstance(part, int) and part < len(node):
        return node[part]
    return None


def _drop(raw: Json, path: _Path) -> None:
    node = _holder(raw, path)
    if node is not None:
        del node[path[-1]]
