"""Containers that can't be made, and how those that ended have ended."""

from typing import Any

from pydantic import ValidationError

from reranker_contracts import StageResult
from reranker_operator.api.conditions import Reason
from reranker_operator.core.causes import triton
from reranker_operator.core.causes.finding import Finding, clue, finding, recognise
from reranker_operator.core.causes.pods import is_build, is_ours, memory_limit, settings_of
from reranker_operator.core.wording import quote
from reranker_operator.core.world import Manifest

KILLED = frozenset({137, 143})
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError"})
_HOOKS = frozenset({"PostStartHookError", "PreStartHookError", "PreCreateHookError"})
_REFERENCES = (
    clue(
        r"couldn't find key \S+ in Secret",
        Reason.SECRET_KEY_NOT_FOUND,
        "add the key to the Secret, or correct it in {secret}",
    ),
    clue("secret .*not found", Reason.SECRET_NOT_FOUND, "create the Secret or correct {secret}"),
    clue(
        r"configmap .*not found|couldn't find key \S+ in ConfigMap",
        Reason.CONFIG_MAP_NOT_FOUND,
        "create the ConfigMap or its key, or correct the reference in {config}",
    ),
)


def stage_result(terminated: dict[str, Any] | None) -> StageResult | None:
    """What one of our programs left in its termination message."""
    if not terminated or not terminated.get("message"):
        return None
    try:
        return StageResult.model_validate_json(terminated["message"])
    except ValidationError:
        # Someone else's message, for example the kubelet's own words about a killed container.
        return None


def unmade(pod: Manifest, status: dict[str, Any]) -> Finding | None:
    """Why the kubelet can't make or start a waiting container."""
    waiting = status.get("state", {}).get("waiting", {})
    reason, text, name = waiting.get("reason", ""), waiting.get("message"), status["name"]
    if reason in _HOOKS:
        remedy = f"correct its lifecycle in {settings_of(pod, name)}"
        return finding(
            Reason.HOOK_FAILED, f"a hook of container {name} fails: {quote(text)}", remedy
        )
    if reason == "RunContainerError":
        return unstartable(pod, name, text)
    if reason not in _CONFIG:
        return None
    secret = (
        "spec.model.secretRef or spec.engine.registry"
        if is_build(pod)
        else "the env in spec.serving"
    )
    config = "spec.caBundle" if is_build(pod) else "spec.serving"
    see = f"see `kubectl describe pod {pod['metadata']['name']}`"
    return recognise(_REFERENCES, text, quote(text), secret=secret, config=config) or finding(
        Reason.CONTAINER_FAILED, f"container {name} can't be made: {quote(text)}", see
    )


def unstartable(pod: Manifest, name: str, text: object) -> Finding:
    """The container runtime's words on a program that does not start."""
    found = triton.unstartable(name, str(text or ""))
    if found is not None:
        return found
    remedy = f"check its image and command in {settings_of(pod, name)}"
    what = f"container {name} can't be started: {quote(text)}"
    return finding(Reason.CONTAINER_FAILED, what, remedy)


def ended(pod: Manifest, name: str, terminated: dict[str, Any] | None) -> Finding | None:
    """How a container ended, where that was no success."""
    if not terminated or terminated.get("exitCode", 0) == 0:
        return None
    code = terminated["exitCode"]
    if terminated.get("reason") == "OOMKilled":
        return out_of_memory(pod, name)
    if code in KILLED:
        remedy = f"see `kubectl describe pod {pod['metadata'].get('name')}` if it happens again"
        return finding(Reason.POD_KILLED, f"container {name} was killed (exit code {code})", remedy)
    if terminated.get("reason") in ("StartError", "ContainerCannotRun"):
        return unstartable(pod, name, terminated.get("message"))
    see = f"see `kubectl logs {pod['metadata'].get('name')} -c {name}`"
    return finding(Reason.CONTAINER_FAILED, f"container {name} ended with {end(terminated)}", see)


def out_of_memory(pod: Manifest, name: str) -> Finding:
    """The kernel killed a container at its memory limit."""
    limit, field = memory_limit(pod, name), f"{settings_of(pod, name)}.resources.limits.memory"
    at = f" at its limit of {limit}" if limit else ""
    return finding(
        Reason.OUT_OF_MEMORY, f"container {name} ran out of memory{at}", f"raise {field}"
    )


def crashing(pod: Manifest, status: dict[str, Any], last: dict[str, Any]) -> Finding:
    """A serving container that ends again and again, by how it ended last."""
    name, code = status["name"], last.get("exitCode", 0)
    if last.get("reason") == "OOMKilled":
        return out_of_memory(pod, name)
    log = f"see `kubectl logs {pod['metadata']['name']} -c {name} --previous`"
    what = f"container {name} keeps ending with {end(last)}"
    if not is_ours(pod, name):
        return finding(
            Reason.SIDECAR_FAILED, what, f"correct it in spec.serving.pod.sidecars, {log}"
        )
    if last.get("reason") in ("StartError", "ContainerCannotRun"):
        return unstartable(pod, name, last.get("message"))
    if name == "triton" and (found := triton.unloadable(str(last.get("message") or ""), log)):
        return found
    if code in KILLED:
        what = f"container {name} is stopped again and again (exit code {code})"
        remedy = f"its startup or liveness probe fails, {log}"
        return finding(Reason.PROBE_FAILED, what, remedy)
    return finding(Reason.CRASH_LOOP, what, log)


def end(terminated: dict[str, Any]) -> str:
    """Exit code and last words."""
    lines = str(terminated.get("message") or "").strip().splitlines()
    last_words = quote(lines[-1], 300) if lines else ""
    code = f"exit code {terminated.get('exitCode', 0)}"
    return f"{code}: {last_words}" if last_words else code
