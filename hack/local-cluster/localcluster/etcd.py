"""Asking etcd itself, at its Unix socket."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path

_TIMEOUT_SECONDS = 5.0
# After a power loss the database can be ahead of the write-ahead log. etcd then
# drops every write, its own announcement first, and never starts to serve.
_UNPUBLISHED = "failed to publish local member to cluster through raft"
_ATTEMPTS = 4


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_SECONDS)
        self.sock.connect(str(self._path))


def problem(path: Path) -> str | None:
    """Return why etcd does not serve at the socket ``path``; None when it does."""
    connection = _UnixConnection(path)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"does not answer: {error}"
    finally:
        connection.close()
    return None if status == http.HTTPStatus.OK else f"health check answers {status}"


def drops_writes(output: str) -> bool:
    """Tell from what etcd wrote since its start (half a minute's worth) that it never will."""
    return output.count(_UNPUBLISHED) >= _ATTEMPTS
