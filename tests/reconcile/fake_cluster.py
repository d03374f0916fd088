"""A cluster in memory that stands at the `Cluster` protocol, with the API server's rules.

It keeps what decisions depend on: uid, resourceVersion, generation, server-side apply by manager
(owner references and lists of named entries merge, what a manager no longer applies goes away), the
default and the managers of `spec.replicas`, `managedFields` of people who edit, finalizers,
deletion, garbage collection by owner, canonical quantities, namespaces that are going away. Every
call is recorded; `after_call` lets a test look, or crash the caller, once the call has taken
effect.
"""

import datetime
import itertools
import json
import pickle
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

from reranker_operator.adapters.cluster import Items, Json
from reranker_operator.api.meta import (
    NODE,
    PVC,
    RERANKER_ENGINE,
    RERANKER_SERVICE,
    RESOURCES,
    Resource,
)
from reranker_operator.errors import (
    Conflict,
    NamespaceTerminating,
    NotFound,
    OperatorError,
    Rejected,
)

T = TypeVar("T")
Path = tuple[str, ...]
_WRITES = frozenset(
    {"apply", "apply_status", "create", "merge_patch", "json_patch", "scale", "delete"}
)
#: Lists whose entries server-side apply tells apart by a field.
_NAMED = {"containers": "name", "initContainers": "name", "env": "name", "volumes": "name",
          "volumeMounts": "mountPath", "ports": "port|containerPort"}  # fmt: skip
_REPLICAS = ("spec", "replicas")
_OWNS_REPLICAS: Json = {"f:spec": {"f:replicas": {}}}
#: Replaced as a whole by server-side apply.
_ATOMIC = {("spec", "selector")}


@dataclass(frozen=True)
class Call:
    """One call of the protocol."""

    verb: str
    kind: str
    name: str
    manager: str = ""

    @property
    def writes(self) -> bool:
        return self.verb in _WRITES


