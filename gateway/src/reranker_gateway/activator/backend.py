"""The pods that serve, as the activator reaches them: by one address, over TLS where they have it.

Each request has a connection of its own: the address leads to one of the pods by chance, also to
ones that are not ready, and another attempt must be able to find another one.
"""

from pathlib import Path
from typing import Any, Final

import httpx

from reranker_gateway.activator.hold import NotTakenError
from reranker_gateway.peers import CONNECT_SECONDS, Headers, Peers

READY_PATH: Final = b"/v1/health/ready"
_ASK_SECONDS: Final = 2.0
_SEND_SECONDS: Final = 60.0


class Backend:
    """HTTP to the pods."""

    def __init__(self, url: str, tls_dir: Path | None, answer_seconds: float) -> None:
        """`answer_seconds`: longest silence of a pod that has a request."""
        self._url = httpx.URL(url)
        self._peers = Peers(tls_dir)
        self.answer_seconds = answer_seconds
        #: A name in the pods' certificate, once one was seen.
        self.certified: str | None = None

    @property
    def certificate(self) -> bytes | None:
        """What the pods are expected to show, as PEM; None without TLS."""
        return self._peers.certificate

    def takes(self, target: bytes) -> bool:
        """Whether `target` is a path that can be asked for: no other form, and no fragment."""
        if not target.startswith(b"/") or target.startswith(b"//") or b"#" in target:
            return False
        try:
            self._url.copy_with(raw_path=target)
        except (httpx.InvalidURL, UnicodeDecodeError):
            return False
        return True

    async def ready(self) -> bool:
        """Whether a pod says that it is ready."""
        try:
            client = await self._peers.client()
            request = self._request("GET", READY_PATH, [], b"", read_seconds=_ASK_SECONDS)
            response = await client.send(request, stream=True)
            try:
                self._note_names(response)
                return response.status_code == httpx.codes.OK
            finally:
                await response.aclose()
        except (httpx.TransportError, OSError):
            return False

    async def send(
        self, method: str, target: bytes, headers: Headers, body: bytes
    ) -> httpx.Response:
        """Its answer, whose body is still to be read. Raises NotTakenError when there is none."""
        try:
            client = await self._peers.client()
            request = self._request(method, target, headers, body, read_seconds=self.answer_seconds)
            return await client.send(request, stream=True)
        except (httpx.TransportError, OSError):
            raise NotTakenError(None) from None

    async def close(self) -> None:
        """Close all connections."""
        await self._peers.close()

    def _request(
        self, method: str, target: bytes, headers: Headers, body: bytes,
        *, read_seconds: float,
    ) -> httpx.Request:  # fmt: skip
        timeout = httpx.Timeout(
            connect=CONNECT_SECONDS, read=read_seconds, write=_SEND_SECONDS, pool=None
        )
        named = any(name == b"host" for name, _ in headers)
        return httpx.Request(
            method,
            self._url.copy_with(raw_path=target),
            headers=[*headers, *([] if named else [(b"host", self._url.netloc)])],
            content=body,
            extensions={"timeout": timeout.as_dict()},
        )

    def _note_names(self, response: httpx.Response) -> None:
        stream = response.extensions.get("network_stream")
        tls = stream.get_extra_info("ssl_object") if stream is not None else None
        if tls is not None:
            self.certified = _name_in(tls.getpeercert() or {}) or self.certified


def _name_in(certificate: Any) -> str | None:
    """One of its names, for a library that insists on comparing."""
    names = [value for _, value in certificate.get("subjectAltName", ())]
    names += [
        value
        for part in certificate.get("subject", ())
        for key, value in part
        if key == "commonName"
    ]
    return next((name.replace("*", "any", 1) for name in names), None)
