"""The API of one service behind a port-forward: with TLS and an API key where it asks for them."""

import http.client
import json
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubectl_rr.errors import RequestFailed, Unusable
from kubectl_rr.forward import Forward
from kubectl_rr.raw import text
from kubectl_rr.snapshot import Service

_TIMEOUT_SECONDS = 120
_LONGEST_ANSWER = 64 << 20
_LONGEST_KEY = 4096


@dataclass(frozen=True)
class Credentials:
    """What the caller shows, and whose certificates are believed; None is nothing and any."""

    key: str | None = field(default=None, repr=False)
    ca_file: str | None = None


def read_key(variable: str | None, file: str | None) -> str | None:
    """An API key from the environment or a file; None without either. Raises Unusable.

    There is no option for the key itself: command lines are read by others and kept.
    """
    if variable is not None:
        # What is given may be the key by mistake: it is not repeated.
        return _checked(
            os.environ.get(variable, ""),
            "--key-env: the environment has no variable of this name that holds a key",
        )
    if file is None:
        return None
    try:
        with Path(file).open("rb") as stream:
            data = stream.read(_LONGEST_KEY + 1)
    except (OSError, ValueError) as error:
        raise Unusable(f"{file}: {getattr(error, 'strerror', None) or error}") from error
    return _checked(
        data.decode("latin-1"), f"{file}: no API key, which is one line of at most {_LONGEST_KEY} "
        "printable ASCII characters without blanks",
    )  # fmt: skip


class ServiceApi:
    """Calls of one service. Raises RequestFailed when it does not answer, or no."""

    def __init__(self, forward: Forward, service: Service, credentials: Credentials) -> None:
        """Raises Unusable for a CA file that is none or of no use, RequestFailed without a port."""
        self._forward = forward
        self._host = f"{service.name}.{service.namespace}.svc"
        self._context = _context(service, credentials.ca_file)
        self._port = forward.port()
        self._headers = {"Content-Type": "application/json"}
        if credentials.key is not None:
            self._headers["Authorization"] = f"Bearer {credentials.key}"

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> object:
        """The JSON object that it answers."""
        # Surrogates of a badly encoded command line can't be sent; JSON's escapes can.
        data = None if body is None else json.dumps(body).encode()
        connection = _Connection(self._port, self._context, self._host)
        try:
            connection.request(method, path, data, self._headers)
            response = connection.getresponse()
            status, content = response.status, response.read(_LONGEST_ANSWER + 1)
        except ssl.SSLCertVerificationError as error:
            raise RequestFailed(
                f"the service's certificate for {self._host}: {error.verify_message}"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            words = str(error) or type(error).__name__
            raise RequestFailed(
                f"the service did not answer: {words}; kubectl: {self._forward.last_words()}"
            ) from error
        finally:
            connection.close()
        return _object(status, content)


class _Connection(http.client.HTTPConnection):
    """To a forward on loopback, as the Service that is behind it."""

    # Not through urllib: a proxy of the environment must never see a forward.
    def __init__(self, port: int, context: ssl.SSLContext | None, host: str) -> None:
        super().__init__("127.0.0.1", port, timeout=_TIMEOUT_SECONDS)
        self._context = context
        self._name = host

    def connect(self) -> None:
        """Connect, and begin TLS if that is asked for."""
        super().connect()
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self._name)


def _checked(key: str, refusal: str) -> str:
    key = key.strip()
    if not 0 < len(key) <= _LONGEST_KEY or not all("!" <= letter <= "~" for letter in key):
        raise Unusable(refusal)
    return key


def _context(service: Service, ca_file: str | None) -> ssl.SSLContext | None:
    """None for plain HTTP."""
    if not service.serving.tls:
        if ca_file is not None:
            raise Unusable(f"{service.name} serves plain HTTP; leave out --ca-file")
        return None
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise Unusable(f"{ca_file}: {error.strerror or error}") from error
    if ca_file is None:
        # The API server chose the pod, and the way to it is its connection.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _object(status: int, content: bytes) -> object:
    try:
        answer: object = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    if status != 200:
        raise RequestFailed(f"the service answered {status}: {text(answer, 'message')}")
    if not isinstance(answer, dict):
        raise RequestFailed("what answers is not a ranking API")
    return answer
