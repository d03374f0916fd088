"""The methods of `inference.GRPCInferenceService`, of the health and of the reflection service.

To the library all of them are streams of messages: it reads a single one before it calls a method,
without a limit of time, as many as there are calls. A stream of one message is the same on the
wire, but is read when there is room for it (`uploads`), and after the key was looked at.

Methods take and give bytes: a message that cannot be read is the caller's mistake and gets the
caller's status, instead of a traceback in the log.
"""

import asyncio
import logging
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2
from tritonclient.grpc import service_pb2

from reranker_gateway import VERSION
from reranker_gateway.api.dialects.base import Question
from reranker_gateway.api.inputs import tokenise
from reranker_gateway.api.middleware import Counts
from reranker_gateway.api.models import ModelNames
from reranker_gateway.callers import Callers
from reranker_gateway.clock import Clock
from reranker_gateway.drain import Drain, Phase
from reranker_gateway.errors import (
    BodyTooLargeError,
    DeadlineExceededError,
    GatewayError,
    InvalidRequestError,
    ModelNotFoundError,
)
from reranker_gateway.gateway import Gateway
from reranker_gateway.kserve import tensors
from reranker_gateway.kserve.calls import Calls, Context
from reranker_gateway.kserve.refusals import INTERNAL, Refusal
from reranker_gateway.kserve.uploads import Uploads
from reranker_gateway.logs import log_event
from reranker_gateway.request_context import (
    RequestContext,
    current_request,
    long_passages,
    request_context,
)
from reranker_gateway.settings import Settings
from reranker_gateway.shadow.samples import Sampling
from reranker_gateway.tokenise import TokenisedRequest
from reranker_gateway.tracing import Tracing, propagated, trace_id

KSERVE: Final = "inference.GRPCInferenceService"
HEALTH: Final = "grpc.health.v1.Health"
REFLECTION: Final = reflection.SERVICE_NAME
INFER: Final = f"/{KSERVE}/ModelInfer"
_MODEL_VERSION: Final = "1"
#: Messages that arrive at a time, of ModelInfer, and of all the others.
_UPLOADS: Final = 8
#: One message of a method that takes no texts.
_SMALL_BYTES: Final = 64 << 10
#: Calls without a key that may be in progress, and seconds for each to take its answer: probes take
#: a moment, and whoever holds on to them may be anybody.
_PROBES: Final = 64
_PROBE_SECONDS: Final = 5.0
Headers = list[tuple[bytes, bytes]]
_log = logging.getLogger("reranker_gateway.request")


class Parts(Protocol):
    """What a front needs of the program that it is part of."""

    @property
    def settings(self) -> Settings: ...  # noqa: D102
    @property
    def callers(self) -> Callers: ...  # noqa: D102
    @property
    def drain(self) -> Drain: ...  # noqa: D102
    @property
    def telemetry(self) -> Counts: ...  # noqa: D102


