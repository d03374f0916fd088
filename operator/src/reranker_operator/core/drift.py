"""Is a live object still what we applied, and what have others put into it?

Server-side apply puts back what we own, but leaves what somebody adds: another variable of a
container, a label, a port. `managedFields` tells who added it. What has no name there stays:
defaults of the API server, and containers that an admission webhook injects.
"""

import json
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from reranker_operator.core.world import Manifest
from reranker_operator.names import BALANCER_ANNOTATION, MANAGER

Json = dict[str, Any]

#: They write into objects of everybody, and only what belongs to them.
_TRUSTED = frozenset(
    {
        "kube-controller-manager", "kube-scheduler", "kube-apiserver", "kubelet",
        "cloud-controller-manager", "before-first-apply",
    }
)  # fmt: skip
#: Lists that server-side apply merges, and the fields by which their entries are told apart.
_KEYED = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "imagePullSecrets": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "ownerReferences": ("uid",),
}
_KEY_DEFAULTS = {"protocol": "TCP"}
#: Not ours to take away: replicas may be left to somebody on purpose.
_ANYONES = frozenset({("f:spec", "f:replicas")})
_MISSING = object()


@dataclass(frozen=True)
class Intrusion:
    """What another manager has added: its path by keys, and by positions as in a JSON pointer.

    `marks` are the fields that tell the entries of lists on the way apart, and their values.
    """

    path: tuple[str, ...] = ()
    pointer: tuple[str | int, ...] = ()
    marks: tuple[tuple[tuple[str | int, ...], Any], ...] = ()

    def __str__(self) -> str:
        return "/".join(step.removeprefix("f:").removeprefix("k:") for step in self.path)


def strangers(managed: Iterable[Json]) -> list[Json]:
    """The entries of `managedFields` whose manager has no business in an object of ours."""
    return [
        entry
        for entry in managed
        if not entry.get("subresource")
        and not entry.get("manager", "").startswith(MANAGER)
        and entry.get("manager") not in _TRUSTED
    ]


def intrusions(live: Manifest, wanted: Manifest) -> tuple[Intrusion, ...]:
    """What strangers have added to `live` that `wanted`, our whole object, does not have."""
    found: dict[tuple[str, ...], Intrusion] = {}
    if BALANCER_ANNOTATION in wanted["metadata"].get("annotations", {}):
        # Its load balancer's controller, whoever that is, writes into it.
        return ()
    for entry in strangers(live["metadata"].get("managedFields", [])):
        fields = entry.get("fieldsV1", {})
        labels = {"f:metadata": {"f:labels": fields.get("f:metadata", {}).get("f:labels", {})}}
        rest = {
            key: below
            for key, below in fields.items()
            if key not in ("f:metadata", "f:status", "f:apiVersion", "f:kind")
        }
        for intrusion in _walk(labels | rest, live, wanted, Intrusion()):
            found[intrusion.path] = intrusion
    return tuple(found.values())


def removal(chosen: Iterable[Intrusion]) -> list[Json]:
    """The JSON patch that takes them out, if they still are where they were seen.

    By marks, not by version: the status of an object that was just changed is written all the time.
    """
    entries = list(chosen)
    marks = {_pointer(steps): value for entry in entries for steps, value in entry.marks}
    tests = [{"op": "test", "path": path, "value": value} for path, value in marks.items()]
    # From the back, so that positions in lists stay right.
    pointers = sorted((entry.pointer for entry in entries), reverse=True)
    return [*tests, *({"op": "remove", "path": _pointer(steps)} for steps in pointers)]


def _walk(fields: Json, live: Any, wanted: Any, at: Intrusion) -> Iterator[Intrusion]:
    for key, below in fields.items():
        if key == ".":
            continue
        place, have = _find(live, key)
        pointer = (*at.pointer, place)
        here = Intrusion((*at.path, key), pointer, (*at.marks, *_marks(key, pointer, have)))
        # Annotations are anyone's notes, also those by which `kubectl rollout restart` works.
        if have is _MISSING or here.path in _ANYONES or key == "f:annotations":
            continue
        _, want = _find(wanted, key)
        if want is _MISSING:
            yield here
        elif below and isinstance(want, dict | list):
            yield from _walk(below, have, want, here)


