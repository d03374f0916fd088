"""Makes what strangers have added to an object ours, so that the next apply takes it away.

For additions that stand in the way of that very apply: a port with another number is another
port, and keeps the name that ours has to have. Removing it first would not do either where an
object can't be without it for a moment, as a Service without ports.

What an apply leaves out goes away when nobody but its manager has it: so the fields are moved in
`managedFields`, as client-go's `csaupgrade` does for what was applied by clients.
"""

import copy
from collections.abc import Sequence

from reranker_operator.core.drift import Intrusion, Json, strangers
from reranker_operator.core.world import Manifest
from reranker_operator.names import MANAGER

_FIELDS = "fieldsV1"


def adoption(live: Manifest, chosen: Sequence[Intrusion]) -> list[Json]:
    """The JSON patch that moves them to our apply; empty when we have applied nothing there."""
    before: list[Json] = live["metadata"].get("managedFields", [])
    after = copy.deepcopy(before)
    ours = next((entry for entry in after if _is_ours(entry)), None)
    if ours is None:
        return []
    for entry in strangers(after):
        for intrusion in chosen:
            if moved := _take(entry.get(_FIELDS, {}), intrusion.path):
                _give(ours[_FIELDS], moved)
    pairs = list(enumerate(zip(before, after, strict=True)))
    changed = [(place, old, new) for place, (old, new) in pairs if old != new]
    tests = [_operation("test", place, old.get(_FIELDS, {})) for place, old, _ in changed]
    kept = [_operation("replace", place, new[_FIELDS]) for place, _, new in changed if new[_FIELDS]]
    # From the back, so that the places stay right.
    gone = [place for place, _, new in reversed(changed) if not new[_FIELDS]]
    removed = [{"op": "remove", "path": f"/metadata/managedFields/{place}"} for place in gone]
    return [*tests, *kept, *removed]


def _is_ours(entry: Json) -> bool:
    return (entry.get("manager"), entry.get("operation"), entry.get("subresource", "")) == (
        MANAGER,
        "Apply",
        "",
    )


def _operation(name: str, place: int, value: Json) -> Json:
    return {"op": name, "path": f"/metadata/managedFields/{place}/{_FIELDS}", "value": value}


def _take(fields: Json, path: Sequence[str]) -> Json:
    """Remove a field with all below it, and give it back from the root; empty if there is none.

    Nor does what is empty without it stay: it would be a field of its own.
    """
    step, *rest = path
    if step not in fields:
        return {}
    if not rest:
        return {step: fields.pop(step)}
    moved = _take(fields[step], rest)
    if moved and not fields[step]:
        del fields[step]
    return {step: moved} if moved else {}


def _give(fields: Json, moved: Json) -> None:
    for step, below in moved.items():
        have = fields.get(step)
        if have is None:
            fields[step] = below
        elif below:
            # Without anything below it is a field itself, and has to stay one.
            fields[step] = have or {".": {}}
            _give(fields[step], below)
