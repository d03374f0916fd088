"""Comparing scores with another revision: the measure, what is held for it, who is asked, how."""

import asyncio
import itertools
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpcore
import httpx
import numpy as np
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from support.certificates import issue
from support.ports import free_port

from reranker_gateway.api.dialects.base import Question
from reranker_gateway.app import create_app
from reranker_gateway.drain import Phase
from reranker_gateway.gateway import Gateway
from reranker_gateway.peers import Peers
from reranker_gateway.settings import SettingsError, load_settings
from reranker_gateway.shadow import samples as bounds
from reranker_gateway.shadow.kendall import MOST_PASSAGES, tau_b
from reranker_gateway.shadow.preview import (
    PATH,
    AbsentError,
    Preview,
    PreviewError,
    UnprovenError,
)
from reranker_gateway.shadow.proof import (
    CHALLENGE_HEADER,
    NONCE_HEADER,
    PROOF_HEADER,
    Secrets,
    receiver_proof,
    sender_proof,
)
from reranker_gateway.shadow.samples import Sample, Samples, Sampling
from reranker_gateway.shadow.sender import Sender
from reranker_gateway.shadow.telemetry import RESULTS, ShadowTelemetry

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[..., Awaitable[str]]
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


def test_a_short_rest_ends_no_longer_one() -> None:
    now = 0.0
    samples, _ = _samples(clock=lambda: now)
    samples.rest(30)
    samples.rest(1)
    now = 29.0
    assert samples.resting
    assert samples.take(_question("a", "b")) is None


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


IDENTITY = "b5a1"


async def _proves(request: web.Request) -> web.Response:
    """As a pod of the service does."""
    (secret,) = Secrets(None, IDENTITY).current()
    proof = receiver_proof(secret, request.headers[NONCE_HEADER], "new")
    return web.json_response({"revision": "new", "challenge": "9-" + "0" * 64, "proofs": [proof]})


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a server with the answers of the test's choice; gives its address."""
    ends: list[Callable[[], Awaitable[None]]] = []

    async def start(answer: Answer, prove: Answer = _proves) -> str:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post(PATH, answer)
        app.router.add_get(PATH, prove, allow_head=False)
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
    return Preview(url, "old", tls_dir=None, secrets=Secrets(keys_dir, IDENTITY))


def _sample(logits: list[float] | None = None) -> Sample:
    found = np.array(logits or [2.0, 1.0], dtype=np.float32)
    question = Question(["q"], [f"p{n}" for n in range(len(found))], None, "NONE", 7)
    return Sample(question, 10, "chunk", found)


async def test_all_that_matters_is_sent(serve: Serve) -> None:
    peers = set()

    async def prove(request: web.Request) -> web.Response:
        assert request.headers["x-reranker-shadow"] == "old"
        assert not await request.read()
        peers.add(request.transport)
        return await _proves(request)

    async def answer(request: web.Request) -> web.Response:
        peers.add(request.transport)
        head = request.headers
        assert (head["x-reranker-shadow"], head["x-long-passages"]) == ("old", "chunk")
        (secret,) = Secrets(None, IDENTITY).current()
        assert head[PROOF_HEADER] == sender_proof(
            secret, head[NONCE_HEADER], head[CHALLENGE_HEADER]
        )
        assert await request.json() == {
            "query": "q", "passages": ["p0", "p1"], "truncate": "NONE", "passage_tokens": 7,
        }  # fmt: skip
        return web.json_response({"revision": "new", "logits": [1, -2.5]})

    revision, logits = await _preview(await serve(answer, prove)).score(_sample())
    assert (revision, logits.tolist(), len(peers)) == ("new", [1, -2.5], 1)


