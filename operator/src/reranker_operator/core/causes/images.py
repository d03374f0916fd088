"""Images that a node can't get, from the reason and words of a waiting container.

The kubelet passes on what its container runtime says, so the words are containerd's and CRI-O's.
"""

import re
from typing import Any

from reranker_operator.api.conditions import Reason
from reranker_operator.core.causes.finding import Finding, clue, finding, recognise
from reranker_operator.core.causes.pods import is_build, settings_of
from reranker_operator.core.wording import quote
from reranker_operator.core.world import Manifest

#: Reasons that say it all by themselves.
_PLAIN = {
    "InvalidImageName": (Reason.IMAGE_NAME_INVALID, "correct {image}"),
    "ErrImageNeverPull": (
        Reason.IMAGE_NOT_PRESENT,
        "load it onto the node, change {image}, or set imagePullPolicy in the operator's chart",
    ),
    "SignatureValidationFailed": (
        Reason.IMAGE_UNTRUSTED,
        "sign it as the node's policy asks, or change {image}",
    ),
    "RegistryUnavailable": (
        Reason.REGISTRY_UNREACHABLE,
        "check the node's way to the registry, or change {image}",
    ),
}
_PULL = frozenset({"ErrImagePull", "ImagePullBackOff", "ImageInspectError"})
_CLUES = (
    clue("signature validation failed", *_PLAIN["SignatureValidationFailed"]),
    clue(
        r"pull access denied|unauthorized|authorization failed|authentication required|"
        r"failed to authorize|denied: |access to the resource is denied|insufficient_scope|"
        r"\b40[13]\b",
        Reason.IMAGE_PULL_UNAUTHORIZED,
        "check the name in {image} and the pull secret in {secret}",
    ),
    # Before `not found`, which an unknown host is as well.
    clue(
        r"no such host|i/o timeout|connection refused|network is unreachable|no route to host|"
        r"registry is unavailable|TLS handshake timeout|x509:|deadline exceeded|"
        r"server misbehaving|\b50[0234]\b",
        *_PLAIN["RegistryUnavailable"],
    ),
    clue(
        r"not found|manifest unknown|name unknown|code = NotFound",
        Reason.IMAGE_NOT_FOUND,
        "check the name and tag in {image}",
    ),
    clue(
        "",
        Reason.IMAGE_PULL_FAILED,
        "check the name in {image} and the pull secret in {secret}",
    ),
)
#: With and without it the kubelet tells of the same failure in turns.
_BACK_OFF = re.compile(
    r'^Back-off pulling image "[^"]*"'
    r"(: (ErrImagePull|ImageInspectError|RegistryUnavailable|SignatureValidationFailed))?:? ?"
)


def unpullable(pod: Manifest, status: dict[str, Any]) -> Finding | None:
    """Why the image of a waiting container does not come."""
    waiting = status.get("state", {}).get("waiting", {})
    reason = waiting.get("reason", "")
    if reason not in _PULL and reason not in _PLAIN:
        return None
    words = _BACK_OFF.sub("", str(waiting.get("message") or ""))
    image, secret = _fields(pod, status["name"])
    what = f"container {status['name']}: image {status['image']} can't be pulled"
    what += f": {quote(words)}" if words else ""
    if reason in _PLAIN:
        plain, remedy = _PLAIN[reason]
        return finding(plain, what, remedy.format(image=image))
    return recognise(_CLUES, words, what, image=image, secret=secret)


def _fields(pod: Manifest, container: str) -> tuple[str, str]:
    """Where a container's image is named, and the secret that it is pulled with."""
    if is_build(pod) and container == "source":
        return "spec.model.source", "spec.model.imagePullSecret"
    pull = "the operator's chart (imagePullSecrets)"
    if not is_build(pod):
        pull = f"spec.serving.pod.imagePullSecrets or {pull}"
    return f"{settings_of(pod, container)}.image", pull
