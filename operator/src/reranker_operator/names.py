"""Every name, label, annotation and key that the operator writes, built in one place.

Kubernetes allows 63 characters in labels and most names. Service names are limited to 40 by the
CRD, engine names to 50 here, so every suffix fits.
"""

import hashlib
import re

from reranker_operator.api.meta import GROUP

MANAGER = "reranker-operator"
STATUS_MANAGER = "reranker-operator-status"

APP_NAME = "app.kubernetes.io/name"
APP_INSTANCE = "app.kubernetes.io/instance"
APP_COMPONENT = "app.kubernetes.io/component"
APP_PART_OF = "app.kubernetes.io/part-of"
APP_MANAGED_BY = "app.kubernetes.io/managed-by"

SERVICE_LABEL = f"{GROUP}/service"
REVISION_LABEL = f"{GROUP}/revision"
ENGINE_LABEL = f"{GROUP}/engine"
STAGE_LABEL = f"{GROUP}/stage"
ATTEMPT_LABEL = f"{GROUP}/attempt"

APPLIED_HASH = f"{GROUP}/applied-hash"
SPEC_HASH = f"{GROUP}/spec-hash"
#: Set by people: another value has the source resolved again.
RESOLVE_AGAIN = f"{GROUP}/resolve-again"
#: Set by people: REVISION, or REVISION/STEP: goes on without waiting any longer (up to that step).
PROMOTE = f"{GROUP}/rollout-promote"
#: Set by people: REVISION is given up.
ABORT = f"{GROUP}/rollout-abort"
#: Set by people: another value has a revision that was given up tried again; none has not.
RETRY = f"{GROUP}/rollout-retry"
#: Set by people: REVISION serves again, or REVISION/HASH: while the spec has this hash.
UNDO = f"{GROUP}/rollout-undo"
DIGEST_ANNOTATION = f"{GROUP}/engine-digest"
#: On a Deployment: the pod template that it was made from, packed.
TEMPLATE_ANNOTATION = f"{GROUP}/template"
#: On an engine: uid of the service, among its owners, whose build settings count.
DECIDER_ANNOTATION = f"{GROUP}/settings-of"
#: On an engine: the resolution that it was made for, as JSON. A service that names the same fixed
#: revision need not look again.
RESOLVED_ANNOTATION = f"{GROUP}/resolved"
#: On a Job: hash of the build settings that it was made with.
SETTINGS_ANNOTATION = f"{GROUP}/settings-hash"
#: On the Service for outside: the class of load balancer that it was made with.
BALANCER_ANNOTATION = f"{GROUP}/load-balancer-class"
#: On pods: versions of the Secrets and ConfigMaps that they were made with.
REFERENCES_ANNOTATION = f"{GROUP}/references"
FINALIZER = f"{GROUP}/cleanup"

MANAGED_SELECTOR = f"{APP_MANAGED_BY}={MANAGER}"

_ENGINE_NAME_LIMIT = 50
STORE_CLAIM = "reranker-engines"

#: Labels of a node, by NVIDIA's GPU feature discovery. Memory is in MiB.
GPU_MAJOR = "nvidia.com/gpu.compute.major"
GPU_MINOR = "nvidia.com/gpu.compute.minor"
GPU_PRODUCT = "nvidia.com/gpu.product"
GPU_MEMORY = "nvidia.com/gpu.memory"


def short_hash(text: str, length: int = 8) -> str:
    """Leading hex digits of the text's sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def slug(text: str, limit: int) -> str:
    """Lower-case letters, digits and `-`, at most `limit` characters, never empty."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:limit].strip("-") or "model"


def labels(component: str, instance: str) -> dict[str, str]:
    """The recommended labels that every object of ours carries."""
    return {
        APP_NAME: "reranker",
        APP_INSTANCE: instance,
        APP_COMPONENT: component,
        APP_PART_OF: MANAGER,
        APP_MANAGED_BY: MANAGER,
    }


def engine(model: str, target: str, digest: str, claim: str = STORE_CLAIM) -> str:
    """`<model>-<target>-<10 hex digits>`, at most 50 characters.

    The digits are the digest's first ones; in another store than the default, `claim` being its
    claim, the same bytes are another engine with other digits.
    """
    digits = digest[:10] if claim == STORE_CLAIM else short_hash(f"{digest}/{claim}", 10)
    tail = f"-{slug(target, 20)}-{digits}"
    return slug(model, _ENGINE_NAME_LIMIT - len(tail)) + tail


def resolve_job(service: str, key: str, attempt: int) -> str:
    """Job that resolves a service's source."""
    return f"{service}-resolve-{short_hash(f'{key}/{attempt}', 6)}"


def stage_job(engine_name: str, step: str, attempt: int) -> str:
    """Job of an engine, `step` being prepare, compile or remove."""
    return f"{engine_name}-{step}-{attempt}"


def registry_job(engine_name: str, step: str, attempt: str) -> str:
    """Job of an engine that talks to the registry, `step` being pull or push."""
    return f"{engine_name}-{step}-{short_hash(attempt, 6)}"


def deployment(service: str, revision: str) -> str:
    """Deployment of one revision."""
    return f"{service}-{revision}"


def external_service(service: str) -> str:
    """Service that carries the API out of the cluster."""
    return f"{service}-external"


def activator(service: str) -> str:
    """Of all that the activator is made of, but for the Service of the next function."""
    return f"{service}-activator"


def pods_service(service: str) -> str:
    """Service by which the activator reaches the pods that serve."""
    return f"{service}-pods"


def preview_service(service: str) -> str:
    """Service that leads to the revision that is on its way."""
    return f"{service}-preview"


def resolve_policy(service: str) -> str:
    """NetworkPolicy of a service's resolve Jobs."""
    return f"{service}-resolve"


def build_policy(service: str) -> str:
    """NetworkPolicy of the Jobs of a service's engines."""
    return f"{service}-build"


def store_claim(storage_class: str | None, access_mode: str) -> str:
    """Claim of the namespace's engine store; one for each kind of storage that is asked for."""
    if storage_class is None and access_mode == "ReadWriteOnce":
        return STORE_CLAIM
    return f"{STORE_CLAIM}-{short_hash(f'{storage_class}/{access_mode}', 6)}"


def owner_manager(uid: str) -> str:
    """Field manager under which one owner puts its owner reference on a shared object."""
    return f"{MANAGER}-owner-{uid}"


def url(service: str, namespace: str, scheme: str) -> str:
    """Address of the HTTP API inside the cluster."""
    return f"{scheme}://{service}.{namespace}.svc:8000"
