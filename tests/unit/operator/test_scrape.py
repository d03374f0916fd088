"""What is read of a pod's metrics, and that nothing which it sends does harm."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from prometheus_client import disable_created_metrics

from reranker_contracts import metrics as names
from reranker_gateway.request_context import RequestContext
from reranker_gateway.shadow.telemetry import ShadowTelemetry
from reranker_gateway.telemetry import Telemetry
from reranker_operator.adapters.scrape import ScrapeError, Scraper, parse
from reranker_operator.core.load import Shadowed

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Pod = Callable[..., Awaitable[Scraper]]
HERE = "127.0.0.1"
LEAST = f"{names.READY} 1\n"


@pytest.fixture
async def pod() -> AsyncIterator[Pod]:
    """Starts a server with the answer of the test's choice; gives a scraper that finds it."""
    ends: list[Callable[[], Awaitable[None]]] = []

    async def start(answer: Answer, seconds: float = 10.0) -> Scraper:
        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, HERE, 0)
        await site.start()
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        scraper = Scraper(seconds, lambda: 1000.0, port)
        ends.extend([scraper.close, runner.cleanup])
        return scraper

    yield start
    for end in ends:
        await end()


def _busy_gateway() -> Telemetry:
    """As the gateway counts it."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    telemetry = Telemetry()
    telemetry.watch(names.READY, "", lambda: 1.0)
    telemetry.watch(names.BACKLOG_TOKENS, "", lambda: 300.0)
    telemetry.watch(names.TOKENS_PER_SECOND, "", lambda: 150.5)
    telemetry.watch(names.IN_PROGRESS, "", lambda: 4.0)
    telemetry.watch_counter(names.BUSY_SECONDS, "", lambda: 12.25)
    for dialect in ("nim", "tei"):
        for code in (200, 200, 429, 500, 503, 504):
            request = RequestContext(dialect=dialect, tokens=1, turned_away=code == 503)
            telemetry.answered(request, code)
    telemetry.arrived(1000)
    telemetry.tokens.inc(700)
    for seconds in (0.0005, 0.3, 0.3, 500.0):
        telemetry.queue_seconds.observe(seconds)
        telemetry.infer_seconds.observe(seconds)
    shadow = ShadowTelemetry(telemetry.registry)
    for revision, tau in (("0badcafe", -1.0), ("c0ffee00", 1.0), ("0badcafe", 0.5)):
        shadow.compared(revision, tau)
    shadow.ended("failed", 5)
    shadow.ended("dropped", 9)
    return telemetry


@pytest.mark.parametrize("everything", [False, True])
async def test_the_gateways_metrics_are_understood(pod: Pod, everything: bool) -> None:
    telemetry = _busy_gateway()

    async def answer(request: web.Request) -> web.Response:
        assert request.path == "/metrics"
        asked = request.query.getall("name[]")
        text = telemetry.exposition(() if everything else asked)
        return web.Response(text=text + 'nv_inference_count{model="reranker"} 3\n')

    scraper = await pod(answer)
    for _ in range(2):
        found = await scraper.read(HERE, "serving")
        assert found._replace(queue_buckets=()) == (
            1000.0, True, 300.0, 4.0, 150.5, 1000.0, 700.0, 12.25, 10.0, 2.0, 4.0, (),
            (Shadowed("0badcafe", 2.0, -0.5), Shadowed("c0ffee00", 1.0, 1.0)), 5.0,
        )  # fmt: skip
        buckets = dict(found.queue_buckets)
        assert (buckets[0.001], buckets[0.5], buckets[float("inf")]) == (1, 3, 4)
        assert list(found.queue_buckets) == sorted(found.queue_buckets)


def _compared(count: str, tau: str, revision: str = "abc") -> str:
    label = f'{{revision="{revision}"}}'
    return f"{names.SHADOW_TAU}_count{label} {count}\n{names.SHADOW_TAU}_sum{label} {tau}\n"


@pytest.mark.parametrize(
    "text",
    [
        _compared("1e999", "1"), _compared("nan", "1"), _compared("-1", "0"),
        _compared("1e16", "1"), _compared("5", "nan"), _compared("5", "-inf"),
        _compared("5", "5.1"), _compared("5", "-5.1"), _compared("0", "1"), _compared("5", "x"),
    ],
)  # fmt: skip
def test_comparisons_that_can_not_be_are_none(text: str) -> None:
    with pytest.raises(ScrapeError, match="malformed"):
        parse((LEAST + text).encode(), 0.0, "serving")


def test_revisions_that_were_compared_are_few_and_have_names() -> None:
    odd = "".join(_compared("3", "1", name) for name in ("", "A/b", "a b", "x" * 64))
    many = "".join(_compared("3", "-1", f"r{number}") for number in range(999))
    lone = f'{names.SHADOW_TAU}_count{{revision="lone"}} 3\n'
    assert parse((LEAST + odd + lone).encode(), 0.0, "serving").shadowed == ()
    assert len(parse((LEAST + many).encode(), 0.0, "serving").shadowed) == 8
    none_yet = LEAST + _compared("0", "0")
    assert parse(none_yet.encode(), 0.0, "serving").shadowed == ()


def test_an_activator_tells_what_it_holds() -> None:
    body = f"{names.HELD} 7\n{names.HELD_BYTES} 4000\n"
    found = parse(body.encode(), 5.0, "activator")
    assert (found.at, found.in_progress, found.ready) == (5.0, 7.0, True)
    # It has no tokenizer.
    assert found.backlog_tokens == 1000
    assert parse((LEAST + body).encode(), 5.0, "serving").backlog_tokens == 0
    with pytest.raises(ScrapeError, match="malformed"):
        parse(LEAST.encode(), 5.0, "activator")


def test_failures_of_a_gateway_that_does_not_count_them() -> None:
    lines = [f'{names.REQUESTS}{{dialect="nim",code="{code}"}} 1' for code in (200, 500, 503, 504)]
    found = parse("\n".join([LEAST, *lines]).encode(), 0.0, "serving")
    assert (found.failed, found.requests) == (2, 4)


def test_requests_that_are_refused_for_their_callers_sake_do_not_count() -> None:
    """Else whoever has no key could make any share of failures a small one."""
    codes = (200, 400, 401, 404, 413, 422, 429, 499)
    lines = [f'{names.REQUESTS}{{dialect="nim",code="{code}"}} 7' for code in codes]
    found = parse("\n".join([LEAST, *lines]).encode(), 0.0, "serving")
    assert (found.requests, found.refused) == (7, 7)


@pytest.mark.parametrize(
    "body",
    [
        "", "<html>", f"{names.READY} -1", f"{names.READY} nan", f"{names.READY} inf",
        f"{names.READY} ", f"{names.READY} 1 2", f"{names.READY}1", f"x{names.READY} 1",
        LEAST + f"{names.TOKENS} 1e999", LEAST + f"{names.TOKENS} {'9' * 400}",
        LEAST + f"{names.TOKENS} 1.1e15", LEAST + f"{names.TOKENS} 9e14\n" * 2,
        LEAST + f'{names.STAGE_SECONDS}_bucket{{stage="queue",le="1"}} 1e200',
        LEAST + f'{names.STAGE_SECONDS}_bucket{{stage="queue",le="a"}} 1',
        LEAST + f'{names.STAGE_SECONDS}_bucket{{stage="queue",le="nan"}} 1',
    ],
)  # fmt: skip
def test_a_body_without_sense_is_none(body: str) -> None:
    with pytest.raises(ScrapeError, match="malformed"):
        parse(body.encode(), 0.0, "serving")


def test_what_is_next_to_nothing_is_nothing() -> None:
    body = f"{LEAST}{names.TOKENS_PER_SECOND} 9e-4\n{names.BUSY_SECONDS} 1e-320\n"
    found = parse(body.encode(), 0.0, "serving")
    assert (found.tokens_per_second, found.busy_seconds) == (0, 0)


def test_what_is_kept_is_bounded_whatever_comes() -> None:
    bounds = (f'{names.STAGE_SECONDS}_bucket{{le="{n}",stage="queue"}} 1' for n in range(9999))
    codes = (f'{names.REQUESTS}{{code="{n}"}} 1' for n in range(9999))
    found = parse("\n".join([LEAST, *bounds, *codes]).encode(), 0.0, "serving")
    assert len(found.queue_buckets) == 64
    odd = b'\xff\x00{{{{"\n' * 1000 + f'{names.REQUESTS}{{x="}}",code="a"}} 1\n'.encode()
    assert parse(LEAST.encode() + odd, 0.0, "serving").requests == 0


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(LEAST.encode() * 1000)


async def _slow(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"#")
        await asyncio.sleep(0.01)


async def _elsewhere(request: web.Request) -> web.StreamResponse:
    if request.path == "/elsewhere":
        return web.Response(text=LEAST)
    raise web.HTTPFound("/elsewhere")


async def _packed(_: web.Request) -> web.StreamResponse:
    response = web.Response(text=LEAST)
    response.enable_compression(web.ContentCoding.gzip)
    # Whatever the caller said.
    response._compression_force = web.ContentCoding.gzip
    return response


async def _broken(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: \xff\r\n\r\n")
    request.transport.close()
    return web.Response()


async def _headers(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.write(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * (1 << 20) + b"\r\n\r\n")
    return web.Response()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (_endless, "too_large"), (_slow, "timeout"), (_elsewhere, "status"), (_packed, "status"),
        (_broken, "unreachable"), (_headers, "unreachable"),
    ],
)  # fmt: skip
async def test_hostile_pods_end_as_a_failure(pod: Pod, answer: Answer, reason: str) -> None:
    scraper = await pod(answer, seconds=0.3 if reason == "timeout" else 10.0)
    with pytest.raises(ScrapeError, match=reason):
        await scraper.read(HERE, "serving")


async def test_nobody_at_home() -> None:
    scraper = Scraper(10.0, lambda: 0.0, port=9)
    for address in (HERE, "::1"):
        with pytest.raises(ScrapeError, match="unreachable"):
            await scraper.read(address, "serving")
    await scraper.close()
