"""Pods and objects that the API server refuses: quotas, limits, Pod Security, policies, rights.

Controllers pass its words on in an Event or a condition, to us they come as an error.
"""

import re

from reranker_operator.api.conditions import Reason
from reranker_operator.core.causes.finding import Finding, clue, finding, recognise
from reranker_operator.core.wording import quote

#: A controller's words around the API server's, with a pod's name that differs each time.
_REFUSAL = re.compile(r'^(error creating: )?(pods? "[^"]*" is forbidden: )?', re.IGNORECASE)
_RIGHTS = re.compile(r'User "[^"]*" cannot \w+ resource')
_QUOTA = (
    clue(
        "exceeded quota",
        Reason.QUOTA_EXCEEDED,
        "raise the namespace's ResourceQuota or lower {field}",
    ),
    clue(
        "failed quota|insufficient quota",
        Reason.QUOTA_EXCEEDED,
        "set what the namespace's ResourceQuota counts in {field}",
    ),
)
_POLICY = clue(
    r"admission webhook \S+ denied|denied request|failed calling webhook",
    Reason.ADMISSION_DENIED,
    "change {field} or the image as the policy asks, or the policy",
)
_POD = (
    *_QUOTA,
    clue(
        "no PriorityClass with name",
        Reason.PRIORITY_CLASS_NOT_FOUND,
        "create the PriorityClass or correct spec.serving.pod.priorityClassName",
    ),
    clue(
        r'RuntimeClass "[^"]*" not found',
        Reason.RUNTIME_CLASS_NOT_FOUND,
        "create the RuntimeClass or correct spec.serving.pod.runtimeClassName",
    ),
    clue(
        "error looking up service account",
        Reason.SERVICE_ACCOUNT_NOT_FOUND,
        "create the ServiceAccount or correct spec.serving.pod.serviceAccountName",
    ),
    clue(
        r"(maximum|minimum) \S+ usage per |limit to request ratio per ",
        Reason.LIMIT_RANGE_EXCEEDED,
        "set {field} within the namespace's LimitRange, or change that",
    ),
    clue(
        "violates PodSecurity",
        Reason.POD_SECURITY_REFUSED,
        "change what spec.serving.pod adds, or the namespace's level",
    ),
    _POLICY,
    clue("", Reason.POD_REJECTED, "change the limit or policy that refuses it, or {field}"),
)


def refused_pod(text: str, field: str) -> Finding | None:
    """Why a controller may make no pod; `field` has its resources."""
    text = _REFUSAL.sub("", text)
    return recognise(_POD, text, f"no pod may be made: {quote(text)}", field=field)


def refused_write(text: str) -> Finding:
    """Why we may not do something ourselves."""
    told = quote(text)
    clues = _QUOTA if _RIGHTS.search(text) else (*_QUOTA, _POLICY)
    found = recognise(clues, text, told, field="what the spec asks for")
    remedy = "give the operator this right (install its chart again), or change the policy"
    return found or finding(Reason.FORBIDDEN, told, remedy)
