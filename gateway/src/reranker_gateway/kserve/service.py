"""The methods of `inference.GRPCInferenceService`, and of the standard health service.

Methods take and give bytes: a message that cannot be read is the caller's mistake and gets the
caller's status, instead of a traceback in the log.
"""

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2
from tritonclient.grpc import service_pb2

from reranker_gateway import VERSION
from reranker_gateway.api.inputs import tokenise
from reranker_gateway.api.models import ModelNames
from reranker_gateway.clock import Clock
from reranker_gateway.drain import Phase
from reranker_gateway.errors import GatewayError, InvalidRequestError, ModelNotFoundError
from reranker_gateway.gateway import Gateway
from reranker_gateway.kserve import tensors
from reranker_gateway.kserve.uploads import Uploads
from reranker_gateway.logs import log_event

KSERVE: Final = "inference.GRPCInferenceService"
HEALTH: Final = "grpc.health.v1.Health"
_MODEL_VERSION: Final = "1"
_STATUS: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
Context = Any  # grpc.aio.ServicerContext, which has no types
_log = logging.getLogger("reranker_gateway.request")


@dataclass(frozen=True)
class _Refusal:
    """What is told to a caller in place of an answer."""

    status: grpc.StatusCode
    message: str
    retry_after: int | None = None

    @classmethod
    def of(cls, error: GatewayError) -> "_Refusal":
        status = _STATUS.get(error.status, grpc.StatusCode.INTERNAL)
        return cls(status, error.message, error.retry_after)

    async def abort(self, context: Context, *metadata: tuple[str, str]) -> NoReturn:
        """End the call."""
        later = () if self.retry_after is None else (("retry-after", str(self.retry_after)),)
        await context.abort(self.status, self.message, (*metadata, *later))
        raise AssertionError  # pragma: no cover (abort raises)


_INTERNAL: Final = _Refusal(
    grpc.StatusCode.INTERNAL, "internal error; the server's log has the cause under x-request-id"
)


class Service:
    """Answers both services' methods for one gateway."""

    def __init__(
        self, gateway: Gateway, names: ModelNames, uploads: Uploads, clock: Clock = time.monotonic
    ) -> None:
        self._gateway = gateway
        self._names = names
        self._uploads = uploads
        self._clock = clock
        #: As NIM names its models here.
        self._ids = {_identifier(name): name for name in names.all} | {
            name: name for name in names.all
        }

    def handlers(self) -> list[Any]:
        """One generic handler per service, as grpc takes them."""
        kserve = {
            "ServerLive": self._unary(service_pb2.ServerLiveRequest, self._server_live),
            "ServerReady": self._unary(service_pb2.ServerReadyRequest, self._server_ready),
            "ModelReady": self._unary(service_pb2.ModelReadyRequest, self._model_ready),
            "ServerMetadata": self._unary(service_pb2.ServerMetadataRequest, self._server_metadata),
            "ModelMetadata": self._unary(service_pb2.ModelMetadataRequest, self._model_metadata),
            # A stream of one message on the wire is the same as a single one; but here it is read
            # when there is room for it.
            "ModelInfer": grpc.stream_unary_rpc_method_handler(
                self._infer, response_serializer=_serialised
            ),
        }
        health = {"Check": self._unary(health_pb2.HealthCheckRequest, self._check)}
        return [
            grpc.method_handlers_generic_handler(KSERVE, kserve),
            grpc.method_handlers_generic_handler(HEALTH, health),
        ]

    @staticmethod
    def _unary(kind: Any, answer: Callable[[Any], Any]) -> Any:
        async def method(data: bytes, context: Context) -> Any:
            try:
                return answer(tensors.parse(kind, data))
            except GatewayError as error:
                refusal = _Refusal.of(error)
            return await refusal.abort(context)

        return grpc.unary_unary_rpc_method_handler(method, response_serializer=_serialised)

    @property
    def _ready(self) -> bool:
        gateway = self._gateway
        return gateway.readiness.ready and gateway.drain.phase is Phase.SERVING

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

    async def _infer(self, _messages: Any, context: Context) -> Any:
        """ModelInfer. grpc cancels this at the caller's deadline, and when the caller goes."""
        gateway, request_id = self._gateway, uuid.uuid4().hex
        started, code, counted = self._clock(), 499, (0, 0)
        response, refusal = None, None
        gateway.drain.enter()
        try:
            response, counted = await self._answer(context)
            code = 200
        except GatewayError as error:
            # Without the error itself: its traceback holds the message for as long as it lives.
            code, refusal = error.status, _Refusal.of(error)
        except Exception:
            code, refusal = 500, _INTERNAL
            _log.exception("internal error", extra={"fields": {"requestId": request_id}})
        finally:
            gateway.drain.leave()
            self._record(request_id, code, self._clock() - started, counted)
        if refusal is not None:
            await refusal.abort(context, ("x-request-id", request_id))
        context.set_trailing_metadata((("x-request-id", request_id),))
        return response

    async def _answer(self, context: Context) -> tuple[Any, tuple[int, int]]:
        """The answer; passages and tokens."""
        scorer, settings = self._gateway.scorer, self._gateway.settings
        scorer.check_open()
        with self._gateway.admission.enter() as entry:
            # By `context`: the iterator of messages would hold this one until the call's end.
            data = await self._uploads.receive(context.read())
            if data is grpc.aio.EOF:
                raise InvalidRequestError("the call ended without a message")
            entry.add(len(data))
            entry.arrived()
            request = tensors.parse(service_pb2.ModelInferRequest, data)
            self._check_model(request.model_name, request.model_version)
            question = tensors.question_of(request, settings.truncate, settings.max_passages)
            inputs = await tokenise(scorer, question)
            # The texts are in all of these.
            del data, question
            request.ClearField("inputs")
            request.ClearField("raw_input_contents")
            entry.tokenised()
            scores = await scorer.score(inputs)
        response = tensors.answer(
            request, request.model_name, scores.logits, inputs.lengths, _MODEL_VERSION
        )
        return response, (len(scores.logits), scores.tokens)

    def _record(self, request_id: str, code: int, seconds: float, counted: tuple[int, int]) -> None:
        self._gateway.telemetry.requests.labels(str(code)).inc()
        self._gateway.telemetry.request_seconds.observe(seconds)
        log_event(
            _log,
            "request",
            requestId=request_id,
            path=f"/{KSERVE}/ModelInfer",
            dialect="grpc",
            code=code,
            seconds=round(seconds, 4),
            passages=counted[0],
            tokens=counted[1],
        )


def _serialised(message: Any) -> bytes:
    return bytes(message.SerializeToString())


def _identifier(name: str) -> str:
    return name.translate(str.maketrans("/.-", "___"))