class _Stranger:
    """Answers whatever comes, keeps all bytes, and takes one connection after the other."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = iter(answers)
        self.heard = b""
        self.connections = 0
        self.left = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heard += head
                answer = next(self._answers, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                writer.write(answer.replace(b"PROOF", self._proof(head)))
                if b"connection: close" in answer:
                    break
        except asyncio.IncompleteReadError as error:
            self.heard += error.partial
        with suppress(OSError):
            self.heard += await reader.read()
            writer.close()
            await writer.wait_closed()
        self.left.set()

    def _proof(self, head: bytes) -> bytes:
        nonce = head.partition(NONCE_HEADER.encode() + b": ")[2].partition(b"\r\n")[0].decode()
        (secret,) = Secrets(None, IDENTITY).current()
        return receiver_proof(secret, nonce, "new").encode()


def _http(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{more}content-length: {len(body)}\r\n\r\n".encode() + body


def _claim(proof: str, **changes: object) -> bytes:
    told = {"revision": "new", "challenge": "9-" + "0" * 64, "proofs": [proof]} | changes
    return json.dumps(told).encode()


@pytest.mark.parametrize(
    ("answer", "is_failure"),
    [
        (_http(b"<html>"), True), (_http(b"no", "404 Not Found"), True),
        (_http(b"", "401 Unauthorized"), True), (_http(b"", "500 No"), True),
        (_http(b"x" * 9999), True),
        (_http(b"", "307 Elsewhere", "location: /elsewhere\r\n"), True),
        (_http(b'{"revision": "new", "logits": [1, 2]}'), True),
        (_http(_claim("f" * 64, proofs=[])), True), (_http(_claim("f" * 64, challenge="1")), True),
        (_http(_claim("f" * 64, revision="a\n")), True), (_http(_claim("f" * 63)), True),
        # Right for another nonce, or by another secret.
        (_http(_claim("f" * 64)), False),
        # Right, but where the texts would go is another connection.
        (_http(_claim("f" * 64), more="connection: close\r\n").replace(b"f" * 64, b"PROOF"), False),
    ],
)  # fmt: skip
async def test_a_stranger_gets_no_text_and_no_key(
    tmp_path: Path, answer: bytes, is_failure: bool
) -> None:
    (tmp_path / "one").write_text("the-key\n")
    right = b"PROOF" in answer
    stranger = _Stranger(answer)
    server = await asyncio.start_server(stranger.serve, HERE, 0)
    url = f"http://{HERE}:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(UnprovenError) as caught:
        await _preview(url, None if right else tmp_path).score(_sample())
    await stranger.left.wait()
    server.close()
    await server.wait_closed()
    assert caught.value.is_failure is is_failure
    assert (stranger.connections, stranger.heard.count(b"HTTP/1.1")) == (1, 1)
    assert stranger.heard.startswith(b"GET ")
    assert not any(told in stranger.heard for told in (b"the-key", b"p0", b"passages", b"{"))


def test_words_around_a_certificate_are_passed_over(tmp_path: Path) -> None:
    issue(tmp_path / "tls", "rank.example.com")
    file = tmp_path / "tls/tls.crt"
    file.write_bytes("# für die Suche\n".encode() + file.read_bytes())
    origin = httpcore.Origin(b"https", HERE.encode(), 1)
    assert Peers(tmp_path / "tls").connection(origin).can_handle_request(origin)


async def test_one_of_several_keys_is_enough(serve: Serve, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for folder, keys in ((theirs, ("b", "c")), (ours, ("a", "b"))):
        folder.mkdir()
        for key in keys:
            (folder / key).write_text(key)
    secrets = Secrets(theirs, IDENTITY)

    async def prove(request: web.Request) -> web.Response:
        nonce = request.headers[NONCE_HEADER]
        proofs = [receiver_proof(secret, nonce, "new") for secret in secrets.current()]
        return web.Response(body=_claim("", proofs=proofs))

    async def answer(request: web.Request) -> web.Response:
        head = request.headers
        shared = sender_proof(secrets.current()[0], head[NONCE_HEADER], head[CHALLENGE_HEADER])
        assert head[PROOF_HEADER] == shared
        return web.json_response({"revision": "new", "logits": [1, 2]})

    url = await serve(answer, prove)
    assert (await _preview(url, ours).score(_sample()))[0] == "new"
    # Where there are keys, the identity is none.
    with pytest.raises(UnprovenError, match="another secret"):
        await _preview(url).score(_sample())


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
            assert (caught.value.status, type(caught.value)) == (status, PreviewError)
    preview = _preview(f"http://{HERE}:{free_port()}")
    with pytest.raises(AbsentError):
        await preview.score(_sample())


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
    told = iter([[1, 2, 3], [3, 2, 1], [5, 5, 5], [3, 2, 1]])

    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({"revision": "new", "logits": next(told)})

    rig = run(_Rig(await serve(answer)))
    for number, logits in enumerate(([30, 20, 10], [30, 20, 10], [30, 20, 10], [7, 7, 7])):
        rig.offer([*map(float, logits)])
        done = lambda n=number: sum(rig.count(r) or 0 for r in ("compared", "skipped")) == n + 1  # noqa: E731
        await eventually(done)
    # What ties all that was told apart counts; where nothing was told apart, nothing does.
    assert (rig.tau("new"), rig.count("skipped")) == ((3, 0), 1)


def test_only_the_newest_revisions_are_remembered() -> None:
    rig = _Rig("http://nobody:1")
    for number in range(9):
        rig.telemetry.compared(f"r{number}", 0.5)
    assert [rig.tau(f"r{number}")[0] for number in range(9)] == [None] * 5 + [1] * 4


@pytest.mark.parametrize(
    ("status", "result", "pause"),
    [
        (404, "failed", 5), (401, "failed", 5), (500, "failed", 5), (422, "failed", 0),
        (409, None, 30), (429, "dropped", 1), (413, "skipped", 0), (None, None, 5),
    ],
)  # fmt: skip
async def test_who_can_not_be_asked_is_left_alone_for_a_while(
    serve: Serve,
    run: Callable[[_Rig], _Rig],
    eventually: Callable[..., Any],
    status: int | None,
    result: str | None,
    pause: int,
) -> None:
    asked = []

    async def answer(_request: web.Request) -> web.Response:
        asked.append(True)
        return web.Response(status=status or 500)

    url = f"http://{HERE}:{free_port()}" if status is None else await serve(answer)
    rig = run(_Rig(url))
    rig.offer([2, 1])
    if pause:
        await eventually(lambda: rig.samples.resting)
    else:
        await eventually(lambda: rig.count(result or "") == 1)
    # Each is counted once.
    assert [end for end in RESULTS if rig.count(end)] == ([result] if result else [])
    assert rig.count(result or "failed") == (result is not None)
    rig.now = pause - 0.1
    assert rig.samples.resting is (pause > 0)
    if pause:
        # Nothing is chosen, sent or counted meanwhile.
        rig.offer([2, 1])
    rig.now = pause
    assert not rig.samples.resting
    assert len(asked) == (status is not None)
    assert rig.count("dropped") == (result == "dropped")


@pytest.mark.parametrize(("status", "failed"), [(200, 0), (404, 1)])
async def test_a_stranger_is_left_alone_and_told_once(
    serve: Serve,
    run: Callable[[_Rig], _Rig],
    eventually: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    status: int,
    failed: int,
) -> None:
    async def prove(_request: web.Request) -> web.Response:
        return web.Response(body=_claim("f" * 64), status=status)

    rig = run(_Rig(await serve(prove, prove)))
    with caplog.at_level("INFO"):
        for number in range(2):
            rig.now = 30.0 * number
            rig.offer([2, 1])
            await eventually(lambda: rig.samples.resting)
            rig.now += 29.9
            assert rig.samples.resting
    assert sum(rig.count(end) or 0 for end in RESULTS) == rig.count("failed") == 2 * failed
    (told,) = (entry for entry in caplog.records if "has not proven" in entry.getMessage())
    assert "p0" not in str(vars(told))


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
NONCE = "ab" * 32
FROM = {"x-reranker-shadow": "old", "host": "rank-preview:8000", NONCE_HEADER: NONCE}
SHADOWED = {"shadow_url": URL, "shadow_identity": IDENTITY, "revision": "new"}


async def _proven(client: httpx.AsyncClient, secrets: Secrets | None = None) -> dict[str, str]:
    """Headers of a sender that has asked who is there."""
    (secret, *_) = (secrets or Secrets(None, IDENTITY)).current()
    answer = await client.get(PATH, headers=FROM)
    assert answer.status_code == 200
    told = answer.json()
    assert (told["revision"], receiver_proof(secret, NONCE, "new") in told["proofs"]) == (
        "new", True,
    )  # fmt: skip
    proof = sender_proof(secret, NONCE, told["challenge"])
    return FROM | {CHALLENGE_HEADER: told["challenge"], PROOF_HEADER: proof}


async def test_the_path_is_there_only_where_scores_are_compared(
    gateway_of: Callable[..., Gateway], client_of: Callable[[Gateway], httpx.AsyncClient]
) -> None:
    async with client_of(gateway_of()) as client:
        assert (await client.post(PATH, json=BODY, headers=FROM)).status_code == 404
        assert (await client.get(PATH, headers=FROM)).status_code == 404
    async with client_of(gateway_of(**SHADOWED)) as client:
        answer = await client.post(PATH, json=BODY, headers=await _proven(client))
        assert (answer.status_code, answer.json()) == (
            200, {"revision": "new", "logits": [19.0, 28.0]},
        )  # fmt: skip
        assert PATH not in (await client.get("/openapi.json")).text


async def test_a_request_from_there_is_counted_but_not_sent_on(
    gateway_of: Callable[..., Gateway], client_of: Callable[[Gateway], httpx.AsyncClient]
) -> None:
    gateway = gateway_of(shadow_percent=100, **SHADOWED)
    async with client_of(gateway) as client:
        head = await _proven(client)
        assert (await client.post(PATH, json=BODY, headers=head)).status_code == 200
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
        ({NONCE_HEADER: "ab"}, 400, "'ab' is not 64 hexadecimal digits"),
    ],
)
async def test_who_is_not_another_revision_is_refused(
    gateway_of: Callable[..., Gateway],
    client_of: Callable[[Gateway], httpx.AsyncClient],
    headers: dict[str, str],
    status: int,
    words: str,
) -> None:
    async with client_of(gateway_of(**SHADOWED)) as client:
        proven = await _proven(client)
        for answer in (
            await client.get(PATH, headers=proven | headers),
            await client.post(PATH, json=BODY, headers=proven | headers),
        ):
            assert answer.status_code == status
            assert words in answer.json()["message"]


async def test_a_proof_is_by_a_key_of_ours_for_a_challenge_of_ours_that_is_new(
    gateway_of: Callable[..., Gateway], tmp_path: Path
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
        (folder / "one").write_text(folder.name)
    now = 100.0
    gateway = gateway_of(api_keys_dir=ours, **SHADOWED)
    transport = httpx.ASGITransport(create_app(gateway, lambda: now))
    (other,) = Secrets(theirs, "").current()
    (identity,) = Secrets(None, IDENTITY).current()
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        right = await _proven(client, Secrets(ours, ""))
        challenge = right[CHALLENGE_HEADER]
        for changes in (
            {PROOF_HEADER: ""},
            {PROOF_HEADER: sender_proof(other, NONCE, challenge)},
            # Where there are keys, the identity is none.
            {PROOF_HEADER: sender_proof(identity, NONCE, challenge)},
            {NONCE_HEADER: "cd" * 32},
            {CHALLENGE_HEADER: "999-" + "0" * 64},
            # A client's key is none, either.
            {PROOF_HEADER: "", "x-api-key": "ours"},
        ):
            answer = await client.post(PATH, json=BODY, headers=right | changes)
            assert (answer.status_code, PROOF_HEADER in answer.text) == (401, True)
        now = 160.0
        assert (await client.post(PATH, json=BODY, headers=right)).status_code == 401
        now = 159.0
        assert (await client.post(PATH, json=BODY, headers=right)).status_code == 200
        plain = {"query": "w1", "texts": ["w2", "w3"]}
        # And the proof opens nothing else.
        assert (await client.post("/rerank", json=plain, headers=right)).status_code == 401


async def test_it_gives_way_to_all_that_waits(
    gateway_of: Callable[..., Gateway],
    client_of: Callable[[Gateway], httpx.AsyncClient],
    engine: Any,
    eventually: Callable[..., Any],
) -> None:
    gateway = gateway_of(token_budget=1, **SHADOWED)
    async with client_of(gateway) as client:
        head = await _proven(client)
        engine.open.clear()
        plain = {"query": "w1", "texts": ["w2", "w3", "w4", "w5"]}
        live = asyncio.create_task(client.post("/rerank", json=plain))
        await eventually(lambda: gateway.scorer.busy)
        answer = await client.post(PATH, json=BODY, headers=head)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        engine.open.set()
        assert (await live).status_code == 200
        # A share of its own, whatever it calls itself.
        context = gateway.callers.admit(PATH, [(b"x-caller", b"shop")])
        assert context not in ("", gateway.callers.admit("/rerank", [(b"x-caller", b"shop")]))
        assert (await client.post(PATH, json=BODY, headers=head)).status_code == 200


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
    gateway = gateway_of(api_keys_dir=keys, max_passages=1, max_body_bytes=1024, **SHADOWED)
    async with client_of(gateway) as client:
        keyed = await _proven(client, Secrets(keys, ""))
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


async def test_a_sender_that_failed_does_not_keep_the_engine(
    gateway_of: Callable[..., Gateway], engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = gateway_of(**SHADOWED)
    assert gateway.sender is not None
    gateway.sender.run = _fails  # type: ignore[method-assign]
    told: asyncio.Queue[Any] = asyncio.Queue()
    moves: asyncio.Queue[Any] = asyncio.Queue()
    moves.put_nowait({"type": "lifespan.startup"})
    app = create_app(gateway)
    living = asyncio.create_task(app({"type": "lifespan", "state": {}}, moves.get, told.put))
    assert (await told.get())["type"] == "lifespan.startup.complete"
    moves.put_nowait({"type": "lifespan.shutdown"})
    assert (await told.get())["type"] == "lifespan.shutdown.complete"
    await living
    assert not engine.loaded
    assert "a background task had failed" in caplog.text


async def _fails() -> None:
    raise ValueError("no")


def test_a_pod_must_know_its_revision_and_its_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANKER_SHADOW_URL", URL)
    with pytest.raises(SettingsError, match=r"RERANKER_SHADOW_URL.*needs RERANKER_REVISION"):
        load_settings()
    monkeypatch.setenv("RERANKER_REVISION", "new")
    with pytest.raises(SettingsError, match=r"RERANKER_SHADOW_URL.*RERANKER_SHADOW_IDENTITY or"):
        load_settings()
    monkeypatch.setenv("RERANKER_SHADOW_IDENTITY", IDENTITY)
    assert load_settings().shadow_identity == IDENTITY
