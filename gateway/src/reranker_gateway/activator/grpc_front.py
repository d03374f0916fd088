"""gRPC of the activator: ModelInfer waits for a pod; all else is answered here and wakes nobody."""

import asyncio
import time
from typing import Any, Final

import grpc
import grpc.aio

from reranker_gateway.activator.answers import PIECE_BYTES, Room
from reranker_gateway.activator.app import Activator
from reranker_gateway.activator.hold import NotTakenError
from reranker_gateway.clock import Clock
from reranker_gateway.drain import Phase
from reranker_gateway.errors import GatewayError, NotReadyError, OverloadedError
from reranker_gateway.kserve.calls import Context
from reranker_gateway.kserve.refusals import STATUS
from reranker_gateway.kserve.service import INFER, Front, no_message
from reranker_gateway.request_context import current_request

#: Metadata of the call that are of this connection only, or made anew.
_NOT_HANDED_ON: Final = frozenset({"user-agent", "te", "content-type", "grpc-accept-encoding"})
#: What a status of a pod's is over HTTP; the last one of those that are told alike.
_HTTP: Final = {status: code for code, status in STATUS.items()}
#: A node that vanished says nothing.
_KEEPALIVE_MS: Final = 20_000
_TRUNCATED: Final = "x-truncated-passages"


class PodError(GatewayError):
    """What a pod said of a call, handed on."""

    def __init__(self, message: str, status: int, retry_after: int | None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class HoldingFront(Front):
    """The gateway's methods, while no pod serves."""

    def __init__(self, activator: Activator, address: str, clock: Clock = time.monotonic) -> None:
        """`address`: host:port of the pods."""
        super().__init__(activator, activator.names, clock)
        self._activator = activator
        self._address = address

    @property
    def _ready(self) -> bool:
        """As over HTTP: requests are taken."""
        return self._activator.drain.phase is Phase.SERVING

    async def _answer(self, context: Context) -> Any:
        activator = self._activator
        if activator.drain.phase is Phase.CLOSED:
            raise NotReadyError("the server is shutting down; retry on another replica")
        patience = self._patience(context)
        activator.hold.check(patience)
        with activator.admitting() as entry:
            data = await self._uploads.receive(current_request().caller, context.read)
            if data is grpc.aio.EOF:
                raise no_message()
            entry.add(len(data))
            entry.arrived()
            answer = await activator.hold.deliver(
                lambda: self._attempt(context, data), self._patience(context)
            )
            _keep(activator.room, len(answer))
            return answer

    def _patience(self, context: Context) -> float | None:
        limits = (context.time_remaining(), self._activator.settings.request_timeout_seconds)
        return min((limit for limit in limits if limit is not None), default=None)

    async def _attempt(self, context: Context, data: bytes) -> bytes:
        """The same call to a pod. Raises NotTakenError, PodError."""
        metadata = [
            (name, value)
            for name, value in context.invocation_metadata() or ()
            if name not in _NOT_HANDED_ON
        ]
        left, longest = context.time_remaining(), self._activator.backend.answer_seconds
        async with self._channel() as channel:
            call = channel.unary_unary(INFER)(
                data, metadata=metadata, timeout=longest if left is None else min(left, longest)
            )
            try:
                answer: bytes = await call
                self._note(await call.trailing_metadata())
            except grpc.aio.AioRpcError as error:
                late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                if late and (left is None or left > longest):
                    raise NotTakenError(None) from None
                raise _told(error) from None
            except asyncio.CancelledError:
                call.cancel()
                raise
            return answer

    def _channel(self) -> Any:
        """A connection of its own, as over HTTP."""
        backend = self._activator.backend
        options: list[tuple[str, Any]] = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_MS),
            ("grpc.http2.max_pings_without_data", 0),
        ]
        certificate = backend.certificate
        if certificate is None:
            return grpc.aio.insecure_channel(self._address, options)
        if backend.certified is not None:
            options.append(("grpc.ssl_target_name_override", backend.certified))
        credentials = grpc.ssl_channel_credentials(root_certificates=certificate)
        return grpc.aio.secure_channel(self._address, credentials, options)

    @staticmethod
    def _note(metadata: Any) -> None:
        for name, value in metadata or ():
            if name == _TRUNCATED and str(value).isdecimal():
                current_request().truncated = int(value)


def _keep(room: Room, count: int) -> None:
    """Count a long answer until this call's end, when it was taken. Raises OverloadedError."""
    task = asyncio.current_task()
    if count <= PIECE_BYTES or task is None:
        return
    if not room.take(count):
        raise OverloadedError(
            "answers that other clients do not take leave no room for this one; retry later",
            retry_after=1,
        )
    task.add_done_callback(lambda _: room.give_back(count))


def _told(error: Any) -> Exception:
    status = _HTTP.get(error.code(), 500)
    later = dict(error.trailing_metadata() or ()).get("retry-after", "")
    retry_after = int(later) if str(later).isdecimal() else None
    said = PodError(error.details() or "", status, retry_after)
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        # Without the time that the gateway gives, it is the library that tells of no connection.
        return NotTakenError(said if retry_after is not None else None)
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return NotTakenError(said, full=True)
    return said
