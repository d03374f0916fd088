"""What is known of the objects that the operator looks after, for its metrics.

Watch events bring the news, the list of each resync the truth: an object whose DELETE was missed is
gone after it. Only the leader watches, so only the leader knows anything. Statuses are read
leniently, and every word that becomes a label is one of ours: a status is writable by others.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reranker_contracts import Stage, StageReason
from reranker_operator.api.conditions import ConditionType, Reason
from reranker_operator.api.meta import RERANKER_ENGINE, RERANKER_SERVICE
from reranker_operator.core.backoff import PERMANENT
from reranker_operator.runtime.queue import Key

_OTHER = "Other"
_REASONS = frozenset({entry.value for entry in (*Reason, *StageReason)})
_STAGES = frozenset({entry.value for entry in Stage} | {"publish-prepared"})
_WORDS = _REASONS | {entry.value.capitalize() for entry in Stage} | {"Prepare", "Serving"}
_STEPS = (ConditionType.PREPARED, ConditionType.COMPILED, ConditionType.VALIDATED)

#: Stages of a pod's start, and what `status.coldStart` calls them.
COLD_START = {
    "schedule": "schedule",
    "prepare": "prepare",
    "verify": "verify",
    "load": "load",
    "warm-up": "warmUp",
}
STATES = ("Building", "Ready", "Failing", "Failed", "Deleting")


@dataclass(frozen=True)
class ServiceFacts:
    """One RerankerService as it was seen last."""

    ready: bool
    stage: str
    replicas: float
    ready_replicas: float
    #: Seconds of each stage of the last start of a pod.
    cold_start: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class EngineFacts:
    """One RerankerEngine as it was seen last. `state` is one of STATES."""

    state: str
    reason: str
    failures: float
    size_bytes: float | None
    seconds: Mapping[str, float]


class Fleet:
    """All services and engines by key."""

    def __init__(self) -> None:
        self._services: dict[Key, ServiceFacts] = {}
        self._engines: dict[Key, EngineFacts] = {}
        self._news: set[Key] = set()

    @property
    def services(self) -> Mapping[Key, ServiceFacts]:
        """Every known RerankerService."""
        return self._services

    @property
    def engines(self) -> Mapping[Key, EngineFacts]:
        """Every known RerankerEngine."""
        return self._engines

    def saw(self, entry: Mapping[str, Any]) -> None:
        """An event told of this object."""
        key = _key(entry)
        self._news.add(key)
        self._keep(key, entry)

    def lost(self, key: Key) -> None:
        """An event told that the object is gone."""
        self._news.add(key)
        self._services.pop(key, None)
        self._engines.pop(key, None)

    def begin_list(self) -> None:
        """From now on events are newer than the list."""
        self._news.clear()

    def end_list(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """The list is complete: what is not on it, and had no event since, is gone."""
        found = {_key(entry): entry for entry in entries}
        for key in {*self._services, *self._engines} - found.keys() - self._news:
            self.lost(key)
        for key, entry in found.items():
            if key not in self._news:
                self._keep(key, entry)
        self._news.clear()

    def _keep(self, key: Key, entry: Mapping[str, Any]) -> None:
        if key.kind == RERANKER_SERVICE.kind:
            self._services[key] = service_facts(entry)
        elif key.kind == RERANKER_ENGINE.kind:
            self._engines[key] = engine_facts(entry)


def service_facts(entry: Mapping[str, Any]) -> ServiceFacts:
    """Read from the object; Ready counts only where it is about the newest spec."""
    status = _mapping(entry, "status")
    generation = _number(_mapping(entry, "metadata").get("generation")) or 0.0
    current = (_number(status.get("observedGeneration")) or 0.0) >= generation
    ready = _condition(status, ConditionType.READY).get("status") == "True"
    replicas = _number(_mapping(entry, "spec").get("replicas"))
    return ServiceFacts(
        ready=ready and current,
        stage=_word(status.get("stage") or Reason.PENDING.value, _WORDS),
        replicas=1.0 if replicas is None else replicas,
        ready_replicas=_number(status.get("readyReplicas")) or 0.0,
        cold_start=_cold_start(status),
    )


def engine_facts(entry: Mapping[str, Any]) -> EngineFacts:
    """Read from the object. Failed: only a change helps; Failing: it is tried again."""
    status = _mapping(entry, "status")
    ready = _condition(status, ConditionType.READY)
    reason = _word(ready.get("reason") or Reason.PENDING.value, _REASONS)
    failures = _number(_mapping(status, "attempts").get("failures")) or 0.0
    blocked = any(_condition(status, step).get("status") == "False" for step in _STEPS)
    if _mapping(entry, "metadata").get("deletionTimestamp"):
        state = "Deleting"
    elif ready.get("status") == "True":
        state = "Ready"
    elif reason in PERMANENT:
        state = "Failed"
    else:
        state = "Failing" if failures or blocked else "Building"
    return EngineFacts(state, reason, failures, _number(status.get("sizeBytes")), _seconds(status))


def _cold_start(status: Mapping[str, Any]) -> dict[str, float]:
    told = _mapping(status, "coldStart")
    found = {stage: _number(told.get(key)) for stage, key in COLD_START.items()}
    return {stage: seconds for stage, seconds in found.items() if seconds is not None}


def _seconds(status: Mapping[str, Any]) -> dict[str, float]:
    taken = {}
    for stage in _mappings(status.get("stages")):
        seconds = _number(stage.get("seconds"))
        if seconds is not None:
            taken[_word(stage.get("name"), _STAGES)] = seconds
    return taken


def _key(entry: Mapping[str, Any]) -> Key:
    meta = _mapping(entry, "metadata")
    return Key(*(_text(value) for value in (entry.get("kind"), meta.get("namespace"),
                                            meta.get("name"))))  # fmt: skip


def _text(value: object) -> str:
    """What can be written as UTF-8, whatever JSON brought."""
    return str(value or "")[:253].encode("utf-8", "replace").decode("utf-8")


def _word(value: object, known: frozenset[str]) -> str:
    return value if isinstance(value, str) and value in known else _OTHER


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _mapping(entry: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = entry.get(name)
    return value if isinstance(value, Mapping) else {}


def _mappings(value: object) -> list[Mapping[str, Any]]:
    entries = value if isinstance(value, list) else []
    return [entry for entry in entries if isinstance(entry, Mapping)]


def _condition(status: Mapping[str, Any], kind: ConditionType) -> Mapping[str, Any]:
    entries = _mappings(status.get("conditions"))
    return next((entry for entry in entries if entry.get("type") == kind.value), {})
