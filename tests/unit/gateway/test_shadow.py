"""Comparing scores with another revision: the measure, what is held for it, who is asked, how."""

import asyncio
import itertools
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from support.ports import free_port

from reranker_gateway.api.dialects.base import Question
from reranker_gateway.drain import Phase
from reranker_gateway.gateway import Gateway
from reranker_gateway.settings import SettingsError, load_settings
from reranker_gateway.shadow import samples as bounds
from reranker_gateway.shadow.kendall import MOST_PASSAGES, tau_b
from reranker_gateway.shadow.preview import PATH, AbsentError, Preview, PreviewError
from reranker_gateway.shadow.samples import Sample, Samples, Sampling
from reranker_gateway.shadow.sender import Sender
from reranker_gateway.shadow.telemetry import ShadowTelemetry

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Answer], Awaitable[str]]
HERE = "127.0.0.1"


def _tau(one: list[float], other: list[float]) -> float | None:
    return tau_b(np.array(one), np.array(other))


def _naive(one: list[float], other: list[float]) -> float | None:
    """By the definition: pairs in the same order less those in the opposite one."""
    pairs = list(itertools.combinations(range(len(one)), 2))
    left = [(one[a] > one[b]) - (one[a] < one[b]) for a, b in pairs]
    right = [(other[a] > other[b]) - (other[a] < other[b]) for a, b in pairs]
    by_one, by_other = sum(map(abs, left)), sum(map(abs, right))
    if not by_one:
        return None
    same = sum(a * b for a, b in zip(left, right, strict=True))
    return same / math.sqrt(by_one * by_other) if by_other else 0


def test_tau_by_hand() -> None:
    # Of six pairs one is in the opposite order: (5 - 1) / 6.
    assert _tau([4, 3, 2, 1], [4, 2, 3, 1]) == pytest.approx(4 / 6)
    # One pair is a tie in the second: (5 - 0) / sqrt(6 * 5).
    assert _tau([4, 3, 2, 1], [4, 2, 2, 1]) == pytest.approx(5 / math.sqrt(30))
    assert _tau([1, 2, 3], [30, 20, 10]) == -1
    assert _tau([1, 2, math.inf], [-math.inf, 0, 1]) == 1
    assert _tau([1, 1], [1, 2]) is None
    # All order is lost.
    assert _tau([1, 2], [1, 1]) == 0
    assert _tau([1], [1]) is None


def test_of_very_many_passages_some_are_looked_at() -> None:
    scores = np.arange(3 * MOST_PASSAGES, dtype=np.float32)
    assert (tau_b(scores, scores), tau_b(scores, -scores)) == (1, -1)


@given(st.lists(st.tuples(st.integers(-3, 3), st.floats(-2, 2, width=16)), max_size=20))
def test_tau_is_the_same_as_by_its_definition(pairs: list[tuple[int, float]]) -> None:
    one, other = [float(left) for left, _ in pairs], [right for _, right in pairs]
    found, expected = _tau(one, other), _naive(one, other)
    assert found == (None if expected is None else pytest.approx(expected))


# What is held.


def _question(*passages: str) -> Question:
    return Question(queries=["q"], passages=[*passages], model=None, truncate="END")


def _samples(**settings: Any) -> tuple[Samples, list[None]]:
    dropped: list[None] = []
    always = {"percent": 100, "clock": lambda: 0.0, "on_drop": lambda: dropped.append(None)}
    return Samples(**(always | settings)), dropped


def test_a_bounded_number_of_requests_is_held_until_they_are_done() -> None:
    samples, dropped = _samples()
    held = [samples.take(_question("a", "b")) for _ in range(bounds.MOST_HELD)]
    assert None not in held
    assert samples.take(_question("a", "b")) is None
    assert len(dropped) == 1
    assert held[0] is not None
    samples.done(held[0])
    assert samples.take(_question("a", "b")) is not None


