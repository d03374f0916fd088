"""Who asks: by API key where keys are asked for, else by what the caller says of itself.

The name decides whose share of queue and engine a request takes, and nothing else. A name that
anybody may choose is hashed into a fixed number of shares with a secret of this process: whoever
makes up names gets more shares, but never all of them, and cannot aim at somebody else's.
"""

import hashlib
import secrets
from collections.abc import Iterable, Mapping

from reranker_gateway.api_keys import ApiKeys
from reranker_gateway.errors import UnauthorizedError

_SHARES = 256
#: Whole paths: what follows a known beginning may lead elsewhere.
OPEN = frozenset(
    {"/v1/health/live", "/v1/health/ready", "/v2/health/live", "/v2/health/ready", "/health"}
)
_BEARER = b"bearer "

Headers = Iterable[tuple[bytes, bytes]]


class Callers:
    """Tells callers apart, and turns those without a key away."""

    def __init__(
        self, keys: ApiKeys | None, header: str, own: Mapping[str, str] | None = None
    ) -> None:
        """`own`: the share of what comes by a path that asks for a proof of its own kind."""
        self._own = own or {}
        self._keys = keys
        self._header = header.lower().encode()
        self._salt = secrets.token_bytes(16)

    def admit(self, path: str, headers: Headers) -> str:
        """The caller's share; "" for everybody who says nothing. Raises UnauthorizedError.

        `headers` have lower-case names. Probes are answered without a key.
        """
        if path in self._own:
            return self._own[path]
        if self._keys is None:
            return self._share(headers)
        if path in OPEN:
            return ""
        return self.authenticate(headers)

    def authenticate(self, headers: Headers) -> str:
        """Name of the key. Raises UnauthorizedError."""
        presented = _presented(headers)
        owner = self._keys.owner(presented) if self._keys and presented else None
        if owner is None:
            what = "is not known here" if presented else "is missing"
            raise UnauthorizedError(
                f"the API key {what}; send it as Authorization: Bearer KEY or x-api-key: KEY"
            )
        return owner

    def _share(self, headers: Headers) -> str:
        for name, value in headers:
            if name == self._header and value:
                digest = hashlib.blake2b(value, digest_size=8, key=self._salt).digest()
                return f"share-{int.from_bytes(digest) % _SHARES}"
        return ""


def _presented(headers: Headers) -> bytes:
    found = b""
    for name, value in headers:
        if name == b"x-api-key":
            return value.strip()
        if name == b"authorization" and value[: len(_BEARER)].lower() == _BEARER:
            found = value[len(_BEARER) :].strip()
    return found
