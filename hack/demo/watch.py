"""The live view: what the service and its engine are doing until it is ready."""

import json
import time
from typing import Any

from shell import DemoError, output, say

#: A spec that can't work fails at once; a slow machine may take this long to build.
_DEADLINE_SECONDS = 900
#: Reasons that no waiting will mend.
_HOPELESS = {
    "UnknownSource",
    "InvalidSpec",
    "SourceUnsupported",
    "NotACrossEncoder",
    "EmbeddingModel",
    "ListwiseModel",
    "CustomCode",
    "ArchitectureUnsupported",
    "ModelInvalid",
    "UnsafeWeights",
    "AdapterInvalid",
    "ScoringUnknown",
    "MaxLengthTooLong",
    "MaxLengthTooShort",
    "ParityRefused",
}


def until_ready(name: str, namespace: str) -> None:
    """Print every new stage with its time. Raises DemoError when it can't become ready."""
    started, last = time.monotonic(), ""
    while True:
        service = _read(name, namespace, started + _DEADLINE_SECONDS)
        status = service.get("status", {})
        ready = _condition(status, "Ready")
        current = status.get("observedGeneration") == service["metadata"]["generation"]
        line = f"{status.get('stage') or 'Pending':<16} {_note(ready)}"
        elapsed = time.monotonic() - started
        if line != last:
            say(f"   {elapsed:5.0f} s  {line}")
            last = line
        if current and ready.get("status") == "True":
            _engine_line(status)
            return
        if current and ready.get("reason") in _HOPELESS:
            raise DemoError(f"{ready['reason']}: {ready['message']}")
        if elapsed > _DEADLINE_SECONDS:
            raise DemoError(f"not ready after {_DEADLINE_SECONDS} s: {ready.get('message')}")
        time.sleep(0.5)


def _read(name: str, namespace: str, deadline: float) -> dict[str, Any]:
    """The service; an API server that is too busy to answer is asked again."""
    while True:
        try:
            text = output("kubectl", "get", "rr", name, "-n", namespace, "-o", "json")
        except DemoError as error:
            if "NotFound" in str(error) or time.monotonic() > deadline:
                raise
            say(f"           {error}; asking again")
            time.sleep(5)
        else:
            service: dict[str, Any] = json.loads(text)
            return service


def _condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    return next((c for c in status.get("conditions", []) if c["type"] == kind), {})


def _note(ready: dict[str, Any]) -> str:
    return str(ready.get("message", "waiting for the operator"))[:110]


def _engine_line(status: dict[str, Any]) -> None:
    for engine in status.get("engines", []):
        parity = engine.get("parity", {})
        size = engine.get("sizeBytes", 0) / 1e6
        over = ", passed over" if engine.get("state") == "PassedOver" else ""
        tau, pairs = parity.get("kendallTau", 0), parity.get("pairs")
        say(
            f"   engine {engine['name']}{over}: {size:.0f} MB, stages took "
            f"{engine.get('seconds')} s, Kendall tau {tau:.4f} over {pairs} pairs"
        )
