"""An open-loop client that counts what became of every request.

Requests begin at moments drawn beforehand (a Poisson process from a fixed seed), whether or not
former ones were answered: a server that stalls meets the same requests as one that does not, and
the stall is in the latencies. Four kinds take turns: HTTP and gRPC, each on kept connections and on
a new one for each request. Number, time and requests in flight are bounded.

Nothing is tried again here, neither by us nor by the libraries. A request is

- ok: 200 in time, and the scores are those that a revision gives for this very request;
- refused: 429 or 503 (gRPC: RESOURCE_EXHAUSTED, UNAVAILABLE by the server's word) with
  Retry-After: a client may come again. Without overload there should be none;
- failed: everything else, also a refusal without Retry-After, a reset connection, a wrong score,
  and what could not be sent because too many were in flight.
"""

import asyncio
import json
import math
import random
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Literal

import grpc
import grpc.aio
import httpx
from tritonclient.grpc import service_pb2, service_pb2_grpc

Kind = Literal["http kept", "http new", "grpc kept", "grpc new"]
KINDS: Final[tuple[Kind, ...]] = ("http kept", "http new", "grpc kept", "grpc new")
#: Logits by passage, in the order asked.
Scores = tuple[float, ...]
#: Of one model on one machine; batches differ in shape, and so in the last digits.
_TOLERANCE: Final = 1e-3
_TIMEOUT: Final = 30.0
#: Of the gateway's outputs over gRPC.
_LAYOUT: Final = {"index": "<i", "logit": "<f", "token_count": "<i"}
_REFUSALS: Final = frozenset({grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE})


@dataclass(frozen=True)
class Question:
    """One request, for both protocols."""

    model: str
    query: str
    passages: tuple[str, ...]

    @property
    def body(self) -> bytes:
        """As NIM takes it."""
        request = {
            "model": self.model,
            "query": {"text": self.query},
            "passages": [{"text": text} for text in self.passages],
        }
        return json.dumps(request).encode()

    @property
    def message(self) -> Any:
        """As KServe takes it."""
        rows = len(self.passages)
        request = service_pb2.ModelInferRequest(model_name=self.model)
        for name, texts in (("query", [self.query] * rows), ("passage", self.passages)):
            request.inputs.add(name=name, datatype="BYTES", shape=[rows, 1])
            packed = [struct.pack("<I", len(text.encode())) + text.encode() for text in texts]
            request.raw_input_contents.append(b"".join(packed))
        return request


@dataclass(frozen=True)
class Sent:
    """What became of one request. `began` is in seconds of `time.monotonic`."""

    question: Question
    kind: Kind
    began: float
    seconds: float
    #: None when there was no whole answer.
    scores: Scores | None = None
    refused: bool = False
    why: str = ""


@dataclass
class Count:
    """The requests of one scenario, judged."""

    sent: list[Sent]
    #: Scores that a revision gives, for each question.
    known: Mapping[Question, Sequence[Scores]]
    failures: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.failures = [
            f"{sent.kind}: {sent.why or f'wrong scores {sent.scores}'} ({sent.seconds:.3f} s)"
            for sent in self.sent
            if not sent.refused and not self._is_right(sent)
        ]

    @property
    def ok(self) -> int:
        """Answered, with the scores of a known revision."""
        return len(self.sent) - len(self.failures) - len(self.refusals)

    @property
    def refusals(self) -> list[str]:
        """Those that a client may repeat."""
        return [f"{sent.kind}: {sent.why}" for sent in self.sent if sent.refused]

    def different(self, question: Question) -> int:
        """How many different answers this question got."""
        found: list[Scores] = []
        for sent in self.sent:
            scores = sent.scores if sent.question == question else None
            if scores and not any(is_close(scores, other) for other in found):
                found.append(scores)
        return len(found)

    def percentile_ms(self, share: float) -> float:
        """Latency of the answered ones; NaN when there are none."""
        found = sorted(sent.seconds for sent in self.sent if sent.scores is not None)
        if not found:
            return math.nan
        return 1000 * found[min(len(found) - 1, math.ceil(share * len(found)) - 1)]

    def _is_right(self, sent: Sent) -> bool:
        return sent.scores is not None and any(
            is_close(sent.scores, scores) for scores in self.known[sent.question]
        )


