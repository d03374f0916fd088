"""What the user is told in one line, and the exit code that goes with it.

RrError
├── RequestFailed   1   the cluster or the service said no, or it is not there
└── Unusable        2   wrong usage, or no cluster to ask
"""

from typing import ClassVar


class RrError(Exception):
    """Base of all errors that end a command; the message is for people."""

    code: ClassVar[int] = 1


class RequestFailed(RrError):  # noqa: N818 - says what happened
    """Asked, and answered with a no."""


class NotFound(RequestFailed):
    """The object is not there."""


class Forbidden(RequestFailed):
    """The user may not read this."""


class Unusable(RrError):  # noqa: N818 - as above
    """The command could not be carried out at all."""

    code = 2
