"""Reads the metrics of one pod: a GET with a deadline, of which nothing is believed.

A pod is somebody else's program for all we know. What it sends is bounded in time and size, it is
not followed anywhere, and a body that makes no sense is as good as none. Prometheus' own parser
reads anything; this one takes the few numbers that are asked for, in a fraction of the time.
"""

import asyncio
import math
import re
from collections.abc import Callable, Mapping
from typing import Final, Literal, Protocol
from urllib.parse import urlencode

import aiohttp

from reranker_contracts import metrics as names
from reranker_operator.core.load import Role, Sample, Shadowed
from reranker_operator.render.serving import METRICS_PORT

#: Why a pod can't be read; each is a label of a metric.
Failure = Literal["timeout", "unreachable", "status", "too_large", "malformed"]
FAILURES: Final[tuple[Failure, ...]] = (
    "timeout", "unreachable", "status", "too_large", "malformed",
)  # fmt: skip

#: A pod that can't choose sends everything; of Triton's metrics there are some hundred lines.
_MOST_BYTES: Final = 512 << 10
_MOST_BUCKETS: Final = 64
_MOST_REVISIONS: Final = 8
_CHUNK: Final = 64 << 10
#: No count, time or rate of a pod is larger, and what is less is nothing: sums and quotients stay
#: numbers.
_MOST: Final = 1e15
_LEAST: Final = 1e-9
_LEAST_SPEED: Final = 1e-3
#: Of a held request's body, for each of its tokens: those of a query count once for each passage.
_TOKEN_BYTES: Final = 4.0
_QUERY: Final = urlencode([("name[]", name) for name in names.OF_LOAD])
_REQUESTS: Final = names.REQUESTS.encode()
_UNANSWERED: Final = names.SHADOW_REQUESTS.encode()
_BUCKETS: Final = f"{names.STAGE_SECONDS}_bucket".encode()
#: Labels of the one part that is read of a metric.
_PARTS: Final = {_BUCKETS: b'stage="queue"', _UNANSWERED: b'result="failed"'}
_COMPARED: Final = f"{names.SHADOW_TAU}_count".encode()
_TAU: Final = f"{names.SHADOW_TAU}_sum".encode()
_NAMES: Final = {name.encode(): name for name in names.OF_LOAD}
_CODE: Final = re.compile(rb'(?:^|,)code="(\d{3})"')
_REVISION: Final = re.compile(rb'^revision="([a-z0-9]{1,63})"')
_BOUND: Final = re.compile(rb'(?:^|,)le="([^"]+)"')


class ScrapeError(Exception):
    """The pod can't be read; `reason` says in a word why."""

    def __init__(self, reason: Failure) -> None:
        super().__init__(reason)
        self.reason: Failure = reason


class Pods(Protocol):
    """What pods say of themselves."""

    async def read(self, address: str, role: Role) -> Sample:
        """The metrics of the pod at an IP address. Raises ScrapeError."""


class Scraper:
    """Pods over HTTP. `seconds` is the deadline of one pod, from connecting to the last byte."""

    def __init__(
        self, seconds: float, clock: Callable[[], float], port: int = METRICS_PORT
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._port = port
        self._session: aiohttp.ClientSession | None = None

    async def read(self, address: str, role: Role) -> Sample:
        """The metrics of the pod at an IP address. Raises ScrapeError."""
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._body(address)
        except TimeoutError:
            raise ScrapeError("timeout") from None
        except (aiohttp.ClientError, OSError, ValueError):
            raise ScrapeError("unreachable") from None
        return parse(body, self._clock(), role)

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def _body(self, address: str) -> bytes:
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{self._port}/metrics?{_QUERY}"
        async with self._connected().get(url, allow_redirects=False) as response:
            if response.status != 200 or "Content-Encoding" in response.headers:
                raise ScrapeError("status")
            parts, size = [], 0
            async for part in response.content.iter_chunked(_CHUNK):
                parts.append(part)
                size += len(part)
                if size > _MOST_BYTES:
                    raise ScrapeError("too_large")
        return b"".join(parts)

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Who bounds the scrapes at the same time is the caller.
                connector=aiohttp.TCPConnector(limit=0, use_dns_cache=False),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                headers={"Accept": "text/plain", "Accept-Encoding": "identity"},
                auto_decompress=False,
                trust_env=False,
                requote_redirect_url=False,
            )
        return self._session