def is_close(one: Scores, other: Scores) -> bool:
    """The same model's, whatever batches they were in."""
    return len(one) == len(other) and all(
        math.isclose(a, b, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
        for a, b in zip(one, other, strict=True)
    )


class Traffic:
    """Poisson arrivals at `address`, a host without scheme, from enter to exit.

    `per_second` may be a function of the seconds since then.
    """

    def __init__(
        self,
        address: str,
        questions: Sequence[Question],
        *,
        per_second: float | Callable[[float], float],
        kinds: Sequence[Kind] = KINDS,
        at_most: int = 60_000,
        most_in_flight: int = 256,
        seconds: float = 900,
        seed: int = 7,
        http_port: int = 8000,
        grpc_port: int = 8001,
    ) -> None:
        self.sent: list[Sent] = []
        self._url = f"http://{address}:{http_port}/v1/ranking"
        self._target = f"{address}:{grpc_port}"
        self._questions, self._kinds = list(questions), list(kinds)
        self._rate = per_second if callable(per_second) else lambda _: per_second
        self._at_most, self._seconds, self._most = at_most, seconds, most_in_flight
        self._random = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._thread.join(timeout=2 * _TIMEOUT)

    @property
    def is_running(self) -> bool:
        """Whether there are requests to come, or in flight."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Send no further requests."""
        self._stop.set()

    def finish(self) -> None:
        """Wait until `at_most` requests were sent, or the time is over, and all were answered."""
        self._thread.join(timeout=self._seconds + 2 * _TIMEOUT)

    def between(self, begin: float, end: float) -> list[Sent]:
        """The requests that began in this time and have ended."""
        return [sent for sent in tuple(self.sent) if begin <= sent.began < end]

    async def _run(self) -> None:
        clients = _Clients(self._url, self._target)
        running: set[asyncio.Task[None]] = set()
        started = due = time.monotonic()
        try:
            for number in range(self._at_most):
                due += self._random.expovariate(self._rate(due - started))
                await asyncio.sleep(due - time.monotonic())
                if self._stop.is_set() or due - started > self._seconds:
                    break
                question = self._questions[number % len(self._questions)]
                kind = self._kinds[self._random.randrange(len(self._kinds))]
                if len(running) >= self._most:
                    why = f"{self._most} requests in flight"
                    self.sent.append(Sent(question, kind, time.monotonic(), 0.0, why=why))
                    continue
                task = asyncio.create_task(self._ask(clients, question, kind))
                running.add(task)
                task.add_done_callback(running.discard)
            if running:
                await asyncio.wait(running)
        finally:
            await clients.close()

    async def _ask(self, clients: "_Clients", question: Question, kind: Kind) -> None:
        began = time.monotonic()
        scores, refused, why = await clients.ask(question, kind)
        seconds = time.monotonic() - began
        self.sent.append(Sent(question, kind, began, seconds, scores, refused, why))


_Outcome = tuple[Scores | None, bool, str]


class _Clients:
    """The connections of one client program."""

    def __init__(self, url: str, target: str) -> None:
        self._url, self._target = url, target
        self._http: dict[Kind, httpx.AsyncClient] = {
            "http kept": _http(httpx.Limits(max_connections=None, max_keepalive_connections=8)),
            "http new": _http(httpx.Limits(max_connections=None, max_keepalive_connections=0)),
        }
        self._channel = _channel(target)

    async def close(self) -> None:
        for client in self._http.values():
            await client.aclose()
        await self._channel.close()

    async def ask(self, question: Question, kind: Kind) -> _Outcome:
        """Scores, whether it was refused, and what went wrong."""
        if kind in self._http:
            return await _post(self._http[kind], self._url, question)
        if kind == "grpc kept":
            return await _infer(self._channel, question)
        async with _channel(self._target) as channel:
            return await _infer(channel, question)


def _http(limits: httpx.Limits) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(limits=limits, retries=0, trust_env=False)
    return httpx.AsyncClient(transport=transport, timeout=_TIMEOUT)


def _channel(target: str) -> Any:
    return grpc.aio.insecure_channel(
        target,
        options=[
            ("grpc.enable_retries", 0),
            # Channels of one process share connections to one address otherwise.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
        ],
    )


async def _post(client: httpx.AsyncClient, url: str, question: Question) -> _Outcome:
    headers = {"Content-Type": "application/json"}
    try:
        answer = await client.post(url, content=question.body, headers=headers)
    except httpx.HTTPError as error:
        return None, False, f"{type(error).__name__}: {error}"
    if answer.status_code != 200:
        refused = answer.status_code in {429, 503} and "retry-after" in answer.headers
        return None, refused, f"{answer.status_code} {answer.text[:200]}"
    try:
        rows = {row["index"]: row["logit"] for row in answer.json()["rankings"]}
        return _in_order(rows, len(question.passages)), False, ""
    except (ValueError, KeyError, TypeError) as error:
        return None, False, f"not an answer: {type(error).__name__}: {error}"


async def _infer(channel: Any, question: Question) -> _Outcome:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    try:
        answer = await stub.ModelInfer(question.message, timeout=_TIMEOUT)
    except grpc.aio.AioRpcError as error:
        told = dict(error.trailing_metadata() or ())
        refused = error.code() in _REFUSALS and "retry-after" in told
        return None, refused, f"{error.code().name} {error.details()}"
    try:
        values = {
            output.name: [entry[0] for entry in struct.iter_unpack(_LAYOUT[output.name], content)]
            for output, content in zip(answer.outputs, answer.raw_output_contents, strict=True)
        }
        rows = dict(zip(values["index"], values["logit"], strict=True))
        return _in_order(rows, len(question.passages)), False, ""
    except (ValueError, KeyError, struct.error) as error:
        return None, False, f"not an answer: {type(error).__name__}: {error}"


def _in_order(rows: Mapping[int, float], passages: int) -> Scores:
    """Raises ValueError unless each passage has one score."""
    if sorted(rows) != list(range(passages)):
        raise ValueError(f"scores of {sorted(rows)}, not of {passages} passages")
    return tuple(rows[index] for index in range(passages))


def scores_of(address: str, questions: Sequence[Question], **ports: int) -> dict[Question, Scores]:
    """What the server at `address` answers now. Raises AssertionError unless all are answered."""
    with Traffic(address, questions, per_second=50, kinds=["http new"], at_most=len(questions),
                 **ports) as traffic:  # fmt: skip
        traffic.finish()
    found = {sent.question: sent.scores for sent in traffic.sent if sent.scores is not None}
    assert found.keys() == set(questions), [sent.why for sent in traffic.sent]
    return found


TABLE_HEAD: Final = (
    "| change | requests | ok | refused | failed | p50 ms | p99 ms | longest ms |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|"
)


def table_row(change: str, count: Count) -> str:
    """For the documentation."""
    latencies = (f"{count.percentile_ms(share):.0f}" for share in (0.5, 0.99, 1))
    numbers = (len(count.sent), count.ok, len(count.refusals), len(count.failures), *latencies)
    return f"| {change} | " + " | ".join(map(str, numbers)) + " |"
