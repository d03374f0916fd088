"""What KEDA is told over gRPC: by the real server, of pods and a cluster in memory."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from reranker_operator.adapters.scrape import ScrapeError
from reranker_operator.api.meta import POD, Resource
from reranker_operator.core.load import Role, Sample
from reranker_operator.errors import Forbidden, NotFound, OperatorError, Unavailable
from reranker_operator.runtime.loads import Loads
from reranker_operator.runtime.metrics import Metrics
from reranker_operator.shell import externalscaler_pb2 as pb
from reranker_operator.shell.scaler import SERVICE, Scaler, serve

Json = dict[str, Any]
_PROTO = Path(__file__).resolve().parents[3] / (
    "operator/src/reranker_operator/shell/externalscaler.proto"
)
BACKLOG, UTILIZATION = "reranker-backlog-seconds", "reranker-utilization-percent"


class Scene:
    """A service with pods; each stands for what its metrics say, at a rate since the epoch."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.services: dict[tuple[str, str], Json] = {("shop", "rank"): {"spec": {}}}
        self.pods: dict[str, Any] = {}
        self.error: OperatorError | None = None
        self.naps = 0
        self.questions = 0

    # The protocol of clusters, as far as it is asked for.

    async def get(self, _: Resource, namespace: str, name: str) -> Json:
        self.questions += 1
        if self.error is not None:
            raise self.error
        if (namespace, name) not in self.services:
            raise NotFound(f"RerankerService {name} is not there")
        return self.services[namespace, name]

    async def list(self, resource: Resource, namespace: str, selector: Json) -> list[Json]:
        self.questions += 1
        assert (resource, selector) == (POD, {"reranker.dev/service": "rank"})
        return [_pod(address, told) for address, told in self.pods.items()]

    # The protocol of pods.

    async def read(self, address: str, role: Role) -> Sample:
        told = self.pods[address]
        if isinstance(told, Exception):
            raise told
        rates = {name: told.get(name, 0.0) * self.now for name in ("busy_seconds", "refused")}
        rates["arrived_tokens"] = told.get("arriving", 0.0) * self.now
        gauges = ("ready", "backlog_tokens", "in_progress", "tokens_per_second")
        return Sample(at=self.now, **rates, **{name: told[name] for name in gauges if name in told})

    async def nap(self, seconds: float) -> None:
        self.naps += 1
        self.now += seconds
        await asyncio.sleep(0)


def _pod(address: str, told: Any) -> Json:
    role = told.get("role", "serving") if isinstance(told, dict) else "serving"
    running = not (isinstance(told, dict) and told.get("starting"))
    return {
        "metadata": {
            "name": address, "uid": address, "ownerReferences": [{"uid": "rs"}],
            "labels": {"app.kubernetes.io/component": role},
        },
        "status": {
            "podIP": address, "phase": "Running" if running else "Pending",
            "containerStatuses": [{"state": {"running": {}} if running else {"waiting": {}}}],
        },
    }  # fmt: skip


@pytest.fixture
def scene() -> Scene:
    return Scene()