def parse(body: bytes, at: float, role: Role) -> Sample:
    """What Prometheus' text format says of a pod's load at the time `at`. Raises ScrapeError."""
    sums: dict[bytes, float] = {}
    codes: dict[int, float] = {}
    buckets: dict[float, float] = {}
    compared: dict[bytes, dict[bytes, float]] = {_COMPARED: {}, _TAU: {}}
    for line in body.split(b"\n"):
        head, _, text = line.rpartition(b" ")
        name, _, labels = head.partition(b"{")
        if name not in _NAMES or _PARTS.get(name, b"") not in labels:
            continue
        if name in compared:
            other = _REVISION.search(labels)
            if other is not None and len(compared[name]) < _MOST_REVISIONS:
                compared[name][other[1]] = _number(text)
            continue
        value = _bounded(_number(text))
        if name == _BUCKETS:
            bound = _BOUND.search(labels)
            if bound is not None and len(buckets) < _MOST_BUCKETS:
                buckets[_number(bound[1])] = value
            continue
        sums[name] = sums.get(name, 0.0) + value
        if name == _REQUESTS and (found := _CODE.search(labels)):
            code = int(found[1])
            codes[code] = codes.get(code, 0.0) + value
    told = {_NAMES[name]: _bounded(value) for name, value in sums.items()}
    sample = _sample(told, codes, tuple(sorted(buckets.items())), at, role)
    return sample._replace(shadowed=_shadowed(compared[_COMPARED], compared[_TAU]))


def _shadowed(requests: Mapping[bytes, float], taus: Mapping[bytes, float]) -> tuple[Shadowed, ...]:
    """Of each revision that both are told of. Raises ScrapeError."""
    found = []
    for revision in sorted(requests.keys() & taus.keys()):
        count, tau = _bounded(requests[revision]), taus[revision]
        # No tau is beyond 1 or -1; a sum of many is a little off.
        if not abs(tau) <= count + 1e-6 * (1 + count):
            raise ScrapeError("malformed")
        if count >= 1:
            found.append(Shadowed(revision.decode(), count, tau))
    return tuple(found)


def _sample(
    told: Mapping[str, float],
    codes: Mapping[int, float],
    buckets: tuple[tuple[float, float], ...],
    at: float,
    role: Role,
) -> Sample:
    if (names.READY if role == "serving" else names.HELD) not in told:
        raise ScrapeError("malformed")
    # One without the counter is of an older version.
    failed = sum(count for code, count in codes.items() if code >= 500 and code != 503)
    speed = told.get(names.TOKENS_PER_SECOND, 0.0)
    backlog = told.get(names.BACKLOG_TOKENS, 0.0)
    if role == "activator":
        backlog = told.get(names.HELD_BYTES, 0.0) / _TOKEN_BYTES
    return Sample(
        at=at,
        ready=role == "activator" or told[names.READY] == 1.0,
        backlog_tokens=backlog,
        in_progress=told.get(names.IN_PROGRESS if role == "serving" else names.HELD, 0.0),
        tokens_per_second=speed if speed >= _LEAST_SPEED else 0.0,
        arrived_tokens=told.get(names.ARRIVED_TOKENS, 0.0),
        tokens=told.get(names.TOKENS, 0.0),
        busy_seconds=told.get(names.BUSY_SECONDS, 0.0),
        # What is refused for its caller's sake says nothing of the revision.
        requests=sum(count for code, count in codes.items() if code < 400 or code >= 500),
        refused=codes.get(429, 0.0),
        failed=told.get(names.FAILED, failed),
        queue_buckets=buckets,
        unanswered=told.get(names.SHADOW_REQUESTS, 0.0),
    )


def _bounded(value: float) -> float:
    if not 0.0 <= value <= _MOST:
        raise ScrapeError("malformed")
    return value if value >= _LEAST else 0.0


def _number(text: bytes) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ScrapeError("malformed") from None
    if math.isnan(number):
        raise ScrapeError("malformed")
    return number
