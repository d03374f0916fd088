"""Downloads over HTTP: resumed after a break, bounded, checked against a hash.

Proxies come from HTTPS_PROXY and NO_PROXY, authorities from SSL_CERT_FILE, as everywhere.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx

from engine_builder.errors import StageError, UsageError
from engine_builder.progress import Progress, human_size
from reranker_contracts import StageReason

#: Tries in a row that get no further, before the server counts as unreachable; seconds between.
TRIES = 5
RETRY_SECONDS = 0.5

#: Bytes of what httpx itself reads whole: bodies of redirects and refusals, tokens.
_MAX_ASIDE = 1 << 20
#: Marks requests whose answer is read here, within bounds.
_STREAMED = "streamed"
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_TIMEOUT = httpx.Timeout(60, connect=15)
_RANGE = re.compile(r"bytes (\d+)-\d+/")
#: Answers that another try may mend.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Reasons:
    """What it is called when a server does not answer, refuses, or has no such thing."""

    unreachable: StageReason = StageReason.SOURCE_UNREACHABLE
    unauthorized: StageReason = StageReason.SOURCE_UNAUTHORIZED
    not_found: StageReason = StageReason.SOURCE_NOT_FOUND


@dataclass(frozen=True)
class Place:
    """Where something comes from, for messages: `about` is its URI, `who` answers for it."""

    about: str
    who: str
    #: What to do when access is refused, or when there is no such thing.
    credentials: str
    spelling: str
    reasons: Reasons = Reasons()

    def unreachable(self, problem: object) -> StageError:
        """No answer, or one that makes no sense."""
        words = problem if isinstance(problem, str) else f"({type(problem).__name__})"
        return StageError(
            self.reasons.unreachable,
            f"{self.about}: {self.who} cannot be reached {words}; check the network, spec.proxy "
            "and spec.caBundle (HTTPS_PROXY and SSL_CERT_FILE of this program)",
        )

    def refused(self, status: int) -> StageError:
        """An HTTP status that is no success."""
        if status in (401, 403):
            return StageError(
                self.reasons.unauthorized,
                f"{self.about}: {self.who} refuses access (HTTP {status}); {self.credentials}",
            )
        if status in (404, 410):
            return StageError(
                self.reasons.not_found,
                f"{self.about}: {self.who} has no such thing (HTTP {status}); {self.spelling}",
            )
        return StageError(
            self.reasons.unreachable,
            f"{self.about}: {self.who} answered HTTP {status}; check it and the proxy in between",
        )


def new_client(auth: httpx.Auth | None = None, *, tls_only: bool) -> httpx.Client:
    """A client that follows redirects; credentials are not taken to another host.

    With `tls_only` neither a request nor a redirect goes over plain HTTP. Only what `stream` gets
    may be large. Raises UsageError for proxies that are none.
    """

    def check(request: httpx.Request) -> None:
        if tls_only and request.url.scheme != "https":
            raise httpx.UnsupportedProtocol("a redirect leads to plain http", request=request)

    with usable_proxies():
        return httpx.Client(
            auth=auth,
            timeout=_TIMEOUT,
            follow_redirects=True,
            max_redirects=5,
            headers={"User-Agent": "reranker-engine-builder", "Accept-Encoding": "identity"},
            event_hooks={"request": [check], "response": [_bound]},
        )


@contextmanager
def usable_proxies() -> Iterator[None]:
    """Name the variable that a client can't be made with; its value may hold a password."""
    try:
        yield
    except (httpx.InvalidURL, ValueError, ImportError):
        raise UsageError(
            f"{_unusable_proxy()}: is no address of a proxy; give http://[USER:PASSWORD@]HOST:PORT "
            "with %2F for a slash in the password (spec.proxy)"
        ) from None


def _unusable_proxy() -> str:
    for name in (*_PROXIES, *map(str.lower, _PROXIES)):
        value = os.environ.get(name)
        try:
            if value:
                httpx.Proxy(value if "://" in value else f"http://{value}")
        except (httpx.InvalidURL, ValueError):
            return name
    return "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY or NO_PROXY"


class Bounded(httpx.SyncByteStream):
    """A body that ends at `limit` bytes, whatever else is sent."""

    def __init__(self, stream: httpx.SyncByteStream, limit: int) -> None:
        self._stream = stream
        self._limit = limit

    def __iter__(self) -> Iterator[bytes]:
        """The beginning of the body."""
        left = self._limit
        for chunk in self._stream:
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return

    def close(self) -> None:
        """Give the connection back, or end it where more would come."""
        self._stream.close()


def bound(response: httpx.Response, limit: int) -> None:
    """Have an answer's body, as it is sent, end at `limit` bytes."""
    response.stream = Bounded(cast("httpx.SyncByteStream", response.stream), limit)


def _bound(response: httpx.Response) -> None:
    if not response.is_success or _STREAMED not in response.request.extensions:
        # Nobody asked for it, and little of it could become much.
        response.headers.pop("Content-Encoding", None)
        bound(response, _MAX_ASIDE)


def stream(
    client: httpx.Client, url: str, **options: Any
) -> AbstractContextManager[httpx.Response]:
    """GET what the caller reads within bounds of its own."""
    return client.stream("GET", url, extensions={_STREAMED: True}, **options)


@contextmanager
def explained(place: Place) -> Iterator[None]:
    """Translate the client's errors."""
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise place.unreachable(error) from error


