"""What would change for the pods of a service, in words for `status.pendingChanges`.

Both sides are pod templates as an operator rendered them, so nothing that the API server fills in
is in the way. Values of environment variables that are not ours are never told.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from reranker_operator import names
from reranker_operator.api.conditions import ConditionType, is_true
from reranker_operator.api.v1alpha1 import RerankerEngine
from reranker_operator.core import references
from reranker_operator.core.revisions import engine_of, live_deployments
from reranker_operator.core.wording import printable
from reranker_operator.core.world import ServiceWorld
from reranker_operator.render import serving as render
from reranker_operator.render.pods import Json

_MOST = 40
_LONGEST = 80
_OURS = "RERANKER_"
_NOTHING = "none"
_DIGEST = re.compile("[0-9a-f]{64}")
#: As `names.engine` makes them.
_ENGINE = re.compile("[a-z0-9-]+-[0-9a-f]{10}")
#: They come and go with the user's own variables, and are what the gateway does without them.
_ALONG = frozenset(f"{_OURS}{name}" for name in ("HOST", "HTTP_PORT", "METRICS_PORT", "GRPC_PORT"))
_BY_NAME = frozenset({"containers", "initContainers", "volumes"})


def pending_changes(
    world: ServiceWorld, serving: str | None, planned: RerankerEngine | None
) -> tuple[str, ...]:
    """From what serves to what the spec and this operator ask for; `planned` may not exist yet.

    Empty where nothing serves: all that is new then.
    """
    entry = live_deployments(world).get(serving or "")
    if entry is None:
        return ()
    if planned is None:
        return (f"engine: {engine_of(entry)} → not known before the model is resolved",)
    used = references.of_pods(world, entry)
    template = render.pod_template(world.service, planned, world.defaults, used)
    if render.revision_of(template) == serving:
        return ()
    before = render.template_of(entry) or dict(entry["spec"]["template"])
    lines = [*_engine(world, engine_of(entry), planned), *differences(before, template)]
    if not lines:
        return ("the pods are made anew",)
    if len(lines) > _MOST:
        lines = [*lines[:_MOST], f"and {len(lines) - _MOST} more"]
    return tuple(lines)


def _engine(world: ServiceWorld, before: str | None, planned: RerankerEngine) -> Iterator[str]:
    name = planned.metadata.name
    if name == before:
        return
    found = next((entry for entry in world.engines if entry.metadata.name == name), None)
    built = found is not None and is_true(found.status.conditions, ConditionType.READY)
    yield f"engine: {before} → {name}" + ("" if built else " (not built)")


def differences(before: Json, after: Json) -> Iterator[str]:
    """Pod templates compared; another engine alone is no difference."""
    before = _with_engine_of(before, after)
    for kind, title in (("labels", "label"), ("annotations", "annotation")):
        yield from _entries(title, before["metadata"].get(kind), after["metadata"].get(kind))
    yield from _references(references.noted(before), references.noted(after))
    old, new = before["spec"], after["spec"]
    for kind in ("initContainers", "containers"):
        yield from _containers(old.get(kind, []), new.get(kind, []))
    yield from _named("volume", old.get("volumes", []), new.get("volumes", []))
    for key in sorted({*old, *new} - _BY_NAME):
        yield from _values(key, old.get(key), new.get(key))


def _with_engine_of(before: Json, after: Json) -> Json:
    """The older template with the newer one's engine, whose name and digest are all over it."""
    instead: dict[str, str] = {}
    for kind, key, form in (
        ("annotations", names.DIGEST_ANNOTATION, _DIGEST),
        ("labels", names.ENGINE_LABEL, _ENGINE),
    ):
        old, new = ((side["metadata"].get(kind) or {}).get(key) for side in (before, after))
        # Somebody may have changed the older one: a letter is all over it, too.
        if isinstance(old, str) and isinstance(new, str) and form.fullmatch(old):
            instead[old] = new
    replaced: Json = _replaced(before, instead)
    # Of a Deployment as it is found, the template has the revision's label too.
    if names.REVISION_LABEL not in after["metadata"].get("labels", {}):
        (replaced["metadata"].get("labels") or {}).pop(names.REVISION_LABEL, None)
    return replaced