def test_bytes_are_bounded() -> None:
    samples, dropped = _samples()
    assert samples.take(_question("a", "b" * bounds.LONGEST)) is None
    assert not dropped
    for _ in range(bounds.MOST_CHARACTERS // bounds.LONGEST):
        assert samples.take(_question("a", "b" * (bounds.LONGEST - 2))) is not None
    assert samples.take(_question("a", "b")) is None
    assert len(dropped) == 1


def test_a_request_that_fails_is_let_go() -> None:
    samples, dropped = _samples()
    for _ in range(bounds.MOST_HELD + 1):
        with pytest.raises(ValueError, match="no"), Sampling(samples) as kept:
            kept.take(_question("a", "b"))
            raise ValueError("no")
    assert not dropped


@pytest.mark.parametrize(
    ("question", "settings"),
    [
        (_question("a"), {}),
        (Question(["p", "q"], ["a", "b"], None, "END"), {}),
        (_question("a", "b"), {"is_open": lambda: False}),
        (_question("a", "b"), {"percent": 5, "draw": lambda: 0.05}),
    ],
)
def test_what_can_not_be_compared_or_is_not_chosen_is_passed_over(
    question: Question, settings: dict[str, Any]
) -> None:
    samples, dropped = _samples(**settings)
    assert samples.take(question) is None
    assert not dropped


def test_the_share_is_what_was_asked_for() -> None:
    draws = iter(number / 1000 for number in range(1000))
    samples, _ = _samples(percent=5, draw=lambda: next(draws))
    taken = 0
    for _ in range(1000):
        found = samples.take(_question("a", "b"))
        if found is not None:
            taken += 1
            samples.done(found)
    assert taken == 50


# Who is asked.


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a server with the answer of the test's choice; gives its address."""
    ends: list[Callable[[], Awaitable[None]]] = []

    async def start(answer: Answer) -> str:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post(PATH, answer)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        ends.append(runner.cleanup)
        port = free_port()
        await web.TCPSite(runner, HERE, port).start()
        return f"http://{HERE}:{port}"

    yield start
    for end in ends:
        await end()


def _preview(url: str, keys_dir: Path | None = None) -> Preview:
    return Preview(url, "old", tls_dir=None, keys_dir=keys_dir)


def _sample(logits: list[float] | None = None) -> Sample:
    found = np.array(logits or [2.0, 1.0], dtype=np.float32)
    question = Question(["q"], [f"p{n}" for n in range(len(found))], None, "NONE", 7)
    return Sample(question, 10, "chunk", found)


async def test_all_that_matters_is_sent(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("secret\n")

    async def answer(request: web.Request) -> web.Response:
        head = request.headers
        assert (head["x-reranker-shadow"], head["x-api-key"]) == ("old", "secret")
        assert head["x-long-passages"] == "chunk"
        assert await request.json() == {
            "query": "q", "passages": ["p0", "p1"], "truncate": "NONE", "passage_tokens": 7,
        }  # fmt: skip
        return web.json_response({"revision": "new", "logits": [1, -2.5]})

    preview = _preview(await serve(answer), tmp_path)
    revision, logits = await preview.score(_sample())
    await preview.close()
    assert (revision, logits.tolist()) == ("new", [1, -2.5])


@pytest.mark.parametrize(
    "body",
    [
        "", "[]", "null", "{", "[" * 2000, '{"revision": "new"}',
        '{"logits": [1, 2]}',
        '{"revision": "new", "logits": [1]}', '{"revision": "new", "logits": [1, 2, 3]}',
        '{"revision": "new", "logits": [1, NaN]}', '{"revision": "new", "logits": [1, 1e999]}',
        '{"revision": "new", "logits": [1, "2"]}', '{"revision": "new", "logits": [1, true]}',
        '{"revision": "new", "logits": {"0": 1}}', '{"revision": 1, "logits": [1, 2]}',
        '{"revision": "a\\nb", "logits": [1, 2]}', '{"revision": "", "logits": [1, 2]}',
        json.dumps({"revision": "x" * 64, "logits": [1, 2]}),
        json.dumps({"revision": "new", "logits": [1, 2], "more": "x" * 2000}),
        '{"revision": "new", "logits": [1, ' + "9" * 900 + "]}",
    ],
)  # fmt: skip
async def test_nothing_of_an_answer_is_believed(serve: Serve, body: str) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text=body)

    preview = _preview(await serve(answer))
    with pytest.raises(PreviewError, match="its answer"):
        await preview.score(_sample())
    await preview.close()


async def test_answers_without_end_and_refusals_are_told_apart(serve: Serve) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 1000)

    async def elsewhere(_request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect("/elsewhere")

    for answer, status in ((endless, None), (elsewhere, 307)):
        preview = _preview(await serve(answer))
        with pytest.raises(PreviewError) as caught:
            await preview.score(_sample())
        await preview.close()
        assert (caught.value.status, type(caught.value)) == (status, PreviewError)
    preview = _preview(f"http://{HERE}:{free_port()}")
    with pytest.raises(AbsentError):
        await preview.score(_sample())
    await preview.close()


# What becomes of it.


class _Rig:
    """A sender whose clock the test has."""

    def __init__(self, url: str, patience: float = 30) -> None:
        self.now = 0.0
        self.registry = CollectorRegistry()
        self.telemetry = ShadowTelemetry(self.registry)
        self.samples = Samples(100, lambda: self.now)
        self.sender = Sender(self.samples, _preview(url), self.telemetry, "old", patience=patience)

    def offer(self, logits: list[float]) -> None:
        with Sampling(self.samples) as kept:
            kept.take(_sample(logits).question)
            kept.answered(np.array(logits, dtype=np.float32))

    def count(self, result: str) -> float | None:
        return self.registry.get_sample_value("reranker_shadow_requests_total", {"result": result})

    def tau(self, revision: str) -> tuple[float | None, float | None]:
        labels = {"revision": revision}
        name = "reranker_shadow_kendall_tau"
        found = [
            self.registry.get_sample_value(f"{name}_{end}", labels) for end in ("count", "sum")
        ]
        return found[0], found[1]


@pytest.fixture
async def run() -> AsyncIterator[Callable[[_Rig], _Rig]]:
    tasks: list[asyncio.Task[None]] = []

    def start(rig: _Rig) -> _Rig:
        tasks.append(asyncio.create_task(rig.sender.run()))
        return rig

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_scores_are_compared_by_revision(
    serve: Serve, run: Callable[[_Rig], _Rig], eventually: Callable[..., Any]
) -> None:
    told = iter([("aaa", [3, 2, 1]), ("bbb", [1, 2, 3]), ("bbb", [3, 2, 1]), ("bbb", [5, 5, 5])])

    async def answer(_request: web.Request) -> web.Response:
        revision, logits = next(told)
        return web.json_response({"revision": revision, "logits": logits})

    rig = run(_Rig(await serve(answer)))
    for number in range(4):
        rig.offer([30, 20, 10])
        done = lambda n=number: sum(rig.count(r) or 0 for r in ("compared", "skipped")) == n + 1  # noqa: E731
        await eventually(done)
    assert (rig.tau("aaa"), rig.tau("bbb"), rig.count("skipped")) == ((1, 1), (3, 0), 0)


def test_only_the_newest_revisions_are_remembered() -> None:
    rig = _Rig("http://nobody:1")
    for number in range(9):
        rig.telemetry.compared(f"r{number}", 0.5)
    assert [rig.tau(f"r{number}")[0] for number in range(9)] == [None] * 5 + [1] * 4


@pytest.mark.parametrize(
    ("status", "failed", "pause"),
    [(404, 1, 5), (409, 0, 30), (429, 1, 5), (401, 1, 5), (500, 1, 5), (422, 1, 0), (None, 0, 5)],
)
async def test_who_can_not_be_asked_is_left_alone_for_a_while(
    serve: Serve,
    run: Callable[[_Rig], _Rig],
    eventually: Callable[..., Any],
    status: int | None,
    failed: int,
    pause: int,
) -> None:
    asked = []

    async def answer(_request: web.Request) -> web.Response:
        asked.append(True)
        if status == 422 and len(asked) > 1:
            return web.json_response({"revision": "new", "logits": [3, 2]})
        return web.Response(status=status or 500)

    url = f"http://{HERE}:{free_port()}" if status is None else await serve(answer)
    rig = run(_Rig(url))
    rig.offer([2, 1])
    if pause:
        await eventually(lambda: rig.samples.resting)
    else:
        await eventually(lambda: rig.count("failed") == 1)
    assert rig.count("failed") == failed
    rig.now = pause - 0.1
    assert rig.samples.resting is (pause > 0)
    if pause:
        # Nothing is chosen, sent or counted meanwhile.
        rig.offer([2, 1])
    rig.now = pause
    assert not rig.samples.resting
    assert len(asked) == (status is not None)
    assert rig.count("dropped") == 0


async def test_one_that_hangs_is_given_up(
    serve: Serve, run: Callable[[_Rig], _Rig], eventually: Callable[..., Any]
) -> None:
    gone = asyncio.Event()

    async def answer(_request: web.Request) -> web.Response:
        await gone.wait()
        return web.Response()

    rig = run(_Rig(await serve(answer), patience=0.01))
    rig.offer([2, 1])
    await eventually(lambda: rig.count("failed") == 1)
    assert rig.samples.resting
    gone.set()


# The path by which it is asked.

URL = "http://rank-preview:8000"
BODY = {"query": "w1", "passages": ["w2", "w3 w4"], "truncate": "END", "from": "a later version"}
FROM = {"x-reranker-shadow": "old", "host": "rank-preview:8000"}


async def test_the_path_is_there_only_where_scores_are_compared(
    gateway_of: Callable[..., Gateway], client_of: Callable[[Gateway], httpx.AsyncClient]
) -> None:
    async with client_of(gateway_of()) as client:
        assert (await client.post(PATH, json=BODY, headers=FROM)).status_code == 404
    async with client_of(gateway_of(shadow_url=URL, revision="new")) as client:
        answer = await client.post(PATH, json=BODY, headers=FROM)
        assert (answer.status_code, answer.json()) == (
            200, {"revision": "new", "logits": [19.0, 28.0]},
        )  # fmt: skip
        assert PATH not in (await client.get("/openapi.json")).text


async def test_a_request_from_there_is_counted_but_not_sent_on(
    gateway_of: Callable[..., Gateway], client_of: Callable[[Gateway], httpx.AsyncClient]
) -> None:
    gateway = gateway_of(shadow_url=URL, revision="new", shadow_percent=100)
    async with client_of(gateway) as client:
        assert (await client.post(PATH, json=BODY, headers=FROM)).status_code == 200
        assert gateway.samples is not None
        waits = asyncio.ensure_future(gateway.samples.next())
        await asyncio.sleep(0)
        assert not waits.done()
        plain = {"query": "w1", "texts": ["w2", "w3"]}
        assert (await client.post("/rerank", json=plain)).status_code == 200
        assert (await waits).question.passages == ["w2", "w3"]
    text = gateway.telemetry.exposition()
    assert 'reranker_requests_total{code="200",dialect="shadow"} 1.0' in text


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({"x-reranker-shadow": ""}, 400, "x-reranker-shadow: is missing"),
        ({"x-reranker-shadow": "new"}, 409, "'new' is the revision of this pod, too"),
        ({"host": "other-preview:8000"}, 409, "within one service only"),
    ],
)
async def test_who_is_not_another_revision_is_refused(
    gateway_of: Callable[..., Gateway],
    client_of: Callable[[Gateway], httpx.AsyncClient],
    headers: dict[str, str],
    status: int,
    words: str,
) -> None:
    async with client_of(gateway_of(shadow_url=URL, revision="new")) as client:
        answer = await client.post(PATH, json=BODY, headers=FROM | headers)
    assert answer.status_code == status
    assert words in answer.json()["message"]


