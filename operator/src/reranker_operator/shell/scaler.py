"""KEDA's external scaler over gRPC: whether a service is in use, and how much work its pods have.

Each replica of the operator answers. The leader has the pods in memory and reads those of services
that it scales itself all the time; a standby asks the API server, and either reads pods when it is
asked. So it does not matter where KEDA's one connection leads, and none moves with the Lease.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import grpc
import grpc.aio

from reranker_operator import names
from reranker_operator.adapters.cluster import Cluster
from reranker_operator.api.meta import POD, RERANKER_SERVICE
from reranker_operator.core import external
from reranker_operator.core.external import Outside, Target, UnclearError
from reranker_operator.core.signals import signals
from reranker_operator.errors import Forbidden, NotFound, OperatorError
from reranker_operator.runtime.loads import GOOD_SECONDS, Loads
from reranker_operator.runtime.queue import Key
from reranker_operator.shell import externalscaler_pb2 as pb
from reranker_operator.shell.crowd import Crowd, FullError

logger = logging.getLogger(__name__)

SERVICE: Final = "externalscaler.ExternalScaler"
#: Seconds between two looks for those who want to be told.
_TELL_SECONDS: Final = 2.0
#: Seconds after which a rate is known that was not: reads in between would be the former one.
_RATE_SECONDS: Final = GOOD_SECONDS + 0.1
_MOST_BYTES: Final = 64 << 10
#: KEDA has one connection for all that have the same address, and a stream for each push trigger.
#: Streams and questions each: who has all of the ones keeps nobody from the others.
_MOST_OF_A_KIND: Final = 512
#: Some more than there are places, so that it is decided here who has to make room.
_MOST_CALLS: Final = 3 * _MOST_OF_A_KIND
#: Questions to the API server at the same time: what anybody asks here must not fill its queues.
_ABREAST: Final = 8
#: Answers that are kept for the next one who asks. Questions that have no answer yet are as many as
#: there are calls at most.
_MOST_KEPT: Final = 1024

_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

Context = Any
T = TypeVar("T")


class _Refusal(Exception):  # noqa: N818 - an answer
    """What the caller is told."""

    def __init__(self, code: Any, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(eq=False)
class _Question:
    """One that may have been asked by several."""

    asked: float
    answer: asyncio.Future[object]
    waiting: int = 0

    def serves(self, now: float) -> bool:
        """Its answer is to come, or good enough."""
        return not self.answer.done() or 0 <= now - self.asked <= GOOD_SECONDS


class Scaler:
    """The four methods. `cluster` gives whatever is best to ask at the moment."""

    def __init__(
        self,
        cluster: Callable[[], Cluster],
        loads: Loads,
        wall: Callable[[], float],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._cluster = cluster
        self._loads = loads
        self._wall = wall
        self._sleep = sleep
        self._places = asyncio.Semaphore(_ABREAST)
        self._asked: dict[tuple[str, str, str], _Question] = {}
        self._streams, self._calls = Crowd(_MOST_OF_A_KIND), Crowd(_MOST_OF_A_KIND)

    def handlers(self) -> tuple[Any, ...]:
        """For `grpc.aio.Server.add_generic_rpc_handlers`."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        reference = pb.ScaledObjectRef.FromString
        methods = {
            "IsActive": unary(self._guarded(self._is_active), reference, _serialised),
            "StreamIsActive": stream(self._stream_is_active, reference, _serialised),
            "GetMetricSpec": unary(self._guarded(self._spec), reference, _serialised),
            "GetMetrics": unary(
                self._guarded(self._metrics), pb.GetMetricsRequest.FromString, _serialised
            ),
        }
        return (grpc.method_handlers_generic_handler(SERVICE, methods),)

    async def _is_active(self, asked: Any) -> Any:
        return pb.IsActiveResponse(result=(await self._look(asked, _target(asked))).active)

    async def _stream_is_active(self, asked: Any, context: Context) -> AsyncIterator[Any]:
        """At once, and whenever it changes; what can't be seen for a while changes nothing."""
        try:
            with self._streams.place(context.peer()):
                async for told in self._changes(asked, context):
                    yield told
        except FullError:
            await context.abort(*_full("streams"))

    async def _changes(self, asked: Any, context: Context) -> AsyncIterator[Any]:
        told: bool | None = None
        while True:
            try:
                active = (await self._look(asked, _target(asked))).active
            except _Refusal as refusal:
                if told is None or refusal.code != grpc.StatusCode.UNAVAILABLE:
                    await context.abort(refusal.code, str(refusal))
            else:
                if active != told:
                    told = active
                    yield pb.IsActiveResponse(result=active)
            await self._sleep(_TELL_SECONDS)

    async def _spec(self, asked: Any) -> Any:
        target = _target(asked)
        await self._check(asked.namespace, target.service)
        specs = [
            pb.MetricSpec(
                metricName=name,
                targetSize=max(1, round(target.of(name))),
                targetSizeFloat=target.of(name),
            )
            for name in (external.BACKLOG, external.UTILIZATION)
        ]
        return pb.GetMetricSpecResponse(metricSpecs=specs)

    async def _metrics(self, request: Any) -> Any:
        asked, name = request.scaledObjectRef, request.metricName
        target = _target(asked)
        _understood(lambda: target.of(name))
        outside = await self._look(asked, target)
        value = outside.value(name, target)
        if value is None and outside.signals.known:
            await self._sleep(_RATE_SECONDS)
            outside = await self._look(asked, target)
            value = outside.value(name, target)
        if value is None:
            raise _Refusal(
                grpc.StatusCode.UNAVAILABLE,
                f"of {outside.pods} pods of {target.service} none is ready and can be read",
            )
        found = pb.MetricValue(metricName=name, metricValue=round(value), metricValueFloat=value)
        return pb.GetMetricsResponse(metricValues=[found])

    async def _look(self, asked: Any, target: Target) -> Outside:
        key = "look", asked.namespace, target.service
        return cast(Outside, await self._shared(key, self._see))

    async def _see(self, namespace: str, service: str) -> Outside:
        await self._ask_whether(namespace, service)
        mine = {names.SERVICE_LABEL: service}
        async with self._places:
            pods = await _answered(self._cluster().list(POD, namespace, mine))
        pods = [pod for pod in pods if pod["metadata"].get("ownerReferences")]
        loads = await self._loads.ask(Key(RERANKER_SERVICE.kind, namespace, service), pods)
        return Outside(signals(loads, self._wall()), external.serving(pods))

    async def _check(self, namespace: str, service: str) -> None:
        await self._shared(("check", namespace, service), self._ask_whether)

    async def _shared(
        self, key: tuple[str, str, str], question: Callable[[str, str], Awaitable[object]]
    ) -> object:
        """The answer to all who ask the same at about the same time: anybody may, and often."""
        now = self._wall()
        found = self._asked.get(key)
        if found is None or not found.serves(now):
            if len(self._asked) >= _MOST_KEPT:
                self._asked = {
                    other: kept for other, kept in self._asked.items() if not kept.answer.done()
                }
            found = _Question(now, asyncio.ensure_future(question(*key[1:])))
            # Whoever asked may have hung up: then nobody hears of an error.
            found.answer.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._asked[key] = found
        found.waiting += 1
        try:
            return await asyncio.shield(found.answer)
        finally:
            found.waiting -= 1
            if not found.waiting and not found.answer.done():
                # All have hung up, and the API server may take its time.
                found.answer.cancel()
                del self._asked[key]

    def _guarded(
        self, method: Callable[[Any], Awaitable[Any]]
    ) -> Callable[[Any, Context], Awaitable[Any]]:
        async def answer(request: Any, context: Context) -> Any:
            try:
                with self._calls.place(context.peer()):
                    return await method(request)
            except FullError:
                await context.abort(*_full("questions"))
            except _Refusal as refusal:
                await context.abort(refusal.code, str(refusal))
            except Exception:
                logger.exception("an answer to KEDA failed")
                text = "internal error; see the operator's log"
                await context.abort(grpc.StatusCode.INTERNAL, text)

        return answer

    async def _ask_whether(self, namespace: str, service: str) -> None:
        """There is such a service, and it is scaled from outside."""
        async with self._places:
            found = await _answered(self._cluster().get(RERANKER_SERVICE, namespace, service))
        if (found.get("spec") or {}).get("autoscaling") is not None:
            raise _Refusal(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"RerankerService {service} has spec.autoscaling: the operator decides the number "
                "of its pods; remove that field, or the ScaledObject",
            )