class Keda:
    """The calls that KEDA makes."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def _call(self, name: str, request: Any, answer: Any) -> Any:
        method = self._channel.unary_unary(
            f"/{SERVICE}/{name}", type(request).SerializeToString, answer.FromString
        )
        return method(request, timeout=20)

    async def specs(self, **metadata: str) -> dict[str, tuple[float, int]]:
        found = await self._call("GetMetricSpec", reference(**metadata), pb.GetMetricSpecResponse)
        return {
            spec.metricName: (spec.targetSizeFloat, spec.targetSize) for spec in found.metricSpecs
        }

    async def active(self, **metadata: str) -> bool:
        found = await self._call("IsActive", reference(**metadata), pb.IsActiveResponse)
        return bool(found.result)

    async def value(self, metric: str, **metadata: str) -> float:
        request = pb.GetMetricsRequest(scaledObjectRef=reference(**metadata), metricName=metric)
        found = await self._call("GetMetrics", request, pb.GetMetricsResponse)
        (value,) = found.metricValues
        assert (value.metricName, value.metricValue) == (metric, round(value.metricValueFloat))
        return float(value.metricValueFloat)

    def stream(self, **metadata: str) -> Any:
        method = self._channel.unary_stream(
            f"/{SERVICE}/StreamIsActive",
            pb.ScaledObjectRef.SerializeToString,
            pb.IsActiveResponse.FromString,
        )
        return method(reference(**metadata), timeout=20)


def reference(namespace: str = "shop", **metadata: str) -> Any:
    metadata = {"scalerAddress": "here:9090", "service": "rank"} | metadata
    return pb.ScaledObjectRef(name="rank", namespace=namespace, scalerMetadata=metadata)


@asynccontextmanager
async def answering(scene: Scene) -> AsyncIterator[tuple[Scaler, int]]:
    loads = Loads(
        scene, lambda *_: None, Metrics(), paces={}, at_once=8,
        clock=lambda: scene.now, wall=lambda: scene.now,
    )  # fmt: skip
    cluster: Any = scene
    scaler = Scaler(lambda: cluster, loads, lambda: scene.now, sleep=scene.nap)
    server = await serve(scaler, 0, "127.0.0.1")
    try:
        yield scaler, server.port
    finally:
        await server.stop(None)


@pytest.fixture
async def keda(scene: Scene) -> AsyncIterator[Keda]:
    async with (
        answering(scene) as (_, port),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield Keda(channel)


async def refused(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_the_metrics_are_the_pods_work_and_how_busy_they_are(
    scene: Scene, keda: Keda
) -> None:
    # 3 s and 6 s of work; one arrives more than it can do, one is busy half of the time.
    scene.pods = {
        "a": {"tokens_per_second": 100.0, "backlog_tokens": 300.0, "arriving": 250.0},
        "b": {"tokens_per_second": 50.0, "backlog_tokens": 300.0, "busy_seconds": 0.5},
    }
    assert await keda.value(BACKLOG) == pytest.approx(9.0)
    assert scene.naps == 1, "a rate needs two looks"
    assert await keda.value(UTILIZATION) == pytest.approx(250.0 + 50.0)
    assert scene.naps == 1
    assert await keda.specs() == {BACKLOG: (2.0, 2), UTILIZATION: (70.0, 70)}
    asked = {"targetBacklogSeconds": "0.5", "targetUtilizationPercent": "80"}
    assert await keda.specs(**asked) == {BACKLOG: (0.5, 1), UTILIZATION: (80.0, 80)}


async def test_what_is_unknown_neither_brings_pods_nor_takes_them(scene: Scene, keda: Keda) -> None:
    well = {"tokens_per_second": 100.0, "backlog_tokens": 100.0, "busy_seconds": 0.2}
    scene.pods = {"a": well, "b": ScrapeError("timeout"), "c": {"starting": True}}
    assert await keda.value(BACKLOG) == pytest.approx(1.0 + 2.0)
    assert await keda.value(UTILIZATION) == pytest.approx(20.0 + 70.0)
    scene.pods = {"b": ScrapeError("timeout")}
    scene.now += 100
    error = await refused(keda.value(BACKLOG))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "of 1 pods of rank none is ready" in error.details()
    assert await keda.active(), "what can't be seen is not idle"


async def test_no_pods_are_no_work(scene: Scene, keda: Keda) -> None:
    assert (await keda.value(BACKLOG), await keda.value(UTILIZATION)) == (0, 0)
    assert not await keda.active()


@pytest.mark.parametrize(
    ("told", "active"),
    [
        ({"tokens_per_second": 9.0}, False),
        ({"tokens_per_second": 9.0, "backlog_tokens": 1.0}, True),
        ({"in_progress": 1.0}, True),
        ({"ready": False}, True),
        ({"starting": True}, True),
        ({"role": "activator"}, False),
        ({"role": "activator", "in_progress": 1.0}, True),
    ],
)
async def test_active_is_whatever_is_held_waits_is_worked_on_or_starts(
    scene: Scene, keda: Keda, told: Json, active: bool
) -> None:
    scene.pods = {"a": told}
    assert await keda.active() is active


async def test_work_that_came_lately_keeps_a_service_active(scene: Scene, keda: Keda) -> None:
    scene.pods = {"a": {"tokens_per_second": 100.0}}
    assert not await keda.active()
    # All of it is done again before anybody looks.
    scene.pods["a"]["arriving"] = 3.0
    scene.now += 5
    assert await keda.active()


async def test_a_stream_tells_at_once_and_then_of_changes(scene: Scene, keda: Keda) -> None:
    scene.pods = {"a": {"role": "activator"}}
    told = []
    async for answer in keda.stream():
        told.append(answer.result)
        if len(told) == 3:
            break
        # An API server that is away for a while changes nothing.
        scene.error = Unavailable("away")
        naps = scene.naps
        while scene.naps < naps + 3:  # noqa: ASYNC110 (the server's own pace)
            await asyncio.sleep(0)
        scene.error = None
        scene.pods["a"] = {"role": "activator", "in_progress": float(len(told) % 2)}
    assert told == [False, True, False]


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"service": ""}, "metadata.service: '' is not the name"),
        ({"service": "../nodes"}, "metadata.service: '../nodes' is not"),
        ({"service": "x" * 90000}, None),
        ({"service": "x" * 900}, "metadata.service: 'xxx"),
        ({"serviceName": "rank"}, "metadata.serviceName is not known here; there are service, "),
        ({"targetBacklogSeconds": "soon"}, "'soon' is not a number from 0.1 to 600"),
        ({"targetBacklogSeconds": "nan"}, "'nan' is not a number"),
        ({"targetBacklogSeconds": "0"}, "'0' is not a number from 0.1 to 600"),
        ({"targetUtilizationPercent": "1e9"}, "'1e9' is not a number from 10 to 95"),
        ({"namespace": ""}, "namespace: '' is not that of a ScaledObject"),
        ({"namespace": "a/b"}, "namespace: 'a/b' is not that"),
    ],
)
async def test_metadata_that_is_not_understood(
    keda: Keda, metadata: dict[str, str], says: str | None
) -> None:
    for call in (keda.active, keda.specs, lambda **how: keda.value(BACKLOG, **how)):
        error = await refused(call(**metadata))
        if says is None:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        else:
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert says in error.details()
            assert len(error.details()) < 400


async def test_a_metric_that_there_is_not(keda: Keda) -> None:
    error = await refused(keda.value("s0-reranker-backlog-seconds"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert BACKLOG in error.details()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unavailable("away"), grpc.StatusCode.UNAVAILABLE),
        (Forbidden("no"), grpc.StatusCode.PERMISSION_DENIED),
        (NotFound("none"), grpc.StatusCode.NOT_FOUND),
    ],
)
async def test_what_the_api_server_refuses(
    scene: Scene, keda: Keda, error: OperatorError, code: Any
) -> None:
    scene.error = error
    for call in (keda.active(), keda.specs(), keda.value(BACKLOG), keda.stream().read()):
        assert (await refused(call)).code() is code


async def test_who_asks_often_asks_the_api_server_once(scene: Scene, keda: Keda) -> None:
    scene.pods = {"a": {"tokens_per_second": 9.0, "backlog_tokens": 1.0}}
    assert all(await asyncio.gather(*(keda.active() for _ in range(50))))
    assert scene.questions == 2
    await asyncio.gather(*(keda.specs() for _ in range(50)))
    assert scene.questions == 3
    # Nor is what fails asked for again at once.
    missing = (refused(keda.active(namespace="other")) for _ in range(50))
    await asyncio.gather(*missing)
    assert scene.questions == 4
    scene.now += 2
    assert await keda.active()
    assert scene.questions == 6


async def test_a_service_of_another_namespace_is_not_found(keda: Keda) -> None:
    assert (await refused(keda.active(namespace="other"))).code() is grpc.StatusCode.NOT_FOUND


async def test_a_service_that_the_operator_scales_is_not_scaled_from_outside(
    scene: Scene, keda: Keda
) -> None:
    scene.services["shop", "rank"] = {"spec": {"autoscaling": {"max": 3}}}
    for call in (keda.active(), keda.specs(), keda.value(BACKLOG)):
        error = await refused(call)
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "spec.autoscaling" in error.details()


async def test_a_defect_is_told_as_one(
    scene: Scene, keda: Keda, caplog: pytest.LogCaptureFixture
) -> None:
    scene.services["shop", "rank"] = {"spec": "nonsense"}
    error = await refused(keda.active())
    assert (error.code(), error.details()) == (
        grpc.StatusCode.INTERNAL,
        "internal error; see the operator's log",
    )
    assert "AttributeError" in caplog.text


def test_the_messages_are_those_of_the_proto_file() -> None:
    """hack/protobuf was run after the last change."""
    text = _PROTO.read_text(encoding="utf-8")
    blocks = re.findall(r"^message (\w+) \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    written = {
        name: {field: int(number) for field, number in re.findall(r"(\w+) = (\d+);", body)}
        for name, body in blocks
    }
    made = {
        name: {field.name: field.number for field in message.fields}
        for name, message in pb.DESCRIPTOR.message_types_by_name.items()
    }
    assert made == written
    methods = pb.DESCRIPTOR.services_by_name["ExternalScaler"].methods_by_name
    assert set(methods) == set(re.findall(r"rpc (\w+)", text))
