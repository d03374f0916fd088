"""A bounded stream of requests that counts every answer."""

import http.client
import json
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import urlparse


@dataclass
class Count:
    """What came back. `failures` holds one line for each request that was not answered with 200."""

    answered: int = 0
    scores: set[tuple[int, ...]] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)


class Traffic:
    """Two clients, one with kept-alive connections, the other with a new one each time.

    They pause a little between requests: the point is to meet every moment of a rollout, not to
    load the machine. They end by themselves after `at_most` requests.
    """

    def __init__(self, url: str, body: dict[str, object], *, at_most: int = 20_000) -> None:
        self.count = Count()
        self._url, self._body, self._left = urlparse(url), json.dumps(body), at_most
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(keep,), daemon=True) for keep in (True, False)
        ]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)

    def _run(self, keep: bool) -> None:
        connection = self._connect()
        while not self._stop.is_set() and self._left > 0:
            self._left -= 1
            try:
                connection.request(
                    "POST", "/v1/ranking", self._body, {"Content-Type": "application/json"}
                )
                answer = connection.getresponse()
                self._record(answer.status, answer.read())
                if not keep or answer.will_close:
                    connection.close()
                    connection = self._connect()
            except (OSError, http.client.HTTPException) as error:
                self._fail(f"{time.strftime('%H:%M:%S')} {type(error).__name__}: {error}")
                connection.close()
                connection = self._connect()
            self._stop.wait(0.02)
        connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._url.hostname or "", self._url.port, timeout=30)

    def _record(self, status: int, body: bytes) -> None:
        if status != 200:
            self._fail(f"{time.strftime('%H:%M:%S')} {status} {body[:200]!r}")
            return
        order = tuple(row["index"] for row in json.loads(body)["rankings"])
        with self._lock:
            self.count.answered += 1
            self.count.scores.add(order)

    def _fail(self, line: str) -> None:
        with self._lock:
            self.count.failures.append(line)