class Front(ABC):
    """The three services' methods, but for who scores."""

    def __init__(
        self,
        parts: Parts,
        names: ModelNames,
        clock: Clock = time.monotonic,
        tracing: Tracing | None = None,
    ) -> None:
        self._parts = parts
        self._names = names
        self._clock = clock
        self._tracing = tracing
        idle_seconds = parts.settings.read_idle_seconds
        self._uploads = Uploads(_UPLOADS, idle_seconds)
        # Of their own, so that probes need not wait for texts.
        self._small_uploads = Uploads(_UPLOADS, idle_seconds)
        self._reflection = reflection.aio.ReflectionServicer((KSERVE, HEALTH, REFLECTION))
        #: As NIM names its models here.
        self._ids = {_identifier(name): name for name in names.all} | {
            name: name for name in names.all
        }

    @property
    @abstractmethod
    def _ready(self) -> bool:
        """Whether requests are taken."""

    @abstractmethod
    async def _answer(self, context: Context) -> Any:
        """Reads the call's message and answers it: a message, or its bytes."""

    def handlers(self, most: int) -> list[Any]:
        """One generic handler per service, as grpc takes them; `most` calls at a time."""
        patience = self._parts.settings.read_timeout_seconds
        calls = Calls(most, patience)
        # Of their own, so that they take no place from those with a key.
        probes = Calls(min(most, _PROBES), min(patience, _PROBE_SECONDS))
        opened = partial(self._unary, probes, _host)
        keyed = partial(self._unary, calls, self._caller)
        kserve = {
            "ServerLive": opened(service_pb2.ServerLiveRequest, self._server_live),
            "ServerReady": opened(service_pb2.ServerReadyRequest, self._server_ready),
            "ModelReady": keyed(service_pb2.ModelReadyRequest, self._model_ready),
            "ServerMetadata": keyed(service_pb2.ServerMetadataRequest, self._server_metadata),
            "ModelMetadata": keyed(service_pb2.ModelMetadataRequest, self._model_metadata),
            "ModelInfer": grpc.stream_unary_rpc_method_handler(
                calls.bounded(partial(self._infer, calls)), response_serializer=_serialised
            ),
        }
        health = {"Check": opened(health_pb2.HealthCheckRequest, self._check)}
        reflected = {
            "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
                calls.bounded(partial(self._reflect, calls)), response_serializer=_serialised
            )
        }
        return [
            grpc.method_handlers_generic_handler(KSERVE, kserve),
            grpc.method_handlers_generic_handler(HEALTH, health),
            grpc.method_handlers_generic_handler(REFLECTION, reflected),
        ]

    def _caller(self, context: Context) -> str:
        """Raises UnauthorizedError."""
        return self._parts.callers.admit(f"/{KSERVE}", _headers(context))

    def _unary(
        self,
        calls: Calls,
        caller_of: Callable[[Context], str],
        kind: Any,
        answer: Callable[[Any], Any],
    ) -> Any:
        """A method of one small message."""

        async def method(_messages: Any, context: Context) -> Any:
            try:
                caller = caller_of(context)
                calls.enter(caller)
                data = await self._small(caller, context)
                if data is grpc.aio.EOF:
                    raise no_message()
                return answer(tensors.parse(kind, data))
            except GatewayError as error:
                return Refusal.of(error)

        return grpc.stream_unary_rpc_method_handler(
            calls.bounded(method), response_serializer=_serialised
        )

    async def _small(self, caller: str, context: Context) -> Any:
        """The next message, or EOF. Raises BodyTimeoutError, BodyTooLargeError."""
        data = await self._small_uploads.receive(caller, context.read)
        if data is not grpc.aio.EOF and len(data) > _SMALL_BYTES:
            raise BodyTooLargeError(
                f"the message has {len(data)} bytes, at most {_SMALL_BYTES} are allowed"
            )
        return data

    async def _reflect(self, calls: Calls, _messages: Any, context: Context) -> Refusal | None:
        """Answers each message of the stream before the next is read."""
        try:
            caller = self._caller(context)
            calls.enter(caller)
            while (data := await self._small(caller, context)) is not grpc.aio.EOF:
                request = tensors.parse(reflection_pb2.ServerReflectionRequest, data)
                async for answer in self._reflection.ServerReflectionInfo(_only(request), context):
                    async with asyncio.timeout(self._parts.settings.read_timeout_seconds):
                        await context.write(answer)
        except GatewayError as error:
            return Refusal.of(error)
        except TimeoutError:  # the client leaves its answers where they are
            pass
        return None

    def _server_live(self, _request: Any) -> Any:
        return service_pb2.ServerLiveResponse(live=True)

    def _server_ready(self, _request: Any) -> Any:
        return service_pb2.ServerReadyResponse(ready=self._ready)

    def _model_ready(self, request: Any) -> Any:
        return service_pb2.ModelReadyResponse(ready=self._ready and request.name in self._ids)

    def _server_metadata(self, _request: Any) -> Any:
        return service_pb2.ServerMetadataResponse(name="reranker-gateway", version=VERSION)

    def _model_metadata(self, request: Any) -> Any:
        self._check_model(request.name, request.version)
        response = service_pb2.ModelMetadataResponse(
            name=request.name, versions=[_MODEL_VERSION], platform="reranker"
        )
        for part, declared in (("inputs", tensors.INPUTS), ("outputs", tensors.OUTPUTS)):
            for name, (datatype, shape) in declared.items():
                getattr(response, part).add(name=name, datatype=datatype, shape=shape)
        return response

    def _check(self, request: Any) -> Any:
        if request.service not in {"", KSERVE}:
            raise ModelNotFoundError(f"service: {request.service[:100]!r} is not served here")
        states = health_pb2.HealthCheckResponse
        return states(status=states.SERVING if self._ready else states.NOT_SERVING)

    def _check_model(self, name: str, version: str) -> None:
        if name not in self._ids:
            raise ModelNotFoundError(
                f"model_name: {name[:128]!r} is not served here; use "
                f"{_identifier(self._names.served)!r}"
            )
        if version not in {"", _MODEL_VERSION}:
            raise ModelNotFoundError(f"model_version: there is only {_MODEL_VERSION}")

    async def _infer(self, calls: Calls, _messages: Any, context: Context) -> Any:
        """ModelInfer. grpc cancels this at the caller's deadline, and when the caller goes."""
        parts, headers, code = self._parts, _headers(context), 499
        request = RequestContext(
            request_id=uuid.uuid4().hex,
            dialect="grpc",
            trace=propagated(headers),
            began=self._clock(),
            began_ns=time.time_ns(),
        )
        parts.drain.enter()
        try:
            with request_context(request):
                answer = await self._in_time(calls, request, headers, context)
            code = 200
        except GatewayError as error:
            code, answer = error.status, Refusal.of(error)
        except Exception:
            code, answer = 500, INTERNAL
            _log.exception("internal error", extra={"fields": {"requestId": request.request_id}})
        finally:
            parts.drain.leave()
            request.ended = self._clock()
            self._record(request, code)
        metadata = (("x-request-id", request.request_id),)
        if isinstance(answer, Refusal):
            return replace(answer, metadata=metadata)
        truncated = ("x-truncated-passages", str(request.truncated))
        context.set_trailing_metadata((*metadata, truncated))
        return answer

    async def _in_time(
        self, calls: Calls, request: RequestContext, headers: Headers, context: Context
    ) -> Any:
        """Raises UnauthorizedError, OverloadedError.

        And DeadlineExceededError at the server's own limit.
        """
        request.caller = self._parts.callers.admit(INFER, headers)
        self._parts.drain.note(context.peer())
        calls.enter(request.caller)
        request.long_passages = long_passages(headers)
        limit = self._parts.settings.request_timeout_seconds
        try:
            async with asyncio.timeout(limit) as patience:
                return await self._answer(context)
        except TimeoutError:
            if not patience.expired():
                raise
            raise DeadlineExceededError(
                f"no answer within {limit:g} s; what had not been scored yet was dropped"
            ) from None

    def _record(self, request: RequestContext, code: int) -> None:
        seconds = request.ended - request.began
        self._parts.telemetry.answered(request, code)
        trace = trace_id(request.trace)
        log_event(
            _log,
            "request",
            requestId=request.request_id,
            path=INFER,
            dialect=request.dialect,
            caller=request.caller,
            code=code,
            seconds=round(seconds, 4),
            passages=request.passages,
            tokens=request.tokens,
            **({"traceId": trace} if trace else {}),
        )
        if self._tracing is not None:
            self._tracing.record(request, route=INFER, path=INFER, code=code)


