"""Errors of the control plane.

    OperatorError
    ├── NotFound              the object is not there (any more)
    ├── Conflict              somebody was faster, or the object is another one by now
    ├── Forbidden             RBAC or admission said no; the message names verb and resource
    │   └── NamespaceTerminating
    ├── Rejected              the API server refused the object as invalid
    │   └── NameTaken         somebody else's object has the name that ours needs
    ├── Expired               a watch can't go on from where it was; list anew
    └── Unavailable           timeout, overload or a broken connection; worth another try
        └── Deposed           this replica may not write any more, unless it renews its Lease

Foreign exceptions are translated at the adapter; nothing above it sees one.
"""


class OperatorError(Exception):
    """Base of all errors that the operator raises on purpose."""


class NotFound(OperatorError):  # noqa: N818 - a state of the cluster, named as the API names it
    """The object is not there."""


class Conflict(OperatorError):  # noqa: N818 - as above
    """The object exists already, or has changed."""


class Forbidden(OperatorError):  # noqa: N818 - as above
    """Not allowed by RBAC or by an admission policy."""


class NamespaceTerminating(Forbidden):
    """Nothing can be created in a namespace that is going away."""


class Rejected(OperatorError):  # noqa: N818 - as above
    """The API server found the object invalid."""


class NameTaken(Rejected):
    """Somebody else's object is in the way; the message names it and says what to do."""


class Expired(OperatorError):  # noqa: N818 - as above
    """What happened since then is not known to the API server any more."""


class Unavailable(OperatorError):  # noqa: N818 - as above
    """The API server could not answer; `retry_after` is in seconds, if it said so."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Deposed(Unavailable):
    """The Lease is not surely ours: nothing was sent."""