def _find(node: Any, key: str) -> tuple[str | int, Any]:
    """Where a step of `fieldsV1` leads: `f:` a field, `k:` an entry by its keys, `v:` a value."""
    kind, _, text = key.partition(":")
    if kind == "f":
        return text, node.get(text, _MISSING) if isinstance(node, Mapping) else _MISSING
    if kind in ("k", "v") and isinstance(node, list):
        wanted = json.loads(text)
        for place, entry in enumerate(node):
            if entry == wanted if kind == "v" else _has_keys(entry, wanted):
                return place, entry
    return 0, _MISSING


def _marks(
    key: str, pointer: tuple[str | int, ...], found: Any
) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    kind, _, text = key.partition(":")
    if kind == "v":
        yield pointer, found
    elif kind == "k" and isinstance(found, dict):
        yield from (((*pointer, name), found[name]) for name in json.loads(text) if name in found)


def _has_keys(entry: Any, keys: Json) -> bool:
    return isinstance(entry, dict) and all(
        entry.get(key, _KEY_DEFAULTS.get(key)) == value for key, value in keys.items()
    )


def _pointer(steps: Iterable[str | int]) -> str:
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in steps)


def matches(live: Any, wanted: Any, path: tuple[str, ...] = ()) -> bool:
    """Everything that we want is there as we want it; what is there besides does not count."""
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(
            _matches_field(live[key], value, (*path, key)) if key in live else _is_left_out(value)
            for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(live, list) and _matches_list(live, wanted, path)
    return bool(live == wanted)


def _is_left_out(value: Any) -> bool:
    """The API server gives most fields without a value not back; users may write such."""
    return value in (None, "", False, 0, [])


def _matches_field(live: Any, wanted: Any, path: tuple[str, ...]) -> bool:
    compare = _COMPARED.get(path[-1])
    return compare(live, wanted) if compare else matches(live, wanted, path)


def _matches_list(live: list[Any], wanted: list[Any], path: tuple[str, ...]) -> bool:
    keys = _keys(wanted, path)
    if keys is None:
        return len(live) == len(wanted) and all(
            matches(have, want, path) for have, want in zip(live, wanted, strict=True)
        )
    there = {_identity(entry, keys): entry for entry in live if isinstance(entry, dict)}
    return all(matches(there.get(_identity(entry, keys)), entry, path) for entry in wanted)


def _keys(entries: list[Any], path: tuple[str, ...]) -> tuple[str, ...] | None:
    """By what the entries of a list are told apart; None where it is replaced as a whole."""
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        return None
    if path and path[-1] == "ports":
        if "containerPort" in entries[0]:
            return ("containerPort", "protocol")
        return ("port", "protocol") if path == ("spec", "ports") else None
    return _KEYED.get(path[-1]) if path else None


def _identity(entry: Json, keys: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(entry.get(key, _KEY_DEFAULTS.get(key)) for key in keys)


def _same_quantities(live: Any, wanted: Any) -> bool:
    """The API server rewrites quantities: `0.5` comes back as `500m`, 1 as `"1"`."""
    try:
        return isinstance(live, dict) and all(
            _amount(live[name]) == _amount(amount) for name, amount in wanted.items()
        )
    except (KeyError, ValueError):
        return False


def _same_quantity(live: Any, wanted: Any) -> bool:
    return _same_quantities({"": live}, {"": wanted})


#: Not every map may hold more than we put there: one key more and a selector leads nowhere.
_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "requests": _same_quantities,
    "limits": _same_quantities,
    "sizeLimit": _same_quantity,
    "divisor": _same_quantity,
    "selector": operator.eq,
    "podSelector": operator.eq,
    "namespaceSelector": operator.eq,
    "matchLabels": operator.eq,
    "nodeSelector": operator.eq,
}


def _amount(quantity: object) -> Decimal:
    amount: Decimal = parse_quantity(quantity)  # type: ignore[no-untyped-call]
    return amount
