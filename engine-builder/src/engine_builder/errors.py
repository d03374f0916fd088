"""Failures that a stage knows how to explain.

    Exception
    └── StageError   reason (part of the API) + message (field, value, remedy)

Everything else that escapes a stage is a defect: the command line reports it as InternalError and
leaves the traceback in the log.
"""

import errno
from pathlib import Path

from reranker_contracts import StageReason

#: What the system calls a filesystem without room.
FULL = {errno.ENOSPC, errno.EDQUOT}
_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}


def printable(text: str) -> str:
    """`text` with escapes for what strangers' names may hold: ends of line, marks that turn the
    direction of writing, halves of characters that no file can be written with."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


class StageError(Exception):
    """A stage cannot do its work for a reason that the user can act on."""

    def __init__(self, reason: StageReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = printable(message)


def defect(reason: StageReason, what: str) -> StageError:
    """A failure that nothing about the model or the cluster explains."""
    return StageError(reason, f"{what}; report it with the model's name")


class UsageError(Exception):
    """The command line itself is wrong; exit code 2."""


def write_failure(error: OSError, where: Path) -> StageError | None:
    """The failure behind an OSError met while writing below `where`; None for any other error."""
    if error.errno in FULL:
        return StageError(
            StageReason.STORE_FULL,
            f"{where}: no space left; enlarge the volume or delete what is not used there",
        )
    if error.errno in _UNWRITABLE:
        return StageError(
            StageReason.STORE_UNWRITABLE,
            f"{where}: cannot be written ({error.strerror}); mount it read-write and let the pod's "
            "user or fsGroup, or the one of `docker run --user`, write to it",
        )
    return None