class FakeCluster:
    """Holds objects; all methods of the protocol, and a few for the simulator."""

    def __init__(self, clock: Callable[[], datetime.datetime]) -> None:
        self._clock = clock
        self._objects: dict[tuple[str, str, str], Json] = {}
        self._applied: dict[tuple[str, str], dict[str, dict[Path, Any]]] = {}
        self._numbers = itertools.count(1)
        self.calls: list[Call] = []
        self.changed: list[Json] = []
        self.terminating: set[str] = set()
        self.refusals: dict[tuple[str, str], Exception] = {}
        #: Kinds whose definitions are not installed.
        self.absent: set[str] = set()
        self.outage: OperatorError | None = None
        self.after_call: Callable[[Call], None] = lambda _: None

    def fork(self, clock: Callable[[], datetime.datetime]) -> "FakeCluster":
        """The same objects in a cluster of their own, nothing recorded yet."""
        twin = FakeCluster(clock)
        # Objects are replaced, never changed in place, so both may hold them.
        twin._objects = dict(self._objects)
        twin._applied = {key: dict(managers) for key, managers in self._applied.items()}
        twin._numbers = itertools.count(next(self._numbers))
        twin.terminating, twin.refusals = set(self.terminating), dict(self.refusals)
        twin.absent = set(self.absent)
        return twin

    # The protocols.

    async def serves(self, resource: Resource) -> bool:
        self._record(Call("discover", resource.kind, ""))
        return resource.kind not in self.absent

    async def get(self, resource: Resource, namespace: str, name: str) -> Json:
        self._check("get", resource.kind)
        found = _copy(self._find(resource.kind, namespace, name))
        self._record(Call("get", resource.kind, name))
        return found

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        selector: Mapping[str, str] | None = None,
        *,
        fields: Mapping[str, str] | None = None,
    ) -> list[Json]:
        self._check("list", resource.kind)
        wanted = [(path.split("."), value) for path, value in (fields or {}).items()]
        found = [
            _copy(entry)
            for entry in self.select(resource, namespace, selector)
            if all(_field(entry, path) == value for path, value in wanted)
        ]
        self._record(Call("list", resource.kind, ""))
        return found

    async def pages(
        self,
        resource: Resource,
        namespace: str | None,
        selector: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Items]:
        found = await self.list(resource, namespace, selector)
        for start in range(0, len(found) or 1, 2):
            yield found[start : start + 2]

    async def apply(self, manifest: Json, manager: str) -> Json:
        return self._apply("apply", manifest, manager, "")

    async def apply_status(self, manifest: Json, manager: str) -> Json:
        return self._apply("apply_status", manifest, manager, "status")

    async def create(self, manifest: Json) -> Json:
        self._check("create", manifest["kind"])
        manifest = _canonical(_copy(manifest))
        meta = manifest["metadata"]
        meta.setdefault("name", f"{meta.pop('generateName', '')}{next(self._numbers)}")
        if _key(manifest) in self._objects:
            raise Conflict(f"{manifest['kind']} {meta['name']} already exists")
        created = _copy(self.put(manifest))
        self._record(Call("create", manifest["kind"], meta["name"]))
        return created

    async def merge_patch(self, resource: Resource, namespace: str, name: str, patch: Json) -> Json:
        self._check("merge_patch", resource.kind)
        live = self._find(resource.kind, namespace, name)
        patch = _copy(patch)
        version = patch.get("metadata", {}).pop("resourceVersion", None)
        if version not in (None, live["metadata"]["resourceVersion"]):
            raise Conflict(f"{resource.kind} {name} has changed")
        after = _merged(live, patch)
        self._store(live, self._updated(live, after, "reranker-operator"))
        self._record(Call("merge_patch", resource.kind, name))
        return _copy(after)

    async def scale(self, resource: Resource, namespace: str, name: str, replicas: int) -> None:
        self._check("scale", resource.kind)
        self.scale_by(resource, namespace, name, replicas, "reranker-operator")
        self._record(Call("scale", resource.kind, name))

    async def json_patch(
        self, resource: Resource, namespace: str, name: str, patch: Sequence[Json]
    ) -> Json:
        self._check("json_patch", resource.kind)
        live = self._find(resource.kind, namespace, name)
        after = _copy(live)
        for change in patch:
            steps = [step.replace("~1", "/").replace("~0", "~")
                     for step in change["path"].split("/")[1:]]  # fmt: skip
            node = after
            for step in steps[:-1]:
                node = node[int(step)] if isinstance(node, list) else node[step]
            last: Any = int(steps[-1]) if isinstance(node, list) else steps[-1]
            if change["op"] == "remove":
                del node[last]
            elif node[last] != change["value"]:
                raise Rejected(f"{resource.kind} {name} has changed")
        self._store(live, after)
        self._record(Call("json_patch", resource.kind, name))
        return _copy(after)

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        uid: str | None = None,
        version: str | None = None,
    ) -> None:
        self._check("delete", resource.kind)
        live = self.find(resource, namespace, name)
        if live is not None and version in (None, live["metadata"]["resourceVersion"]):
            self.remove(resource, namespace, name, uid)
        self._record(Call("delete", resource.kind, name))

    # For the simulator and the tests: the same effects, without a recorded call.

    def select(
        self, resource: Resource, namespace: str | None, selector: Mapping[str, str] | None = None
    ) -> Iterator[Json]:
        """Live objects in the API's order. Not copies: don't change them."""
        wanted = (selector or {}).items()
        keys = [key for key in self._objects if key[0] == resource.kind]
        for key in sorted(key for key in keys if namespace in (None, key[1])):
            if wanted <= self._objects[key]["metadata"].get("labels", {}).items():
                yield self._objects[key]

    def find(self, resource: Resource, namespace: str, name: str) -> Json | None:
        """One live object, or None."""
        return self._objects.get((resource.kind, namespace, name))

    def put(self, manifest: Json, manager: str = "kubectl-create") -> Json:
        """A new object; without a `manager` nobody owns what it does not set."""
        meta = manifest["metadata"]
        if meta.get("namespace") in self.terminating:
            raise NamespaceTerminating(f"namespace {meta['namespace']} is being terminated")
        _validate(manifest)
        meta |= {
            "uid": f"uid-{next(self._numbers)}",
            "generation": 1,
            "resourceVersion": str(next(self._numbers)),
            "creationTimestamp": _stamp(self._clock()),
        }
        _set_default(manifest)
        if manager and "replicas" in manifest.get("spec", {}):
            _own_replicas(manifest, [_managed(manager, "Update")])
        self._objects[_key(manifest)] = manifest
        self.changed.append(manifest)
        return manifest

    def edit(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        patch: Json,
        manager: str = "kubectl-edit",
        subresource: str = "",
    ) -> None:
        """What a person, a controller or a kubelet writes."""
        live = self._find(resource.kind, namespace, name)
        after = _merged(live, _copy(patch))
        self._store(live, self._updated(live, after, manager, subresource))

    def scale_by(
        self, resource: Resource, namespace: str, name: str, replicas: int, manager: str
    ) -> None:
        """By the scale subresource, as an HPA and `kubectl scale` do."""
        self.edit(resource, namespace, name, {"spec": {"replicas": replicas}}, manager, "scale")

    def meddle(self, resource: Resource, namespace: str, name: str, patch: Json) -> None:
        """A person's edit, for which `managedFields` have a name: entries of lists merge by key."""
        live = self._find(resource.kind, namespace, name)
        after = _strategic(live, _copy(patch), "")
        entry: Json = {"manager": "kubectl-edit", "operation": "Update", "fieldsType": "FieldsV1"}
        entry["fieldsV1"] = _fields_v1(patch, "")
        entry["fieldsV1"].get("f:spec", {}).pop("f:replicas", None)
        after = self._updated(live, after, "kubectl-edit")
        meta = after["metadata"]
        after["metadata"] = meta | {"managedFields": [*meta.get("managedFields", []), entry]}
        self._store(live, after)

    def remove(self, resource: Resource, namespace: str, name: str, uid: str | None = None) -> None:
        """Delete in the background; dependents wait for `collect_garbage`."""
        live = self.find(resource, namespace, name)
        if live is None or uid not in (None, live["metadata"]["uid"]):
            return
        if not live["metadata"].get("finalizers"):
            self._forget(live)
        elif "deletionTimestamp" not in live["metadata"]:
            moment = {"deletionTimestamp": _stamp(self._clock())}
            self._store(live, _merged(live, {"metadata": moment}))

    def collect_garbage(self) -> bool:
        """One round of the garbage collector; whether it did anything."""
        alive = {entry["metadata"]["uid"] for entry in self._objects.values()}
        did = False
        for (kind, namespace, name), entry in list(self._objects.items()):
            owners = entry["metadata"].get("ownerReferences", [])
            left = [owner for owner in owners if owner["uid"] in alive]
            if owners and not left and "deletionTimestamp" not in entry["metadata"]:
                self.remove(RESOURCES[kind], namespace, name)
                did = True
            elif left != owners and left:
                self.edit(RESOURCES[kind], namespace, name, {"metadata": {"ownerReferences": left}})
                did = True
        return did

    @property
    def writes(self) -> Sequence[Call]:
        """Recorded calls that ask for a change."""
        return [call for call in self.calls if call.writes]

    # Inside.

    def _check(self, verb: str, kind: str) -> None:
        if error := self.outage or self.refusals.get((verb, kind)):
            raise error
        if kind in self.absent:
            raise NotFound(f"the server could not find the requested resource {kind}")

    def _record(self, call: Call) -> None:
        self.calls.append(call)
        self.after_call(call)

    def _find(self, kind: str, namespace: str, name: str) -> Json:
        try:
            return self._objects[kind, namespace, name]
        except KeyError:
            raise NotFound(f"{kind} {name} is not there") from None

    def _apply(self, verb: str, manifest: Json, manager: str, only: str) -> Json:
        kind, meta = manifest["kind"], manifest["metadata"]
        self._check(verb, kind)
        manifest = _canonical(_copy(manifest))
        wanted = _fields({key: manifest[key] for key in manifest if not only or key == only})
        live = self._objects.get(_key(manifest))
        if live is None and only:
            raise NotFound(f"{kind} {meta['name']} is not there")
        if live is None:
            after = self.put(manifest, manager="")
        else:
            after = _copy(live)
            for path in self._given_up(live, manager, only, set(wanted)):
                _unset(after, path)
            former = self._applied.get((live["metadata"]["uid"], only), {}).get(manager, {})
            for path, value in wanted.items():
                merged = _copy(value)
                if path not in _ATOMIC and path[:2] != ("metadata", "ownerReferences"):
                    merged = _merge_named(_field(live, path), merged, former.get(path), path[-1])
                _set(after, path, merged)
            _set_default(after)
        if not only:
            _apply_replicas(live, after, manager, wanted.get(_REPLICAS))
        if live is not None:
            self._store(live, after)
        managed = self._applied.setdefault((after["metadata"]["uid"], only), {})
        managed[manager] = wanted
        self._record(Call(verb, kind, meta["name"], manager))
        return _copy(after)

    def _given_up(self, live: Json, manager: str, only: str, wanted: set[Path]) -> set[Path]:
        managers = self._applied.get((live["metadata"]["uid"], only), {})
        shared = {path for who, owned in managers.items() if who != manager for path in owned}
        if any(entry["manager"] != manager for entry in _owners_of_replicas(live)):
            shared.add(_REPLICAS)
        return managers.get(manager, {}).keys() - wanted - shared

    def _updated(self, live: Json, after: Json, manager: str, subresource: str = "") -> Json:
        """Who changes a field by an update owns it alone."""
        _set_default(after)
        if _field(live, _REPLICAS) == _field(after, _REPLICAS):
            return after
        after = after | {"metadata": dict(after["metadata"])}
        if subresource and not _owners_of_replicas(live):
            # The Scale has no managers then, and without any none are recorded.
            return after
        _own_replicas(after, [_managed(manager, "Update", subresource)])
        for key, managers in self._applied.items():
            if key == (live["metadata"]["uid"], ""):
                self._applied[key] = {
                    who: {path: value for path, value in owned.items() if path != _REPLICAS}
                    for who, owned in managers.items()
                }
        return after

    def _store(self, before: Json, after: Json) -> None:
        if after == before:
            return
        _validate(after)
        after["metadata"] = dict(after["metadata"])
        if after.get("spec") != before.get("spec"):
            after["metadata"]["generation"] = before["metadata"]["generation"] + 1
        after["metadata"]["resourceVersion"] = str(next(self._numbers))
        meta = after["metadata"]
        if "deletionTimestamp" in meta and not meta.get("finalizers"):
            self._forget(after)
        else:
            self._objects[_key(after)] = after
            self.changed.append(after)

    def _forget(self, entry: Json) -> None:
        del self._objects[_key(entry)]
        self.changed.append(entry)


