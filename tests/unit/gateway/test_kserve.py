"""The gRPC front over loopback: NIM's tensors, statuses, bounds, and what cancelling does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from reranker_gateway.api.models import names_of
from reranker_gateway.errors import (
    BodyTimeoutError,
    EngineError,
    EngineTimeoutError,
    InvalidRequestError,
)
from reranker_gateway.kserve import tensors
from reranker_gateway.kserve.calls import Calls
from reranker_gateway.kserve.refusals import INTERNAL, Refusal
from reranker_gateway.kserve.server import GrpcListenError, create_server, listen
from reranker_gateway.kserve.uploads import Uploads

Make = Callable[..., Any]
NAME = "demo_bert"
DOCS = Path(__file__).resolve().parents[3] / "docs/api-dialects.md"
METHOD = "/inference.GRPCInferenceService/ModelInfer"
REFLECT = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
SMALL = (
    *(
        f"/inference.GRPCInferenceService/{name}"
        for name in ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata")
    ),
    "/grpc.health.v1.Health/Check",
)


@pytest.fixture
async def connect(gateway_of: Make) -> AsyncIterator[Make]:
    """Starts a server for a gateway with settings of the test's choice; gives a channel to it."""
    ends: list[Any] = []

    async def start(gateway: Any = None, **settings: Any) -> Any:
        gateway = gateway or gateway_of(aliases=("an-alias",), **settings)
        server = create_server(gateway, names_of(gateway))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        # What the server says, not what came of it when tried again.
        options = [("grpc.enable_retries", 0)]
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options)
        ends.extend([channel.close, lambda: server.stop(None)])
        return channel

    yield start
    for end in ends:
        await end()


def elements(texts: list[str]) -> bytes:
    encoded = [text.encode() for text in texts]
    return b"".join(len(text).to_bytes(4, "little") + text for text in encoded)


def infer_request(
    queries: list[str],
    passages: list[str],
    *,
    raw: bool = True,
    outputs: tuple[str, ...] = (),
    truncate: str | None = None,
    **fields: Any,
) -> Any:
    request = pb.ModelInferRequest(**{"model_name": NAME} | fields)
    for name, texts in (("query", queries), ("passage", passages)):
        tensor = request.inputs.add(name=name, datatype="BYTES", shape=[len(texts), 1])
        if raw:
            request.raw_input_contents.append(elements(texts))
        else:
            tensor.contents.bytes_contents.extend(text.encode() for text in texts)
    for output in outputs:
        request.outputs.add(name=output)
    if truncate is not None:
        request.parameters["truncate"].string_param = truncate
    return request