class Service(Front):
    """Answers them for one gateway."""

    def __init__(self, gateway: Gateway, names: ModelNames, clock: Clock = time.monotonic) -> None:
        super().__init__(gateway, names, clock, gateway.tracing)
        self._gateway = gateway

    @property
    def _ready(self) -> bool:
        gateway = self._gateway
        return gateway.readiness.ready and gateway.drain.phase is Phase.SERVING

    async def _answer(self, context: Context) -> Any:
        scorer = self._gateway.scorer
        scorer.check_open()
        with self._gateway.admission.enter() as entry, Sampling(self._gateway.samples) as kept:
            # By `context`: the iterator of messages would hold this one until the call's end.
            data = await self._uploads.receive(current_request().caller, context.read)
            if data is grpc.aio.EOF:
                raise no_message()
            entry.add(len(data))
            entry.arrived()
            question, reply = self._read(data)
            inputs = await tokenise(scorer, question)
            kept.take(question)
            # The texts are in both.
            del data, question
            entry.tokenised()
            scores = await scorer.score(inputs)
            answer = tensors.answer(reply, scores.logits, _tokens(inputs), _MODEL_VERSION)
            kept.answered(scores.logits)
        return answer

    def _read(self, data: bytes) -> tuple[Question, tensors.Reply]:
        """What is asked, and what the answer repeats of it.

        A function of its own, so that the message with all that it holds ends with it.
        """
        settings = self._gateway.settings
        tensors.check_structure(data)
        request = tensors.parse(service_pb2.ModelInferRequest, data)
        self._check_model(request.model_name, request.model_version)
        question = tensors.question_of(request, settings.truncate, settings.max_passages)
        return question, tensors.reply_to(request)


async def _only(message: Any) -> AsyncIterator[Any]:
    yield message


def no_message() -> InvalidRequestError:
    """For a call that ended before its message."""
    return InvalidRequestError("the call ended without a message")


def _headers(context: Context) -> Headers:
    """The call's metadata as HTTP headers."""
    return [
        (name.encode(), value if isinstance(value, bytes) else value.encode())
        for name, value in context.invocation_metadata() or ()
    ]


def _host(context: Context) -> str:
    """Where a call without a key comes from, without the port."""
    return str(context.peer()).rpartition(":")[0]


def _tokens(inputs: TokenisedRequest) -> list[int]:
    """Of each passage, all its windows together."""
    if inputs.owners is None:
        return inputs.lengths
    counts = [0] * inputs.passages
    for owner, length in zip(inputs.owners, inputs.lengths, strict=True):
        counts[owner] += length
    return counts


def _serialised(message: Any) -> bytes:
    return message if isinstance(message, bytes) else bytes(message.SerializeToString())


def _identifier(name: str) -> str:
    return name.translate(str.maketrans("/.-", "___"))