def read_json(client: httpx.Client, url: str, place: Place, limit: int, **options: Any) -> Any:
    """GET a JSON document of at most `limit` bytes; passing troubles are tried again."""
    with explained(place):
        for left in reversed(range(TRIES)):
            try:
                with stream(client, url, **options) as response:
                    if response.status_code not in _PASSING or not left:
                        return _json(response, place, limit)
            except httpx.TransportError as error:
                if not left or isinstance(error, httpx.UnsupportedProtocol):
                    raise
            time.sleep(RETRY_SECONDS)
    raise AssertionError("unreachable: the last try returns or raises")


def _json(response: httpx.Response, place: Place, limit: int) -> Any:
    if not response.is_success:
        raise place.refused(response.status_code)
    data = read_body(response, place, limit)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise place.unreachable("in JSON") from error


def read_body(response: httpx.Response, place: Place, limit: int) -> bytes:
    """All of a streamed answer, at most `limit` bytes."""
    data = b""
    for chunk in response.iter_bytes():
        data += chunk
        if len(data) > limit:
            raise place.unreachable(f"with an answer of more than {human_size(limit)}")
    return data


@dataclass(frozen=True)
class Wanted:
    """What a download must be: at most `limit` bytes, and the `size` and `sha256` if known."""

    name: str
    limit: int
    size: int | None = None
    sha256: str | None = None


def download(
    client: httpx.Client,
    url: str,
    target: Path,
    wanted: Wanted,
    *,
    place: Place,
    progress: Progress,
) -> None:
    """GET `url` into `target`, going on from what is there.

    Raises StageError: SourceChanged when the bytes are not the wanted ones (`target` is removed),
    ModelInvalid when they are too many, and what `place` says of refusals.
    """
    with explained(place):
        _Download(client, url, target, wanted, place, progress).run()
    check(target, wanted, place)


def check(target: Path, wanted: Wanted, place: Place) -> None:
    """Compare a file with what was wanted; one that differs is removed."""
    if wanted.sha256 is None:
        return
    with target.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != wanted.sha256:
        target.unlink()
        raise StageError(
            StageReason.SOURCE_CHANGED,
            f"{place.about}: {wanted.name} has sha256 {found}, expected {wanted.sha256}; check the "
            "hash that you gave, and the proxy or mirror in between",
        )


@dataclass
class _Download:
    """One file, over as many requests as it takes."""

    _client: httpx.Client
    _url: str
    _target: Path
    _wanted: Wanted
    _place: Place
    _progress: Progress
    _etag: str | None = None
    _total: int | None = None

    def run(self) -> None:
        self._total = self._wanted.size
        # There even for a file of no bytes, for which nothing is asked.
        self._target.touch()
        fruitless, furthest = 0, self._offset()
        while not self._complete():
            failure: Exception | None = None
            try:
                status = self._request(self._offset())
            except httpx.TransportError as error:
                if isinstance(error, httpx.UnsupportedProtocol):
                    raise
                failure, status = error, None
            if status is not None and status not in _PASSING:
                raise self._place.refused(status)
            if self._complete():
                return
            # What was thrown away and came again is no progress.
            fruitless = 0 if self._offset() > furthest else fruitless + 1
            furthest = max(furthest, self._offset())
            if fruitless >= TRIES:
                raise (
                    self._place.refused(status) if status else self._place.unreachable(failure)
                ) from failure
            time.sleep(RETRY_SECONDS * fruitless)

    def _offset(self) -> int:
        return self._target.stat().st_size

    def _complete(self) -> bool:
        return self._total is not None and self._offset() == self._total

    def _request(self, offset: int) -> int | None:
        """One GET; an HTTP status that is no success is returned."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if offset and self._etag:
            headers["If-Range"] = self._etag
        with stream(self._client, self._url, headers=headers) as response:
            if response.status_code == 416:
                # Longer than what there is: not the beginning of this file.
                self._target.write_bytes(b"")
                return None
            if not response.is_success:
                return response.status_code
            goes_on = response.status_code == 206 and _starts_at(response, offset)
            self._expect(response, offset if goes_on else 0)
            self._write(response, append=goes_on)
            return None

    def _expect(self, response: httpx.Response, offset: int) -> None:
        length = response.headers.get("Content-Length", "")
        etag = response.headers.get("ETag", "")
        # A weak tag says nothing about single bytes.
        self._etag = etag if etag.startswith('"') else None
        if self._wanted.size is None and length.isdecimal():
            self._total = offset + int(length)
        if self._total is not None and self._total > self._wanted.limit:
            raise self._too_large()

    def _write(self, response: httpx.Response, *, append: bool) -> None:
        limit = min(self._wanted.limit, self._wanted.size or self._wanted.limit)
        with self._target.open("ab" if append else "wb") as file:
            written = self._offset()
            # As it arrives: what a chunk of a fixed size waits for is lost when a body breaks off.
            for chunk in response.iter_raw():
                written += len(chunk)
                if written > limit:
                    raise self._too_large()
                file.write(chunk)
                if self._total:
                    what = f"MB of {self._wanted.name}"
                    self._progress.tick(written // 1_000_000, self._total // 1_000_000, what)
        if self._total is None:
            # A body without a length that came to its end is all there is.
            self._total = written

    def _too_large(self) -> StageError:
        return StageError(
            StageReason.MODEL_INVALID,
            f"{self._place.about}: {self._wanted.name} is larger than the "
            f"{human_size(self._wanted.size or self._wanted.limit)} that it may have; use a "
            "smaller model",
        )


def _starts_at(response: httpx.Response, offset: int) -> bool:
    found = _RANGE.match(response.headers.get("Content-Range", ""))
    return found is not None and int(found[1]) == offset