def arrays(response: Any) -> dict[str, np.ndarray]:
    kinds = {"INT32": np.int32, "FP32": np.float32}
    return {
        output.name: np.frombuffer(content, kinds[output.datatype]).reshape(output.shape)
        for output, content in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def stub(channel: Any) -> Any:
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


async def refused(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("queries", [1, 3])
async def test_infer(connect: Make, raw: bool, queries: int) -> None:
    channel = await connect()
    asked = infer_request(["w1"] * queries, ["w3", "w9 w9", "w3"], raw=raw, id="mine")
    response = await stub(channel).ModelInfer(asked)
    found = arrays(response)
    assert found.keys() == {"index", "logit", "token_count"}
    assert found["index"].tolist() == [[1], [0], [2]]
    assert found["logit"].shape == (3, 1)
    assert found["logit"][1] == found["logit"][2] < found["logit"][0]
    assert found["token_count"].tolist() == [6, 5, 5]
    assert (response.model_name, response.id) == (NAME, "mine")


async def test_scores_are_those_of_http(connect: Make, gateway_of: Make, client_of: Make) -> None:
    gateway = gateway_of()
    channel = await connect(gateway)
    async with client_of(gateway) as client:
        body = {"query": {"text": "w1"}, "passages": [{"text": "w3"}, {"text": "w9"}]}
        http = (await client.post("/v1/ranking", json=body | {"model": "demo/bert"})).json()
    found = arrays(await stub(channel).ModelInfer(infer_request(["w1"], ["w3", "w9"])))
    assert found["logit"].ravel().tolist() == [item["logit"] for item in http["rankings"]]


async def test_each_row_has_its_own_query(connect: Make) -> None:
    channel = await connect()
    together = arrays(await stub(channel).ModelInfer(infer_request(["w9", "w1"], ["w3", "w4"])))
    for at, (query, passage) in enumerate([("w9", "w3"), ("w1", "w4")]):
        alone = arrays(await stub(channel).ModelInfer(infer_request([query], [passage])))
        place = together["index"].ravel().tolist().index(at)
        assert together["logit"][place] == alone["logit"][0]


async def test_only_the_outputs_that_were_asked_for(connect: Make) -> None:
    channel = await connect()
    asked = infer_request(["w1"], ["w3"], outputs=("logit", "index"))
    assert list(arrays(await stub(channel).ModelInfer(asked))) == ["logit", "index"]


@pytest.mark.parametrize("name", ["demo_bert", "demo/bert", "an_alias", "an-alias"])
async def test_names_of_the_model(connect: Make, name: str) -> None:
    channel = await connect()
    response = await stub(channel).ModelInfer(infer_request(["w1"], ["w3"], model_name=name))
    assert response.model_name == name


async def test_truncate_in_any_case(connect: Make) -> None:
    channel = await connect()
    long = "w9 " * 40
    for truncate in (None, "NONE", "none"):
        call = stub(channel).ModelInfer(infer_request(["w1"], [long], truncate=truncate))
        error = await refused(call)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "Input length 44 exceeds maximum allowed token size 32" in error.details()
    for truncate in ("END", "end"):
        asked = infer_request(["w1"], [long], truncate=truncate)
        assert arrays(await stub(channel).ModelInfer(asked))["token_count"].tolist() == [32]
    error = await refused(stub(channel).ModelInfer(infer_request(["w1"], ["w2"], truncate="x")))
    assert "truncate" in error.details()


def _shape(request: Any, shape: list[int]) -> Any:
    del request.inputs[1].shape[:]
    request.inputs[1].shape.extend(shape)
    return request


def _set(request: Any, change: Callable[[Any], Any]) -> Any:
    change(request)
    return request


GOOD = infer_request(["w1"], ["w3"])
BAD = {
    "nothing": pb.ModelInferRequest(model_name=NAME),
    "one input": _set(infer_request(["w1"], ["w3"]), lambda r: r.inputs.pop()),
    "an input twice": _set(
        infer_request(["w1"], ["w3"]), lambda r: setattr(r.inputs[1], "name", "query")
    ),
    "a datatype": _set(
        infer_request(["w1"], ["w3"]), lambda r: setattr(r.inputs[1], "datatype", "INT32")
    ),
    "too many raw contents": _set(
        infer_request(["w1"], ["w3"]), lambda r: r.raw_input_contents.append(b"")
    ),
    "raw element too long": _set(
        infer_request(["w1"], ["w3"]),
        lambda r: r.raw_input_contents.__setitem__(1, b"\xff\xff\xff\xff"),
    ),
    "half a length": _set(
        infer_request(["w1"], ["w3"]), lambda r: r.raw_input_contents.__setitem__(1, b"\x00")
    ),
    "not UTF-8": _set(
        infer_request(["w1"], ["w3"]),
        lambda r: r.raw_input_contents.__setitem__(1, b"\x01\x00\x00\x00\xff"),
    ),
    "shape larger": _shape(infer_request(["w1"], ["w3"]), [2, 1]),
    "shape smaller": _shape(infer_request(["w1"], ["w3", "w4"]), [1, 1]),
    "shape negative": _shape(infer_request(["w1"], ["w3"]), [-1, 1]),
    "shape giant": _shape(infer_request(["w1"], ["w3"]), [1 << 60, 1]),
    "shape of no rows": _shape(infer_request(["w1"], ["w3"]), []),
    "wide": _shape(infer_request(["w1"], ["w3", "w4"]), [1, 2]),
    "deep": _shape(infer_request(["w1"], ["w3"]), [1, 1, 1]),
    "queries that do not pair": infer_request(["w1", "w2"], ["w3", "w4", "w5"]),
    "too many": infer_request(["w1"], ["w3"] * 513),
    "an output": infer_request(["w1"], ["w3"], outputs=("score",)),
    "an output twice": infer_request(["w1"], ["w3"], outputs=("logit", "logit")),
    "many outputs": infer_request(["w1"], ["w3"], outputs=("logit",) * 10_000),
    "a long id": infer_request(["w1"], ["w3"], id="i" * 129),
    "a pair of nothing": infer_request([""], [""]),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_requests(connect: Make, name: str, caplog: pytest.LogCaptureFixture) -> None:
    channel = await connect()
    if name == "a pair of nothing":
        # With BERT's special tokens there is something after all.
        assert arrays(await stub(channel).ModelInfer(BAD[name]))
        return
    error = await refused(stub(channel).ModelInfer(BAD[name]))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error
    assert "w3" not in error.details()
    assert not any(record.exc_info for record in caplog.records)
    assert arrays(await stub(channel).ModelInfer(GOOD))


@pytest.mark.parametrize("method", ["ModelInfer", "ModelReady", "ModelMetadata", "Nothing"])
async def test_messages_that_are_none(
    connect: Make, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    channel = await connect()
    call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
    for data in (b"\xff\xff\xff", b"\x0a\xff"):
        error = await refused(call(data))
        unknown = grpc.StatusCode.UNIMPLEMENTED
        expected = unknown if method == "Nothing" else grpc.StatusCode.INVALID_ARGUMENT
        assert error.code() is expected
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("field", ["inputs", "outputs"])
def test_many_fields_of_a_tensor_are_refused_before_they_are_parsed(field: str) -> None:
    request = infer_request(["w1"], ["w3"] * 512, raw=False, outputs=("logit",))
    tensor = getattr(request, field)[0]
    for at in range(60):
        tensor.parameters[f"p{at}"].bool_param = True
    tensors.check_structure(request.SerializeToString())
    for at in range(5):
        tensor.parameters[f"q{at}"].bool_param = True
    with pytest.raises(InvalidRequestError, match="more than 64 fields"):
        tensors.check_structure(request.SerializeToString())


@pytest.mark.parametrize("field", ["inputs", "outputs", "raw_input_contents", "parameters"])
def test_many_fields_are_refused_before_they_are_parsed(field: str) -> None:
    request = infer_request(["w1"], ["w3"], outputs=("logit", "index", "token_count"))
    for at in range(50):
        request.parameters[f"p{at}"].bool_param = True
    tensors.check_structure(request.SerializeToString())
    for at in range(20):
        match field:
            case "parameters":
                request.parameters[f"q{at}"].bool_param = True
            case "raw_input_contents":
                request.raw_input_contents.append(b"")
            case _:
                getattr(request, field).add()
    with pytest.raises(InvalidRequestError, match="more than 64 fields"):
        tensors.check_structure(request.SerializeToString())


@pytest.mark.parametrize(
    "data", [b"\x08\x01", b"\x09" + bytes(8), b"\x0d" + bytes(4), b"\x0a\x01x"]
)
def test_fields_of_each_wire_type_are_counted(data: bytes) -> None:
    tensors.check_structure(data * 64)
    with pytest.raises(InvalidRequestError):
        tensors.check_structure(data * 65)


def test_what_outlives_a_message_holds_no_part_of_it() -> None:
    request = infer_request(["w1"], ["w3"], raw=False, outputs=("logit",), id="mine")
    question = tensors.question_of(request, "END", 1)
    reply = tensors.reply_to(request)
    assert reply == tensors.Reply(NAME, "mine", ("logit",))
    # A container of protobuf keeps all of the message alive.
    held = (question.queries, question.passages, reply.outputs)
    assert [type(part) for part in held] == [list, list, tuple]


async def test_unknown_models_and_versions(connect: Make) -> None:
    channel = await connect()
    for fields in ({"model_name": "other"}, {"model_version": "2"}):
        error = await refused(stub(channel).ModelInfer(infer_request(["w1"], ["w3"], **fields)))
        assert error.code() is grpc.StatusCode.NOT_FOUND
    asked = infer_request(["w1"], ["w3"], model_version="1")
    assert arrays(await stub(channel).ModelInfer(asked))
    error = await refused(stub(channel).ModelMetadata(pb.ModelMetadataRequest(name="other")))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "demo_bert" in error.details()


async def test_metadata(connect: Make) -> None:
    calls = stub(await connect())
    assert (await calls.ServerLive(pb.ServerLiveRequest())).live
    assert (await calls.ServerMetadata(pb.ServerMetadataRequest())).name == "reranker-gateway"
    found = await calls.ModelMetadata(pb.ModelMetadataRequest(name=NAME))
    assert [(tensor.name, tensor.datatype) for tensor in found.inputs] == [
        ("query", "BYTES"),
        ("passage", "BYTES"),
    ]
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in found.outputs] == [
        ("index", "INT32", [-1, 1]),
        ("logit", "FP32", [-1, 1]),
        ("token_count", "INT32", [-1]),
    ]


async def test_readiness_and_health(connect: Make, gateway_of: Make) -> None:
    gateway = gateway_of(ready=False)
    channel = await connect(gateway)
    calls, health = stub(channel), health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    asked = health_pb2.HealthCheckRequest(service="inference.GRPCInferenceService")
    for ready in (False, True):
        gateway.readiness.ready = ready
        assert (await calls.ServerReady(pb.ServerReadyRequest())).ready is ready
        assert (await calls.ModelReady(pb.ModelReadyRequest(name=NAME))).ready is ready
        for request in (asked, health_pb2.HealthCheckRequest()):
            assert ((await health.Check(request)).status == serving) is ready
    assert not (await calls.ModelReady(pb.ModelReadyRequest(name="other"))).ready
    unknown = health_pb2.HealthCheckRequest(service="other")
    assert (await refused(health.Check(unknown))).code() is grpc.StatusCode.NOT_FOUND
    gateway.readiness.ready = False
    error = await refused(calls.ModelInfer(GOOD))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(error.trailing_metadata())["retry-after"] == "1"


async def test_reflection(connect: Make) -> None:
    channel = await connect()
    calls = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    async for answer in calls.ServerReflectionInfo(iter([asked])):
        listed = {service.name for service in answer.list_services_response.service}
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= listed
    asked = reflection_pb2.ServerReflectionRequest(
        file_containing_symbol="inference.GRPCInferenceService"
    )
    async for answer in calls.ServerReflectionInfo(iter([asked])):
        assert answer.file_descriptor_response.file_descriptor_proto


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (EngineError("bad"), grpc.StatusCode.INTERNAL),
        (EngineTimeoutError("late"), grpc.StatusCode.UNAVAILABLE),
        (ZeroDivisionError("secret"), grpc.StatusCode.INTERNAL),
    ],
)
async def test_failures(connect: Make, engine: Any, failure: Exception, code: Any) -> None:
    channel = await connect()
    engine.failures.extend([failure, failure])
    error = await refused(stub(channel).ModelInfer(GOOD))
    assert error.code() is code
    assert "secret" not in error.details()


async def test_a_full_queue_is_resource_exhausted(
    connect: Make, engine: Any, eventually: Make
) -> None:
    engine.open.clear()
    channel = await connect(max_queue_tokens=60)
    many = infer_request(["w1"], [f"w{at} " * 10 for at in range(11)])
    call = stub(channel).ModelInfer(many)
    await eventually(lambda: len(engine.batches) == 2)
    error = await refused(stub(channel).ModelInfer(infer_request(["w1"], ["w3", "w4", "w5", "w6"])))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert int(dict(error.trailing_metadata())["retry-after"]) >= 1
    engine.open.set()
    assert len(arrays(await call)["logit"]) == 11


async def test_many_calls_on_one_connection_are_told_when_to_come_again(
    connect: Make, gateway_of: Make, engine: Any, eventually: Make
) -> None:
    engine.open.clear()
    gateway = gateway_of(max_queue_tokens=60)
    channel = await connect(gateway)
    calls = [
        asyncio.ensure_future(
            asyncio.wait_for(stub(channel).ModelInfer(infer_request(["w1"], [f"w{at} w1 w1"])), 60)
        )
        for at in range(400)
    ]
    await eventually(
        lambda: 0 < sum(call.done() for call in calls) == len(calls) - gateway.drain.active
    )
    engine.open.set()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    refusals = [error for error in answers if isinstance(error, grpc.aio.AioRpcError)]
    assert 0 < len(refusals) < len(calls)
    assert {
        (error.code(), "retry-after" in dict(error.trailing_metadata())) for error in refusals
    } == {(grpc.StatusCode.RESOURCE_EXHAUSTED, True)}


@pytest.mark.parametrize("way", ["cancel", "deadline"])
async def test_who_goes_takes_the_waiting_work_along(
    connect: Make, gateway_of: Make, engine: Any, eventually: Make, way: str
) -> None:
    engine.open.clear()
    gateway = gateway_of()
    channel = await connect(gateway)
    asked = infer_request(["w1"], [f"w{at} " * 10 for at in range(20)])
    call = stub(channel).ModelInfer(asked, timeout=1 if way == "deadline" else None)
    waiting = asyncio.ensure_future(asyncio.wait_for(call, None))
    await eventually(lambda: len(engine.batches) == 2)
    if way == "cancel":
        call.cancel()
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await waiting
    await eventually(lambda: gateway.drain.active == 0)
    engine.open.set()
    assert arrays(await stub(channel).ModelInfer(GOOD))
    assert sum(batch.rows for batch in engine.batches) == 8 + 1


async def test_size_of_a_message(connect: Make) -> None:
    channel = await connect(grpc_max_message_bytes=4096)
    error = await refused(stub(channel).ModelInfer(infer_request(["w1"], ["w1 " * 2000])))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert arrays(await stub(channel).ModelInfer(GOOD))


async def test_a_compressed_message_is_refused(connect: Make) -> None:
    channel = await connect()
    call = stub(channel).ModelInfer(
        infer_request(["w1"], ["w1"] * 100), compression=grpc.Compression.Gzip
    )
    assert (await refused(call)).code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("method", [METHOD, *SMALL])
async def test_a_call_without_a_message(connect: Make, method: str) -> None:
    channel = await connect()
    call = channel.stream_unary(method)

    async def nothing() -> AsyncIterator[bytes]:
        return
        yield b""

    assert (await refused(call(nothing()))).code() is grpc.StatusCode.INVALID_ARGUMENT


async def silence() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


async def _all(call: Any) -> None:
    async for _ in call:
        pass


@pytest.mark.parametrize("method", [METHOD, *SMALL, REFLECT])
async def test_a_message_that_does_not_come_ends_the_call(connect: Make, method: str) -> None:
    channel = await connect(read_idle_seconds=0.05)
    error = await refused(_all(channel.stream_stream(method)(silence())))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "did not arrive in time" in error.details()


@pytest.mark.parametrize("method", [*SMALL, REFLECT])
async def test_only_questions_may_be_large(connect: Make, method: str) -> None:
    channel = await connect()

    async def large() -> AsyncIterator[bytes]:
        yield bytes(65 << 10)

    error = await refused(_all(channel.stream_stream(method)(large())))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "at most 65536" in error.details()


async def test_questions_that_arrive_do_not_hold_up_probes(connect: Make, eventually: Make) -> None:
    channel = await connect()
    begun, never = [], asyncio.Event()

    async def silence() -> AsyncIterator[bytes]:
        begun.append(True)
        await never.wait()
        yield b""

    calls = [channel.stream_unary(METHOD)(silence()) for _ in range(20)]
    await eventually(lambda: len(begun) == 20)
    assert (await stub(channel).ServerLive(pb.ServerLiveRequest())).live
    for call in calls:
        call.cancel()


async def test_slow_messages_give_way_to_those_that_wait() -> None:
    uploads = Uploads(places=1, longest=60, fair=0.01)
    slow = asyncio.create_task(uploads.receive("one", asyncio.Event().wait))
    await asyncio.sleep(0)

    async def quick() -> str:
        return "here"

    assert await uploads.receive("one", quick) == "here"
    with pytest.raises(BodyTimeoutError, match=r"0\.01 s while others wait"):
        await slow


async def test_the_next_message_is_of_the_caller_who_has_the_fewest(eventually: Make) -> None:
    uploads = Uploads(places=2, longest=60)
    order: list[str] = []
    ends = asyncio.Semaphore(0)

    async def arrive(caller: str) -> None:
        async def read() -> None:
            order.append(caller)
            await ends.acquire()

        await uploads.receive(caller, read)

    async with asyncio.TaskGroup() as tasks:
        for caller in ("many", "many", "many", "many", "many", "one", "other"):
            tasks.create_task(arrive(caller))
        await eventually(lambda: len(order) == 2)
        for count in range(3, 8):
            ends.release()
            await eventually(lambda count=count: len(order) == count)
        for _ in range(2):
            ends.release()
    assert order == ["many", "many", "one", "many", "other", "many", "many"]


@pytest.mark.parametrize("when", ["waiting", "passed over", "called"])
async def test_who_goes_while_it_waits_takes_no_place_along(when: str) -> None:
    uploads = Uploads(places=1, longest=60)
    end = asyncio.Event()
    first, goes, stays = (asyncio.create_task(uploads.receive("one", end.wait)) for _ in range(3))
    await asyncio.sleep(0)
    if when == "waiting":
        goes.cancel()
    end.set()
    if when == "passed over":
        goes.cancel()
    elif when == "called":
        # After the step in which the first one leaves, before the one that it calls.
        asyncio.get_running_loop().call_soon(goes.cancel)
    with pytest.raises(asyncio.CancelledError):
        await goes
    assert await first
    assert await stays
    assert await uploads.receive("one", end.wait)


async def test_a_taken_port_is_named(gateway_of: Make) -> None:
    first = create_server(gateway_of(), names_of(gateway_of()))
    port = first.add_insecure_port("127.0.0.1:0")
    gateway = gateway_of(host="127.0.0.1", grpc_port=port)
    second = create_server(gateway, names_of(gateway))
    with pytest.raises(GrpcListenError, match=f"RERANKER_GRPC_PORT={port}"):
        listen(second, gateway.settings)
    await first.stop(None)
    await second.stop(None)


async def test_connections_are_bounded(gateway_of: Make) -> None:
    gateway = gateway_of(max_connections=100)
    server = create_server(gateway, names_of(gateway), connections=2)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    settings = b"\0\0\0\4\0\0\0\0\0"
    greeted = []
    writers = []
    for _ in range(3):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
        writers.append(writer)
        greeted.append(bool(await reader.read(100)))
    assert greeted == [True, True, False]
    for writer in writers:
        writer.close()
    await server.stop(None)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    folder.mkdir()
    for name in ("one", "other"):
        (folder / name).write_text(f"key-of-{name}")
    return folder


def key(name: str) -> tuple[tuple[str, str]]:
    return (("authorization", f"Bearer key-of-{name}"),)


async def test_keys_are_asked_for_and_probes_stay_open(
    connect: Make, gateway_of: Make, keys: Path
) -> None:
    channel = await connect(gateway_of(api_keys_dir=keys))
    calls = stub(channel)
    assert (await calls.ServerReady(pb.ServerReadyRequest())).ready
    asked = pb.ModelMetadataRequest(name=NAME)
    assert (await calls.ServerLive(pb.ServerLiveRequest())).live
    health = health_pb2_grpc.HealthStub(channel)
    assert (await health.Check(health_pb2.HealthCheckRequest())).status
    services = reflection_pb2.ServerReflectionRequest(list_services="")
    reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
    for call in (
        calls.ModelInfer(GOOD),
        calls.ModelMetadata(asked),
        calls.ModelReady(pb.ModelReadyRequest(name=NAME)),
        calls.ServerMetadata(pb.ServerMetadataRequest()),
        _all(reflect(iter([services]))),
    ):
        assert (await refused(call)).code() is grpc.StatusCode.UNAUTHENTICATED
    wrong = (("authorization", "Bearer other"),)
    error = await refused(calls.ModelInfer(GOOD, metadata=wrong))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    right = key("one")
    assert arrays(await calls.ModelInfer(GOOD, metadata=right))
    assert (await calls.ModelMetadata(asked, metadata=right)).name == NAME
    await _all(reflect(iter([services]), metadata=right))


async def test_calls_without_a_key_take_no_place_from_those_with_one(
    connect: Make, gateway_of: Make, eventually: Make, keys: Path
) -> None:
    channel = await connect(gateway_of(api_keys_dir=keys, max_connections=32))
    check = channel.stream_unary("/grpc.health.v1.Health/Check")
    calls = [check(silence()) for _ in range(30)]
    await eventually(lambda: sum(call.done() for call in calls) == 30 - 16)
    assert arrays(await stub(channel).ModelInfer(GOOD, metadata=key("one")))
    for call in calls:
        call.cancel()


async def test_a_drain_heeds_those_with_a_key(
    connect: Make, gateway_of: Make, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = gateway_of(api_keys_dir=keys)
    came: list[str] = []
    monkeypatch.setattr(gateway.drain, "note", came.append)
    calls = stub(await connect(gateway))
    await refused(calls.ModelInfer(GOOD))
    assert not came
    await calls.ModelInfer(GOOD, metadata=key("one"))
    assert len(came) == 1


async def test_the_calls_of_one_key_leave_room_for_another(
    connect: Make, gateway_of: Make, eventually: Make, keys: Path
) -> None:
    gateway = gateway_of(api_keys_dir=keys, max_connections=32)
    channel = await connect(gateway)
    infer = channel.stream_unary(METHOD)
    calls = [infer(silence(), metadata=key("one")) for _ in range(30)]
    await eventually(lambda: sum(call.done() for call in calls) == 30 - 16)
    assert arrays(await stub(channel).ModelInfer(GOOD, metadata=key("other")))
    refused = 'reranker_requests_total{code="429",dialect="grpc"} 14.0'
    assert refused in gateway.telemetry.exposition()
    for call in calls:
        call.cancel()


async def test_a_refusal_that_is_not_taken_is_given_up() -> None:
    class Deaf:
        async def abort(self, *_: Any) -> None:
            await asyncio.Event().wait()

    async def refuse(_messages: Any, _context: Any) -> Refusal:
        return INTERNAL

    call = Calls(1, patience=0.01).bounded(refuse)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.ensure_future(call(None, Deaf()))


async def test_the_servers_own_limit_of_time(connect: Make, engine: Any, gateway_of: Make) -> None:
    engine.open.clear()
    channel = await connect(gateway_of(request_timeout_seconds=0.05))
    error = await refused(stub(channel).ModelInfer(GOOD))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "no answer within 0.05 s" in error.details()


async def test_long_passages_in_windows(connect: Make) -> None:
    channel = await connect()
    asked = infer_request(["w1"], ["w2", "w9 " * 40], truncate="END")
    call = stub(channel).ModelInfer(asked, metadata=(("x-long-passages", "chunk"),))
    found = arrays(await call)
    assert found["index"].ravel().tolist() == [1, 0]
    assert found["token_count"][0] > 32
    trailing = dict(await call.trailing_metadata())
    assert trailing["x-truncated-passages"] == "0"


async def test_the_documented_example(gateway_of: Make, capsys: pytest.CaptureFixture[str]) -> None:
    gateway = gateway_of(aliases=("my-reranker",))
    server = create_server(gateway, names_of(gateway))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    section = DOCS.read_text(encoding="utf-8").split("\n## gRPC\n")[1]
    example = section.split("```python\n")[1].split("```")[0]
    assert "my-reranker:8001" in example
    example = example.replace("my-reranker:8001", f"127.0.0.1:{port}").replace("Paris", "w9")
    await asyncio.to_thread(exec, example, {})
    await server.stop(None)
    assert capsys.readouterr().out.startswith("[1 0] [")


async def test_the_log_has_the_callers_trace(
    connect: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "reranker_gateway.request")
    channel = await connect()
    trace = "0af7651916cd43dd8448eb211c80319c"
    metadata = [("traceparent", f"00-{trace}-b7ad6b7169203331-01")]
    await stub(channel).ModelInfer(infer_request(["w1"], ["w2"]), metadata=metadata)
    await stub(channel).ModelInfer(infer_request(["w1"], ["w2"]))
    logged = [record.fields for record in caplog.records if record.message == "request"]
    assert [fields.get("traceId", "none") for fields in logged] == [trace, "none"]