def _set_default(entry: Json) -> None:
    """The one default of the schema that decisions depend on."""
    if entry["kind"] == RERANKER_SERVICE.kind and "replicas" not in entry["spec"]:
        entry["spec"] = entry["spec"] | {"replicas": 1}


def _managed(manager: str, operation: str, subresource: str = "") -> Json:
    entry: Json = {"manager": manager, "operation": operation}
    if subresource:
        entry["subresource"] = subresource
    return entry | {"fieldsV1": _OWNS_REPLICAS}


def _owners_of_replicas(entry: Json) -> list[Json]:
    managed: list[Json] = entry["metadata"].get("managedFields", [])
    return [found for found in managed if found["fieldsV1"] == _OWNS_REPLICAS]


def _own_replicas(entry: Json, owners: list[Json]) -> None:
    managed = entry["metadata"].get("managedFields", [])
    others = [found for found in managed if found["fieldsV1"] != _OWNS_REPLICAS]
    entry["metadata"]["managedFields"] = [*others, *owners]


def _apply_replicas(live: Json | None, after: Json, manager: str, value: Any) -> None:
    """A forced apply takes the field from whoever set it otherwise, and shares it with the rest."""
    if value is None and _field(after, _REPLICAS) == {}:
        return
    others = [entry for entry in _owners_of_replicas(live or after) if entry["manager"] != manager]
    if value is not None and live is not None and _field(live, _REPLICAS) != value:
        others = []
    mine = [_managed(manager, "Apply")] if value is not None else []
    _own_replicas(after, [*others, *mine])