def _replaced(node: Any, instead: Mapping[str, str]) -> Any:
    """A copy with other words in all its texts."""
    if isinstance(node, dict):
        return {key: _replaced(value, instead) for key, value in node.items()}
    if isinstance(node, list):
        return [_replaced(value, instead) for value in node]
    if isinstance(node, str):
        for old, new in instead.items():
            node = node.replace(old, new)
    return node


def _containers(before: list[Json], after: list[Json]) -> Iterator[str]:
    old, new = _keyed(before), _keyed(after)
    for name in _union(old, new):
        if name not in old:
            yield f"container {name}: added, image {new[name].get('image')}"
        elif name not in new:
            yield f"container {name}: removed"
        else:
            yield from _container(name, old[name], new[name])


def _container(name: str, before: Json, after: Json) -> Iterator[str]:
    yield from _values(f"image {name}", before.get("image"), after.get("image"))
    yield from _environment(name, before.get("env", []), after.get("env", []))
    for key in sorted({*before, *after} - {"name", "image", "env"}):
        yield from _values(f"{name}.{key}", before.get(key), after.get(key))


def _environment(container: str, before: list[Json], after: list[Json]) -> Iterator[str]:
    old, new = _keyed(before), _keyed(after)
    for name in _union(old, new):
        if name in _ALONG and not (name in old and name in new):
            continue
        title = f"{container}.env.{name}"
        if name.startswith(_OURS):
            values = [side[name].get("value") if name in side else None for side in (old, new)]
            yield from _values(title, *values)
        elif old.get(name) != new.get(name):
            yield f"{title}: {_deed(name, old, new)}"


def _named(title: str, before: list[Json], after: list[Json]) -> Iterator[str]:
    old, new = _keyed(before), _keyed(after)
    for name in _union(old, new):
        if old.get(name) != new.get(name):
            yield f"{title} {name}: {_deed(name, old, new)}"


def _entries(
    title: str, before: Mapping[str, str] | None, after: Mapping[str, str] | None
) -> Iterator[str]:
    old, new = before or {}, after or {}
    for key in _union(old, new):
        if key != names.REFERENCES_ANNOTATION:
            yield from _values(f"{title} {key}", old.get(key), new.get(key))


#: The spec may have named it before, with an operator that did not look at its like.
_WATCHED = {"added": "watched from now on", "changed": "changed", "removed": "no longer watched"}


def _references(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    """Secrets and ConfigMaps; their versions tell nobody anything."""
    for title in _union(before, after):
        if before.get(title) != after.get(title):
            yield f"{title.replace('/', ' ')}: {_WATCHED[_deed(title, before, after)]}"


def _values(title: str, before: Any, after: Any) -> Iterator[str]:
    if before == after:
        return
    if all(side is None or isinstance(side, dict) for side in (before, after)):
        old, new = before or {}, after or {}
        if old or new:
            for key in _union(old, new):
                yield from _values(f"{title}.{key}", old.get(key), new.get(key))
            return
    texts = [printable(_text(value)) for value in (before, after)]
    if max(map(len, texts)) > _LONGEST:
        yield f"{title}: changed"
    else:
        yield f"{title}: {texts[0]} → {texts[1]}"


def _text(value: Any) -> str:
    if value is None:
        return _NOTHING
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _deed(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    if name not in before:
        return "added"
    return "changed" if name in after else "removed"


def _keyed(entries: list[Json]) -> dict[str, Json]:
    return {str(entry["name"]): entry for entry in entries}


def _union(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The keys of both, in the order of the newer one."""
    return list(dict.fromkeys([*after, *before]))


def summary(changes: tuple[str, ...]) -> str:
    """All of them in one line, which may be cut."""
    text = "; ".join(changes)
    return text if len(text) <= 400 else f"{text[:399]}…"
