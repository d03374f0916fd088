"""The HTTP contract: NIM's answers, and errors that keep NIM's clients alive."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from reranker_gateway.errors import EngineError, EngineTimeoutError

Make = Callable[..., Any]


@pytest.fixture
async def client(gateway_of: Make, client_of: Make) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(gateway_of(aliases=("old-name",))) as connected:
        yield connected


def assert_error(answer: httpx.Response, status: int, message: str) -> None:
    found = answer.json()
    assert answer.status_code == status, found
    assert found["object"] == "error"
    assert message in found["message"]
    assert found["code"] == status
    assert found["type"]
    # LangChain evaluates `"reqId" in detail` and shows `status` in place of the HTTP code.
    assert isinstance(found["detail"], dict)
    assert "status" not in found


async def test_ranking(client: httpx.AsyncClient, body: Make) -> None:
    answer = await client.post("/v1/ranking", json=body())
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    assert found.keys() == {"rankings", "usage"}
    assert all(item.keys() == {"index", "logit"} for item in found["rankings"])
    # Highest first; the two equal passages in the caller's order.
    assert [item["index"] for item in found["rankings"]] == [1, 0, 2]
    assert found["rankings"][1]["logit"] == found["rankings"][2]["logit"]
    assert found["usage"] == {"prompt_tokens": 19, "total_tokens": 19}


@pytest.mark.parametrize("header", ["Bearer **********", "Bearer API_KEY_NOT_PROVIDED"])
async def test_aliases_and_any_token_are_accepted(
    client: httpx.AsyncClient, body: Make, header: str
) -> None:
    answer = await client.post(
        "/v1/ranking", json=body(model="old-name"), headers={"Authorization": header}
    )
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"model": "other"}, 404, "model: 'other' is not served here; use 'demo/bert'"),
        ({"model": "x" * 129}, 422, "model: "),
        ({"model": 3}, 422, "model: "),
        ({"query": {"text": ""}}, 422, "query.text: "),
        ({"query": "w1"}, 422, 'query: must be an object {"text": "…"}'),
        ({"passages": ["w1"]}, 422, 'passages.0: must be an object {"text": "…"}'),
        ({"passages": {"text": "w1"}}, 422, "passages: must be a list"),
        ({"query": {"text": "w1", "lang": "en"}}, 422, "query.lang: "),
        ({"passages": []}, 422, "passages: "),
        ({"passages": [{"text": "w1"}, {}]}, 422, "passages.1.text: "),
        ({"passages": [{"text": "w1"}] * 513}, 413, "passages: 513 items, at most 512"),
        ({"passages": [{"text": "w1"}] * 9000}, 413, "at most 512 passages"),
        ({"passages": [[]] * 100_000}, 413, "not a ranking request"),
        ({"truncate": "end"}, 422, "truncate: must be 'NONE' or 'END', not 'end'"),
        ({"truncate": None, "top_k": 3}, 422, "top_k: Extra inputs are not permitted; remove it"),
        ({"k" * 10_000: 1}, 422, "k" * 64 + ":"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, dict) else "",
)
async def test_invalid_requests(
    client: httpx.AsyncClient, body: Make, changes: dict[str, Any], status: int, message: str
) -> None:
    assert_error(await client.post("/v1/ranking", json=body(**changes)), status, message)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"model": "\\ud800"}', 400),
        (b"[" * 5000, 400),
        (b'{"a":' * 190 + b"1" + b"}" * 190, 422),
        (b"[" * 100_000, 413),
        (b'"' + b"\\" * 100_001, 400),
        (b"NaN", 422),
        (b'{"model": Infinity}', 422),
        (b'{"model": 1e999999}', 422),
        (b'{"model": ' + b"9" * 8000 + b"}", 400),
        (b"[]", 422),
    ],
)
async def test_garbage(client: httpx.AsyncClient, content: bytes, status: int) -> None:
    assert_error(await client.post("/v1/ranking", content=content), status, "")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
        ({"Content-Type": "application/vnd.any+json"}, 200),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
        ({"Content-Type": ""}, 415),
        ({"Content-Encoding": "identity"}, 200),
        ({"Content-Encoding": "gzip"}, 415),
    ],
)
async def test_bodies_that_are_not_json_by_their_own_word(
    client: httpx.AsyncClient, body: Make, headers: dict[str, str], status: int
) -> None:
    answer = await client.post("/v1/ranking", content=json.dumps(body()), headers=headers)
    if status == 200:
        assert answer.status_code == 200
    else:
        assert_error(answer, 415, next(iter(headers)))


async def test_required_fields(client: httpx.AsyncClient, body: Make) -> None:
    for field in ("model", "query", "passages"):
        asked = body()
        del asked[field]
        assert_error(await client.post("/v1/ranking", json=asked), 422, f"{field}: Field required")


async def test_long_pairs(client: httpx.AsyncClient, body: Make) -> None:
    told = await client.post("/v1/ranking", json=body(passages=[{"text": "w1 " * 40}]))
    assert re.fullmatch(
        r"Input length \d+ exceeds maximum allowed token size 32", told.json()["message"]
    )
    assert "set truncate to END" in told.json()["detail"]["hint"]
    asked = body(passages=[{"text": "w1"}, {"text": "w1 " * 40}])
    refused = await client.post("/v1/ranking", json=asked)
    assert_error(refused, 422, "Input length 45 exceeds maximum allowed token size 32")
    cut = await client.post("/v1/ranking", json=asked | {"truncate": "END"})
    assert cut.status_code == 200
    assert cut.json()["usage"]["total_tokens"] == 6 + 32


async def test_the_server_sets_the_default_of_truncate(
    gateway_of: Make, client_of: Make, body: Make
) -> None:
    async with client_of(gateway_of(truncate="END")) as client:
        asked = body(passages=[{"text": "w1 " * 40}])
        assert (await client.post("/v1/ranking", json=asked)).status_code == 200
        assert_error(
            await client.post("/v1/ranking", json=asked | {"truncate": "NONE"}), 422, "exceeds"
        )


async def test_body_size(gateway_of: Make, client_of: Make, body: Make) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b" " * 300

    async with client_of(gateway_of(max_body_bytes=2048)) as client:
        declared = await client.post("/v1/ranking", json=body(query={"text": "w1 " * 1000}))
        assert_error(declared, 413, "larger than 2048 bytes")
        assert_error(await client.post("/v1/ranking", content=chunks()), 413, "2048")
        assert (await client.post("/v1/ranking", json=body())).status_code == 200


async def test_a_full_queue_is_429(
    gateway_of: Make, client_of: Make, engine: Any, body: Make, eventually: Make
) -> None:
    engine.open.clear()
    gateway = gateway_of(max_queue_tokens=60)
    async with client_of(gateway) as client:
        # Two batches of four rows go to the engine; the queue takes the rest.
        many = body(passages=[{"text": f"w{at} " * 10} for at in range(11)])
        running = asyncio.create_task(client.post("/v1/ranking", json=many))
        await eventually(lambda: len(engine.batches) == 2)
        refused = await client.post("/v1/ranking", json=body())
        assert_error(refused, 429, "the queue holds 45 tokens, 45 of this")
        assert int(refused.headers["retry-after"]) >= 1
        engine.open.set()
        assert (await running).status_code == 200


async def test_what_has_no_room_is_refused_before_it_is_tokenised(
    gateway_of: Make, client_of: Make, engine: Any, body: Make, eventually: Make
) -> None:
    gateway = gateway_of(max_queue_tokens=60)

    async def tokenised() -> str:
        text = (await client.get("/v1/metrics")).text
        count = 'reranker_stage_duration_seconds_count{stage="tokenise"}'
        return next(line for line in text.splitlines() if line.startswith(count))

    async with client_of(gateway) as client:
        # Of this one it is learnt how many tokens so many characters have.
        long = body(passages=[{"text": "w3 " * 10}] * 40)
        assert (await client.post("/v1/ranking", json=long)).status_code == 200
        engine.open.clear()
        many = body(passages=[{"text": f"w{at} " * 10} for at in range(11)])
        running = asyncio.create_task(client.post("/v1/ranking", json=many))
        await eventually(lambda: len(engine.batches) == 3)
        before = await tokenised()
        other = body(passages=[{"text": f"w{at} " * 10} for at in range(20, 30)])
        refused = await client.post("/v1/ranking", json=other)
        assert_error(refused, 429, "this request has about ")
        assert int(refused.headers["retry-after"]) >= 1
        assert await tokenised() == before
        engine.open.set()
        assert (await running).status_code == 200
        # With an empty queue anybody comes in.
        assert (await client.post("/v1/ranking", json=other)).status_code == 200


@pytest.mark.parametrize(
    ("errors", "status"),
    [([EngineError("bad")] * 2, 500), ([EngineTimeoutError("late")], 503)],
)
async def test_engine_failures(
    client: httpx.AsyncClient, engine: Any, body: Make, errors: list[Exception], status: int
) -> None:
    engine.failures.extend(errors)
    assert_error(await client.post("/v1/ranking", json=body(passages=[{"text": "w1"}])), status, "")
    assert (await client.post("/v1/ranking", json=body())).status_code == 200


async def test_not_ready(gateway_of: Make, client_of: Make, body: Make) -> None:
    async with client_of(gateway_of(ready=False)) as client:
        refused = await client.post("/v1/ranking", json=body())
        assert_error(refused, 503, "not ready")
        assert refused.headers["retry-after"] == "1"
        assert_error(await client.get("/v1/health/ready"), 503, "not ready")
        live = await client.get("/v1/health/live")
        assert live.json() == {
            "object": "health.response",
            "message": "Service is live.",
            "status": "live",
        }


async def test_a_bug_is_500_without_a_traceback_or_texts(
    client: httpx.AsyncClient, engine: Any, body: Make, caplog: pytest.LogCaptureFixture
) -> None:
    engine.failures.append(ZeroDivisionError("secret"))
    with caplog.at_level(logging.INFO):
        answer = await client.post("/v1/ranking", json=body(), headers={"X-Request-Id": "abc"})
    assert_error(answer, 500, "internal error")
    assert "secret" not in answer.text
    assert "w9" not in caplog.text
    assert any(record.exc_info for record in caplog.records)


async def test_a_client_that_goes_away_takes_its_work_along(
    gateway_of: Make, client_of: Make, engine: Any, body: Make, eventually: Make
) -> None:
    engine.open.clear()
    gateway = gateway_of()
    async with client_of(gateway) as client:
        asked = body(passages=[{"text": f"w{at} " * 10} for at in range(20)])
        gone = asyncio.Event()
        task = asyncio.create_task(_post_until(gateway, client_of, asked, gone))
        await eventually(lambda: len(engine.batches) == 2)
        gone.set()
        assert await task == 499
        engine.open.set()
        assert (await client.post("/v1/ranking", json=body())).status_code == 200
    # Two of the three passages of the last one are the same.
    assert sum(batch.rows for batch in engine.batches) == 8 + 2


async def _post_until(
    gateway: Any, client_of: Make, asked: dict[str, Any], gone: asyncio.Event
) -> int:
    """One request straight to the application, with a client that hangs up."""
    app = client_of(gateway)._transport.app
    messages = [{"type": "http.request", "body": json.dumps(asked).encode(), "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/ranking",
        "raw_path": b"/v1/ranking",
        "query_string": b"",
        "headers": [],
        "asgi": {"version": "3.0"},
    }
    await app(scope, receive, send)
    return int(sent[0]["status"])


async def test_unknown_paths_say_where_to_go(client: httpx.AsyncClient) -> None:
    assert_error(await client.post("/v1/rankings"), 404, "rank with POST /v1/ranking")
    assert_error(await client.get("/v1/ranking"), 405, "rank with POST /v1/ranking")
    for path, meant in (
        ("/v1/v1/rerank", "/v1/rerank"),
        ("/v1/v2/rerank", "/v2/rerank"),
        ("/v1/rerank/rerank", "/rerank"),
        ("/v2/rerank/", "/v2/rerank"),
    ):
        assert_error(await client.post(path), 404, f"rank with POST {meant}, see")
    for path in (
        "/%00%ff%0d%0a",
        "/v1/ranking/",
        "/" + "x" * 9000,
    ):
        assert_error(await client.post(path), 404, "is not served here")
    long = await client.request("A" * 3000, "/v1/ranking", headers={"Host": "[::1"})
    assert_error(long, 405, "AAAA /v1/ranking is not served here")


async def test_whoever_answers_get_answers_head(client: httpx.AsyncClient) -> None:
    for path in ("/v1/health/live", "/v1/health/ready", "/health", "/v1/models", "/v1/metrics"):
        assert (await client.head(path)).status_code == 200
    for operations in (await client.get("/openapi.json")).json()["paths"].values():
        assert "head" not in operations


async def test_a_parameter_that_is_none_is_told_as_the_nim_does(client: httpx.AsyncClient) -> None:
    refused = await client.get("/v1/health/ready?leaving=x")
    assert_error(refused, 422, "leaving: Input should be 'ready' or 'unready'")


async def test_models(client: httpx.AsyncClient) -> None:
    found = (await client.get("/v1/models")).json()
    assert [(entry["id"], entry["root"]) for entry in found["data"]] == [
        ("demo/bert", "demo/bert"),
        ("old-name", "demo/bert"),
    ]


async def test_metadata_names_the_engine(client: httpx.AsyncClient) -> None:
    found = (await client.get("/v1/metadata")).json()
    assert found["modelInfo"][0]["shortName"] == "demo/bert"
    assert len(found["selectedModelProfileId"]) == 64
    assert found["engine"]["maxLength"] == 32
    assert found["licenseInfo"] == (await client.get("/v1/license")).json()


async def test_metrics_are_ours_and_the_engines(client: httpx.AsyncClient, body: Make) -> None:
    await client.post("/v1/ranking", json=body())
    text = (await client.get("/v1/metrics")).text
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("code", "200") == "200"
    }
    assert samples["nv_inference_count"] == 3
    assert samples["reranker_requests_total"] == 1
    assert samples["reranker_passages_total"] == 3
    # Two of them are the same and go to the engine once.
    assert samples["reranker_shared_pairs_total"] == 1
    assert samples["reranker_tokens_total"] == 13
    assert samples["reranker_padded_tokens_total"] >= 13
    assert samples["reranker_backlog_seconds"] == 0
    assert samples["reranker_ready"] == 1


async def test_what_clients_make_up_is_no_label(client: httpx.AsyncClient, body: Make) -> None:
    async def series() -> set[str]:
        text = (await client.get("/v1/metrics")).text
        return {line.rpartition(" ")[0] for line in text.splitlines()}

    await client.post("/v1/ranking", json=body(model="other"))
    before = await series()
    for made_up in range(20):
        await client.get(f"/{made_up}")
        await client.request(f"X{made_up}", "/v1/ranking")
        await client.post(f"/v1/ranking?{made_up}", json=body(model=f"other-{made_up}"))
    assert await series() == before


async def test_request_ids(client: httpx.AsyncClient, body: Make) -> None:
    for sent, kept in (("abc-1", True), ("a b", False), ("x" * 129, False)):
        answer = await client.post("/v1/ranking", json=body(), headers={"X-Request-Id": sent})
        assert (answer.headers["x-request-id"] == sent) is kept


async def test_openapi_describes_the_request(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/openapi.json")).json()
    content = schema["paths"]["/v1/ranking"]["post"]["requestBody"]["content"]
    name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert schema["components"]["schemas"][name]["required"] == ["model", "query", "passages"]