def _key(manifest: Json) -> tuple[str, str, str]:
    meta = manifest["metadata"]
    return manifest["kind"], meta.get("namespace", ""), meta["name"]


def _stamp(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _validate(manifest: Json) -> None:
    """The few refusals of the API server that a controller can run into."""
    kind, meta = manifest["kind"], manifest["metadata"]
    without = ("Event", "EndpointSlice", NODE.kind, "Pod", "Secret", "ConfigMap")
    if kind not in without and not manifest.get("spec"):
        raise Rejected(f"{kind} {meta['name']}: spec: Required value")
    if sum(bool(owner.get("controller")) for owner in meta.get("ownerReferences", [])) > 1:
        raise Rejected(f"{kind} {meta['name']}: only one owner can be the controller")
    limit = 253 if kind in (RERANKER_SERVICE.kind, RERANKER_ENGINE.kind, PVC.kind) else 63
    if kind not in ("Event", "Pod") and len(meta["name"]) > limit:
        raise Rejected(f"{kind} {meta['name']}: name is too long")


def _copy(node: T) -> T:
    """Of JSON; many times faster than `copy.deepcopy`, and most of what a test here does."""
    twin: T = pickle.loads(pickle.dumps(node, pickle.HIGHEST_PROTOCOL))  # noqa: S301 - our own
    return twin


def _merged(live: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(live) if isinstance(live, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


def _key_of(field: str, entry: Any) -> tuple[str, Any] | None:
    for key in _NAMED.get(field, "").split("|"):
        if isinstance(entry, dict) and key in entry:
            return key, entry[key]
    return None


def _strategic(live: Any, patch: Any, field: str) -> Any:
    """As `kubectl edit` merges: maps by key, lists of named entries by name, the rest replaced."""
    if isinstance(live, dict) and isinstance(patch, dict):
        return live | {key: _strategic(live.get(key), value, key) for key, value in patch.items()}
    if isinstance(live, list) and isinstance(patch, list) and field in _NAMED:
        result = list(live)
        for entry in patch:
            keys = [_key_of(field, have) for have in result]
            key = _key_of(field, entry)
            if key in keys:
                at = keys.index(key)
                result[at] = _strategic(result[at], entry, "")
            else:
                result.append(entry)
        return result
    return patch


def _fields_v1(patch: Any, field: str) -> Json:
    if isinstance(patch, dict):
        return {f"f:{key}": _fields_v1(value, key) for key, value in patch.items()}
    if isinstance(patch, list) and field in _NAMED:
        entries: Json = {}
        for entry in patch:
            key = _key_of(field, entry)
            assert key is not None
            keys = {key[0]: key[1]} | ({"protocol": "TCP"} if field == "ports" else {})
            entries[f"k:{json.dumps(keys, separators=(',', ':'))}"] = _fields_v1(entry, "")
        return entries
    return {}


def _fields(manifest: Json) -> dict[Path, Any]:
    """What an apply body sets, by path; owner references are entries of their own."""
    identity = {("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")}
    return {path: value for path, value in _leaves(manifest, ()) if path not in identity}


def _leaves(node: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if path == ("metadata", "ownerReferences"):
        for owner in node:
            yield (*path, owner["uid"]), owner
    elif isinstance(node, dict) and node and path not in _ATOMIC:
        for key, value in node.items():
            yield from _leaves(value, (*path, key))
    else:
        yield path, node


def _merge_named(live: Any, wanted: Any, former: Any, field: str) -> Any:
    """An applied value over the live one: entries of named lists that others have added stay."""
    if isinstance(live, dict) and isinstance(wanted, dict):
        was = former if isinstance(former, dict) else {}
        ours = {key: _merge_named(live.get(key), value, was.get(key), key)
                for key, value in wanted.items()}  # fmt: skip
        return {key: live[key] for key in live if key not in was} | ours
    if isinstance(live, list) and isinstance(wanted, list) and field in _NAMED:
        there = {_key_of(field, entry): entry for entry in live}
        before = {_key_of(field, entry): entry for entry in former or []}
        ours_now = []
        for entry in wanted:
            key = _key_of(field, entry)
            ours_now.append(_merge_named(there.pop(key, None), entry, before.get(key), ""))
        return [*ours_now, *(entry for key, entry in there.items() if key not in before)]
    return wanted


def _field(entry: Any, path: Sequence[str]) -> Any:
    for key in path:
        entry = entry.get(key, {})
    return entry


def _set(entry: Json, path: Path, value: Any) -> None:
    if path[:2] == ("metadata", "ownerReferences"):
        owners = entry["metadata"].setdefault("ownerReferences", [])
        owners[:] = [owner for owner in owners if owner["uid"] != path[2]] + [value]
        owners.sort(key=lambda owner: str(owner["uid"]))
        return
    for key in path[:-1]:
        entry = entry.setdefault(key, {})
    entry[path[-1]] = value


def _unset(entry: Json, path: Path) -> None:
    if path[:2] == ("metadata", "ownerReferences"):
        owners = entry["metadata"].get("ownerReferences", [])
        owners[:] = [owner for owner in owners if owner["uid"] != path[2]]
        return
    if len(path) == 1:
        entry.pop(path[0], None)
    elif path[0] in entry:
        _unset(entry[path[0]], path[1:])
        if not entry[path[0]]:
            del entry[path[0]]


def _canonical(node: Any) -> Any:
    """Quantities in the form in which the API server gives them back."""
    if isinstance(node, list):
        return [_canonical(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    return {
        key: {name: _quantity(amount) for name, amount in value.items()}
        if key in ("requests", "limits") and isinstance(value, dict)
        else _canonical(value)
        for key, value in node.items()
    }


def _quantity(amount: object) -> str:
    text = str(amount)
    if text.replace(".", "", 1).isdigit() and Decimal(text) != int(Decimal(text)):
        return f"{int(Decimal(text) * 1000)}m"
    return text