async def test_bounds_keys_and_the_end_are_as_for_all(
    gateway_of: Callable[..., Gateway],
    client_of: Callable[[Gateway], httpx.AsyncClient],
    engine: Any,
    eventually: Callable[..., Any],
    tmp_path: Path,
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "one").write_text("secret")
    gateway = gateway_of(
        shadow_url=URL, revision="new", api_keys_dir=keys, max_passages=1, max_body_bytes=1024
    )
    keyed = FROM | {"x-api-key": "secret"}
    async with client_of(gateway) as client:
        for headers, body, status in (
            (FROM, BODY, 401),
            (keyed, BODY, 413),
            (keyed, BODY | {"query": "w" * 2000}, 413),
            (keyed, {"query": "w1"}, 422),
            (keyed, BODY | {"passages": []}, 422),
        ):
            answer = await client.post(PATH, json=body, headers=headers)
            assert answer.status_code == status
        # One that is scored ends with the process, and so does nobody's wait for it.
        engine.open.clear()
        one = BODY | {"passages": ["w9"]}
        held = asyncio.create_task(client.post(PATH, json=one, headers=keyed))
        await eventually(lambda: bool(engine.batches))
        assert gateway.drain.active == 0
        gateway.drain.parting.set()
        assert (await held).status_code == 503
        engine.open.set()
        gateway.drain.phase = Phase.LEAVING
        assert (await client.post(PATH, json=one, headers=keyed)).status_code == 503
    assert "reranker_failed_requests_total 0.0" in gateway.telemetry.exposition()


def test_a_pod_must_know_its_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANKER_SHADOW_URL", URL)
    with pytest.raises(SettingsError, match=r"RERANKER_SHADOW_URL.*needs RERANKER_REVISION"):
        load_settings()
