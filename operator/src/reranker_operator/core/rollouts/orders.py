"""What people say of a rollout by annotations: REVISION, or REVISION/MORE.

All are read alike: space around the words is none of them, and what can't be understood is nobody's
word.
"""

import re
from typing import NamedTuple

from reranker_operator import names
from reranker_operator.api.v1alpha1 import RerankerService

#: Characters of an annotation that are worth keeping as they are.
_SHORT = 64
#: No rollout has as many steps.
_STEP = re.compile(r"[0-9]{1,4}", re.ASCII)


class Order(NamedTuple):
    """`more` is None where there is no `/`."""

    revision: str
    more: str | None


def order(service: RerankerService, key: str) -> Order | None:
    """What an annotation says, if it says anything."""
    revision, slash, more = service.metadata.annotations.get(key, "").partition("/")
    revision = revision.strip()
    return Order(revision, more.strip() if slash else None) if revision else None


def aborted(service: RerankerService, revision: str) -> bool:
    """The revision is to be given up."""
    found = order(service, names.ABORT)
    return found == Order(revision, None)


def promoted(service: RerankerService, revision: str, step: int) -> bool:
    """The revision need not wait in this step: it goes on to its end, or up to a later step."""
    found = order(service, names.PROMOTE)
    if found is None or found.revision != revision:
        return False
    if found.more is None:
        return True
    return _STEP.fullmatch(found.more) is not None and step <= int(found.more)


def retry_of(service: RerankerService) -> str | None:
    """What tells one try from the next: short, however long the annotation is."""
    retry = service.metadata.annotations.get(names.RETRY, "").strip()
    return (retry if len(retry) <= _SHORT else names.short_hash(retry)) or None