def _full(what: str) -> tuple[Any, str]:
    text = (
        f"{_MOST_OF_A_KIND} {what} at a time are the most that are answered, and who has most of "
        "them must make room for others; ask again later"
    )
    return grpc.StatusCode.RESOURCE_EXHAUSTED, text


def _target(asked: Any) -> Target:
    if not _NAMESPACE.fullmatch(asked.namespace):
        raise _Refusal(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"namespace: {asked.namespace[:100]!r} is not that of a ScaledObject",
        )
    return _understood(lambda: external.read(dict(asked.scalerMetadata)))


def _understood(read: Callable[[], T]) -> T:
    try:
        return read()
    except UnclearError as error:
        raise _Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from None


async def _answered(question: Awaitable[T]) -> T:
    """What the API server says, or why the caller does not hear it."""
    code = grpc.StatusCode
    try:
        return await question
    except NotFound as error:
        raise _Refusal(
            code.NOT_FOUND, f"{error}; it must be in the ScaledObject's namespace"
        ) from None
    except Forbidden as error:
        raise _Refusal(
            code.PERMISSION_DENIED, f"{error}; the operator may not watch this namespace"
        ) from None
    except OperatorError as error:
        raise _Refusal(code.UNAVAILABLE, str(error)) from None


def _serialised(message: Any) -> bytes:
    return bytes(message.SerializeToString())


async def serve(scaler: Scaler, port: int, host: str = "[::]") -> Any:
    """Listen; the caller stops the server. `port` 0 takes a free one, told as `server.port`."""
    server = grpc.aio.server(
        maximum_concurrent_rpcs=_MOST_CALLS,
        options=[
            ("grpc.max_receive_message_length", _MOST_BYTES),
            ("grpc.max_metadata_size", 16 << 10),
            ("grpc.max_concurrent_streams", _MOST_CALLS),
            ("grpc.compression_enabled_algorithms_bitset", 1),
            ("grpc.so_reuseport", 0),
        ],
    )
    server.add_generic_rpc_handlers(scaler.handlers())
    server.port = server.add_insecure_port(f"{host}:{port}")
    await server.start()
    return server
